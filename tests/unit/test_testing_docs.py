"""docs/testing.md shows the very files that run, and what it says besides is true."""

import re
from dataclasses import fields
from pathlib import Path

import pytest

from simulator import testing
from simulator.testing.parts import Parts

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
EXAMPLES = sorted((ROOT / "tests" / "examples").glob("test_*.py"))
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_every_example_is_shown_as_it_runs(example: Path) -> None:
    assert example.read_text(encoding="utf-8") in BLOCKS
    assert f"`tests/examples/{example.name}`" in TEXT


def test_every_block_of_python_can_be_compiled() -> None:
    for block in BLOCKS:
        compile(block, "docs/testing.md", "exec")


def test_every_argument_and_every_public_name_is_told() -> None:
    for name in [*(field.name for field in fields(Parts)), *testing._HOMES]:
        assert re.search(rf"`{name}\b", TEXT), name


def test_every_public_name_is_there() -> None:
    for name in testing._HOMES:
        assert getattr(testing, name).__name__ == name
    with pytest.raises(AttributeError, match="nothing"):
        getattr(testing, "nothing")  # noqa: B009 - a name that is not there
