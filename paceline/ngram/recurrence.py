"""A text that grows, and what followed its end before: guesses as far ahead as somebody asks, a few microseconds each."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from paceline.drafter import Guess
from paceline.ngram.history import LONGEST, History
from paceline.tokens import TokenId

AFTER_ONE = 0.2
"""Chance of what followed the last token alone, before calibration: where no pair is known, which is mostly."""

Rule = Callable[[Iterable[tuple[int, TokenId]]], Guess | None]


class Recurrence:
    """The index of one text.

    Unlike a draft it is told every token once, so it never looks at the text as a whole again.

    Args:
        rule: makes a guess of the places that are like the end; one of `paceline.ngram.rules`.
        most_tokens: how many of the text are remembered; the oldest are forgotten first.
    """

    def __init__(self, rule: Rule, *, most_tokens: int) -> None:
        self._rule = rule
        self._history = History(most_tokens)
        self._after: dict[TokenId, TokenId] = {}
        """What followed a token the last time; not more than there are different tokens."""
        self._end: list[TokenId] = []

    def append(self, token: TokenId) -> None:
        """Take the next token of the text."""
        if self._end:
            self._after[self._end[-1]] = token
        self._history.append(token)
        self._end.append(token)
        del self._end[:-LONGEST]

    def ahead(self) -> Iterator[Guess]:
        """Yield guesses after the text, each after all before it; ends where nothing like it was seen.

        Nothing is learned from guesses. The text must not grow before the last one is taken.
        """
        end = list(self._end)
        while end:
            best = self._rule(self._history.matches(end))
            if best is None:
                token = self._after.get(end[-1])
                if token is None:
                    return
                best = Guess(token=token, chance=AFTER_ONE)
            yield best
            end.append(best.token)
            del end[:-LONGEST]
