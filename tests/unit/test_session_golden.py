"""Transcripts in tests/golden: readable exchanges of messages that must come out as they stand there."""

from pathlib import Path

import pytest
from harness.transcript import replay

GOLDEN = Path(__file__).parent.parent / "golden"
TRANSCRIPTS = sorted(GOLDEN.glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_transcript(path: Path, pytestconfig: pytest.Config) -> None:
    told = path.read_text(encoding="ascii")
    happened = replay(told)
    if pytestconfig.getoption("--rewrite-golden"):
        path.write_text(happened, encoding="ascii")
    else:
        assert happened == told, "understand why, then run: pytest --rewrite-golden"


def test_there_are_transcripts() -> None:
    assert len(TRANSCRIPTS) >= 15
