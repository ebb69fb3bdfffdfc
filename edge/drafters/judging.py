"""What became of guesses that were made at several places of a tree."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.control.node_scores import NodeScores
from paceline.drafter import Guess
from paceline.tokens import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Guesses that are not judged yet, with the draft's own confidence."""

    length: int
    """Of the text that was committed when they were made."""
    path: tuple[TokenId, ...]
    guesses: tuple[Guess, ...]
    kinds: tuple[int, ...] = ()
    """Of each guess, whose chances it has; (): the first of all."""


class Judge:
    """Learns from guesses once the text has gone on where they were made.

    Args:
        scores: learn here, those of each kind of guess.
    """

    def __init__(self, *scores: NodeScores) -> None:
        self._scores = scores
        self._made: dict[int, list[Made]] = {}
        """By the position that they are guesses for."""

    def note(self, made: Made) -> None:
        """Remember guesses."""
        self._made.setdefault(made.length + len(made.path), []).append(made)

    def calibrated(self, made: Made) -> tuple[Guess, ...]:
        """Return guesses with the chance that those of their kind and rank have had."""
        return tuple(
            Guess(token=guess.token, chance=self._of(made, rank).chance(guess.chance, rank=rank))
            for rank, guess in enumerate(made.guesses, start=1)
        )

    def judge(self, text: Sequence[TokenId]) -> None:
        """Learn from all that a committed text decides."""
        for position in [at for at in self._made if at < len(text)]:
            for made in self._made.pop(position):
                if tuple(text[made.length : position]) == made.path:
                    for rank, guess in enumerate(made.guesses, start=1):
                        right = guess.token == text[position]
                        scores = self._of(made, rank)
                        scores.observe(guess.chance, rank=rank, accepted=right)

    def _of(self, made: Made, rank: int) -> NodeScores:
        return self._scores[made.kinds[rank - 1] if made.kinds else 0]
