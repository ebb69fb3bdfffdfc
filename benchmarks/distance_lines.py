"""The folder of a run of benchmarks/distance.py: one JSON line for everything that is finished, so that a run can be broken off."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from paceline.tokens import TokenId

Line = dict[str, Any]

LINES = "lines.jsonl"
SETTINGS = "settings.json"


class RunFolder:
    """Reads what is done and adds to it. A line counts when its end is on the disk.

    Args:
        path: is made if it is not there.
    """

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._file = path / LINES
        self.lines = self._read()

    def settle(self, settings: dict[str, Any]) -> None:
        """Keep what all lines are measured with.

        Raises:
            SystemExit: the lines that are there were measured with something else; they would count as done.
        """
        file = self.path / SETTINGS
        if not self.lines or not file.exists():
            file.write_text(json.dumps(settings, indent=1) + "\n", encoding="utf-8")
            return
        known = json.loads(file.read_text(encoding="utf-8"))
        for name, value in settings.items():
            if known.get(name) != value:
                raise SystemExit(
                    f"--{name}: got {value!r}, but the lines in {self.path} were measured with {known.get(name)!r}; "
                    "say that again, or name another folder"
                )

    def append(self, line: Line) -> None:
        """Keep a line, for good."""
        with self._file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, separators=(",", ":")) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.lines.append(line)

    def generations(self) -> list[Line]:
        """Return the lines of measured generations, of each cell the last one."""
        last = {line["key"]: line for line in self.lines if line["kind"] == "generation"}
        return list(last.values())

    def done(self) -> frozenset[str]:
        """Return the keys of cells that need not be measured any more."""
        return frozenset(line["key"] for line in self.generations() if is_sound(line))

    def tries(self, key: str) -> int:
        """Return how often a cell was measured."""
        return sum(line["kind"] == "generation" and line["key"] == key for line in self.lines)

    def texts(self, prompt: str, temperature: float) -> list[tuple[TokenId, ...]]:
        """Return the outputs of a prompt that are known, the reference first, each once."""
        found = (
            tuple(line["output"])
            for line in self.lines
            if line["kind"] in {"text", "generation"}
            and (line["prompt"], line["temperature"]) == (prompt, temperature)
        )
        return list(dict.fromkeys(found))

    def _read(self) -> list[Line]:
        if not self._file.exists():
            return []
        content = self._file.read_bytes()
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(
            content
        ):  # the writer was killed: what comes next begins on a line of its own
            with self._file.open("r+b") as file:
                file.truncate(len(whole))
        return [json.loads(line) for line in whole.splitlines()]


def is_sound(line: Line) -> bool:
    """Return whether a generation says what it should: a recorded draft knew the text all along."""
    return line["lost_at"] is None


def lost_at(
    output: tuple[TokenId, ...], known: Iterable[tuple[TokenId, ...]], *, guessed: int
) -> int | None:
    """Return where a text leaves all that a recorded draft knew, if it does so before its last guess.

    Args:
        output: what came.
        known: the outputs that the draft knew.
        guessed: leave out so many tokens at the end: nobody guesses the last one.
    """
    length = max((_common(output, text) for text in known), default=0)
    return length if length < len(output) - guessed else None


def _common(one: tuple[TokenId, ...], other: tuple[TokenId, ...]) -> int:
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
