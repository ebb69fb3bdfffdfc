"""What the doctor says of GGUF files that llama.cpp is to draft with, whether it is installed here or not."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from harness.gguf_files import save_tiny_gguf
from harness.models import llama_config, save_tiny

from edge.draft_spec import parse
from paceline.command import run
from paceline.engine.gguf_header import quantisation_of, words_of
from simulator.doctor.probes.gguf import gguf_files, look_at_gguf
from simulator.doctor.verdicts.check import Status
from simulator.doctor.verdicts.gguf import GgufFinding, judge_file, judge_library, judge_words

OK, FAIL, SKIPPED = Status.OK, Status.FAIL, Status.SKIPPED


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(save_tiny(tmp_path_factory.mktemp("target"), config=llama_config()))


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_gguf(tmp_path_factory.mktemp("gguf") / "draft.gguf")


@pytest.mark.parametrize(
    ("text", "files"),
    [
        ("lookup", ()),
        ("owner/m", ()),
        ("llama:m.gguf", ("m.gguf",)),
        ("tree:llama:m.gguf", ("m.gguf",)),
        ("suffix+llama:a+b.gguf", ("a+b.gguf",)),
        ("hierarchy:llama:m.gguf+low-bit:4/64", ("m.gguf",)),
        ("tree:low-bit:4/64", ()),
    ],
)
def test_files_are_found_wherever_they_stand(text: str, files: tuple[str, ...]) -> None:
    assert gguf_files(parse(text)) == files


def test_a_file_that_fits(file: Path, target: str) -> None:
    found = look_at_gguf(str(file), target=target)
    assert (found.error, found.differs, found.quantisation) == ("", "", "")
    assert found.num_words == len(words_of(file)) > 250
    assert found.file_bytes == file.stat().st_size
    assert bool(found.library_error) == (find_spec("llama_cpp") is None)
    assert bool(found.library) != bool(found.library_error)
    assert judge_file(found).status is OK
    assert judge_words(found, target_error="").status is OK
    assert judge_words(found, target_error="gone").status is SKIPPED


def test_a_file_with_other_words(tmp_path: Path, target: str) -> None:
    file = save_tiny_gguf(tmp_path / "other.gguf", renamed={7: "another"})
    assert words_of(file)[7] == "another"
    found = look_at_gguf(str(file), target=target)
    assert "token 7 is 'another', to the target" in found.differs
    check = judge_words(found, target_error="")
    assert (check.status, check.found) == (FAIL, found.differs)
    # Nothing is known of the target: nothing to compare with.
    assert look_at_gguf(str(file), target=None).differs == ""


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no such file"),
        (b"", "no whole GGUF file"),
        (b"GGUF", "no whole GGUF file"),
        (b"PK" + bytes(200), "expected GGUF, 2 or 3"),
    ],
)
def test_what_is_no_model(content: bytes | None, message: str, tmp_path: Path, target: str) -> None:
    path = tmp_path / "draft.gguf"
    if content is not None:
        path.write_bytes(content)
    found = look_at_gguf(str(path), target=target)
    assert message in found.error
    assert judge_file(found).status is FAIL
    assert judge_words(found, target_error="").status is SKIPPED


def test_a_file_that_breaks_off_in_its_words_or_has_none(file: Path, tmp_path: Path) -> None:
    torn = tmp_path / "torn.gguf"
    torn.write_bytes(file.read_bytes()[:1500])
    assert "no whole GGUF file" in look_at_gguf(str(torn), target=None).error
    bare = tmp_path / "bare.gguf"
    bare.write_bytes(b"GGUF" + (3).to_bytes(4, "little") + bytes(16))
    assert quantisation_of(bare) == "unknown"
    with pytest.raises(ValueError, match="has no list of words"):
        words_of(bare)


def test_a_library_that_is_not_there() -> None:
    check = judge_library(GgufFinding(name="m", library_error="cannot be imported"))
    assert (check.status, check.found) == (FAIL, "cannot be imported")
    assert "pip install" in check.advice
    assert judge_library(GgufFinding(name="m", library="0.3.36")).status is OK


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "status"), [("tree:llama:{file}", "ok"), ("llama:{file}x", "fail")]
)
def test_the_command_looks_at_it(
    spec: str, status: str, file: Path, target: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(["doctor", "--target", target, "--draft", spec.format(file=file), "--json"])
    checks = {check["name"]: check for check in json.loads(capsys.readouterr().out)["checks"]}
    assert checks["draft"]["status"] == status
    assert checks["same tokenizer"]["status"] == ("ok" if status == "ok" else "skipped")
    assert checks["memory for models"]["status"] != ("skipped" if status == "ok" else "ok")
    assert checks["llama.cpp"]["status"] == ("ok" if find_spec("llama_cpp") else "fail")
