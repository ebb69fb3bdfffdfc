"""A text in one tokenizer's ids, followed in another's as it grows and changes its end.

The text goes over as bytes. What lies well behind its end is translated once; the last tokens are translated again
each time, because a few letters more may change how a word is cut. Special tokens become the other's token of the same
name, or nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.drafters.prefix import common_length
from edge.drafters.words import UNFINISHED, Words, complete
from paceline.tokens import TokenId

TAIL = 32
"""Tokens at the end that are translated again each time, at least."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Settled:
    """A part of a text that is translated for good."""

    source: tuple[TokenId, ...] = ()
    goal: tuple[TokenId, ...] = ()


class Translation:
    """One text.

    Args:
        source: of the text that is given.
        goal: of the text that is wanted.
    """

    def __init__(self, source: Words, goal: Words) -> None:
        self._source = source
        self._goal = goal
        names = {name: token for token, name in goal.specials.items()}
        self._specials = {
            token: (names[name],) if name in names else ()
            for token, name in source.specials.items()
        }
        self._start = _Settled(goal=goal.beginning())
        self._settled = self._start

    def of(self, text: Sequence[TokenId]) -> tuple[TokenId, ...] | None:
        """Return the text in the other's ids; None while it ends within a character, or cannot be said in them."""
        if common_length(self._settled.source, text) < len(self._settled.source):
            self._settled = self._start
        out = list(self._settled.goal)
        first = len(self._settled.source)
        settled_at = self._settled
        for begin, end in self._runs(text, first):
            if text[begin] in self._specials:
                out.extend(self._specials[text[begin]])
                if end <= len(text) - TAIL:
                    settled_at = _Settled(source=tuple(text[:end]), goal=tuple(out))
                continue
            found = self._run(text, begin, end)
            if found is None:
                return None
            place = self._meeting(text, begin, min(end, len(text) - TAIL), found)
            if place is not None:
                source_end, goal_end = place
                settled_at = _Settled(
                    source=tuple(text[:source_end]), goal=(*out, *found[:goal_end])
                )
            out.extend(found)
        self._settled = settled_at
        return tuple(out)

    def _runs(self, text: Sequence[TokenId], first: int) -> list[tuple[int, int]]:
        """Return the beginnings and ends of runs of plain tokens and of single special ones."""
        runs: list[tuple[int, int]] = []
        for index in range(first, len(text)):
            is_special = text[index] in self._specials
            if runs and not is_special and text[index - 1] not in self._specials:
                runs[-1] = (runs[-1][0], index + 1)
            else:
                runs.append((index, index + 1))
        return runs

    def _run(self, text: Sequence[TokenId], begin: int, end: int) -> tuple[TokenId, ...] | None:
        data = self._source.text(text[begin:end])
        string, rest = complete(data)
        if rest and len(rest) <= UNFINISHED and end == len(text):
            return None
        return self._goal.encode(data.decode(errors="replace") if rest else string)

    def _meeting(
        self, text: Sequence[TokenId], begin: int, end: int, found: Sequence[TokenId]
    ) -> tuple[int, int] | None:
        """Return the last place up to `end`, before a space, where tokens of both tokenizers begin.

        A place is the number of tokens of the text before it, and the number of those found.
        """
        goal_at, size = {}, 0
        for index, token in enumerate(found):
            goal_at[size] = index
            size += len(self._goal.bytes.get(token, b""))
        best, size = None, 0
        for index in range(begin, end):
            piece = self._source.bytes.get(text[index], b"")
            if size and size in goal_at and piece[:1].isspace():
                best = (index, goal_at[size])
            size += len(piece)
        return best
