"""Keeps texts out of the training data that a draft is to be measured on.

Two texts overlap if they share a run of NUM_WORDS words, lower-cased, whatever stands between them: the usual test for
contamination (Brown et al., "Language Models are Few-Shot Learners", appendix C).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError

NUM_WORDS = 13
_WORD = re.compile(r"\w+")


class Exclusion:
    """The runs of words that no training text may contain."""

    def __init__(self, texts: Sequence[str] = ()) -> None:
        self._runs: set[tuple[str, ...]] = set()
        digest = hashlib.sha256()
        for text in texts:
            digest.update(text.encode() + b"\0")
            self._runs.update(_runs(text))
        self.fingerprint = digest.hexdigest()
        """Of the texts; a run goes on only with the same ones."""

    def __len__(self) -> int:
        """Runs that are looked for."""
        return len(self._runs)

    def matches(self, text: str) -> bool:
        """Return whether a text shares a run with an excluded one."""
        return bool(self._runs) and any(run in self._runs for run in _runs(text))


def read_texts(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return all texts of some files: every string of a .json or .jsonl file, else the file as one text.

    Raises:
        ConfigError: a file cannot be read as what its name says.
    """
    texts: list[str] = []
    for path in paths:
        try:
            content = path.read_text(encoding="utf-8")
            if path.suffix == ".jsonl":
                lines = [line for line in content.splitlines() if line.strip()]
                texts.extend(text for line in lines for text in _strings(json.loads(line)))
            elif path.suffix == ".json":
                texts.extend(_strings(json.loads(content)))
            else:
                texts.append(content)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"file {path}: cannot be read as text: {error}; expected UTF-8, and JSON if it is named so"
            ) from error
    return tuple(texts)


def _strings(value: Any) -> Iterator[str]:
    match value:
        case str():
            yield value
        case dict():
            for item in value.values():
                yield from _strings(item)
        case list():
            for item in value:
                yield from _strings(item)
        case _:
            pass


def _runs(text: str) -> Iterator[tuple[str, ...]]:
    found = _WORD.findall(text.lower())
    for start in range(len(found) - NUM_WORDS + 1):
        yield tuple(found[start : start + NUM_WORDS])
