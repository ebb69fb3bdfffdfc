"""The tiny model that the plugin makes by itself."""

from pathlib import Path

from simulator.testing import VirtualWorld, network
from simulator.testing.tiny_model import write_tiny_model


def test_the_same_seed_writes_the_same_files(tmp_path: Path) -> None:
    one, two, other = (
        write_tiny_model(tmp_path / name, seed=seed)
        for name, seed in (("one", 1), ("two", 1), ("other", 2))
    )

    def content(folder: Path) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}

    assert content(one) == content(two)
    assert content(one) != content(other)


def test_it_speaks_printable_text_that_comes_back_to_itself(tmp_path: Path) -> None:
    folder = write_tiny_model(tmp_path / "tiny")
    with network("rtt=40ms") as scene:
        pair = scene.world(target=folder)
        assert isinstance(pair, VirtualWorld)
        answer = pair.edge.ask("Why do riders draft?")
        assert answer.text == pair.target_text("Why do riders draft?")
    assert answer.num_tokens == len(answer.text) == 64
    assert all("!" <= character <= "~" for character in answer.text)
    # Prompt lookup has something to find: that of an edge, and that of the verifier, which is the first to know a text.
    assert answer.statistics.drafted > 0
    assert answer.statistics.steps < answer.num_tokens / 2
