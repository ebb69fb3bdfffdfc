"""That one model costs one reading of its GGUF file, and that nobody else's names stay replaced."""

from pathlib import Path

import gguf
import pytest
from transformers import modeling_gguf_pytorch_utils as converter

from paceline.engine.gguf_once import reading_once


def write(path: Path) -> Path:
    """The smallest file there can be."""
    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_file_is_read_once_until_the_outermost_block_is_left(tmp_path: Path) -> None:
    path, other = write(tmp_path / "one.gguf"), write(tmp_path / "two.gguf")
    before = (gguf.GGUFReader, gguf.get_tensor_name_map, converter.tqdm)
    with reading_once():
        first = gguf.GGUFReader(path)
        assert first.fields["general.architecture"].contents() == "llama"
        with reading_once():
            assert gguf.GGUFReader(str(path)) is first
        assert gguf.GGUFReader(path) is first
        assert gguf.GGUFReader(other) is not first
        arch = gguf.MODEL_ARCH.LLAMA
        assert gguf.get_tensor_name_map(arch, 2) is gguf.get_tensor_name_map(arch, 2)
        assert gguf.get_tensor_name_map(arch, 2) is not gguf.get_tensor_name_map(arch, 3)
    assert before == (gguf.GGUFReader, gguf.get_tensor_name_map, converter.tqdm)
    with reading_once():
        assert gguf.GGUFReader(path) is not first


def test_its_bar_is_silent(capsys: pytest.CaptureFixture[str]) -> None:
    with reading_once():
        assert list(converter.tqdm(range(3), desc="converting")) == [0, 1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_failure_leaves_nothing_replaced() -> None:
    before = gguf.GGUFReader
    with pytest.raises(KeyError), reading_once():
        raise KeyError
    assert gguf.GGUFReader is before
