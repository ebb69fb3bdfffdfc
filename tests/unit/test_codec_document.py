"""The bytes in docs/protocol.md are what the codec makes of the messages above them."""

import re
from pathlib import Path

import pytest
from harness.transcript import tell

from paceline.codec import encode_cloud, encode_edge, parse_cloud, parse_edge
from paceline.messages import Commit, Proposal

DOCUMENT = Path(__file__).parent.parent.parent / "docs" / "protocol.md"
EXAMPLES = re.findall(
    r"^```\n((?:Proposal|Commit) .*)\n((?:[0-9a-f]{2} ?)+)\n```$",
    DOCUMENT.read_text(encoding="ascii"),
    flags=re.MULTILINE,
)


@pytest.mark.parametrize(("told", "written"), EXAMPLES)
def test_the_worked_examples_are_true(told: str, written: str) -> None:
    payload = bytes.fromhex(written)
    if told.startswith("Proposal"):
        proposal = parse_edge(payload)
        assert isinstance(proposal, Proposal)
        assert (tell(proposal), encode_edge(proposal).SerializeToString()) == (told, payload)
    else:
        commit = parse_cloud(payload)
        assert isinstance(commit, Commit)
        assert (tell(commit), encode_cloud(commit).SerializeToString()) == (told, payload)


def test_there_are_examples() -> None:
    assert len(EXAMPLES) == 5
