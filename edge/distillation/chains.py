"""How far chains of drafts get, counted over every place of an answer that has enough of the answer behind it.

A chain is right up to its first wrong token, so what a place in a chain is worth depends on how often the chain gets there:
with the acceptance probability alone, runs of easy and of hard tokens are averaged away. Pure.

Shape suffixes: T = tokens of a text; S = starts of chains; L = LENGTH.
"""

# ruff: noqa: N803, N806 - arrays carry shape suffixes
from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

LENGTH = 8
"""Places of a chain that are looked at."""
WIDTHS = (1, 2, 4)
"""Likeliest tokens that are drafted at every place: 1 is a chain, more are trees."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chains:
    """Sums over starts."""

    num_starts: int = 0
    reached: tuple[tuple[int, ...], ...] = ((0,) * LENGTH,) * len(WIDTHS)
    """By width: how often the target's token was among the drafted at all of the first 1, 2 ... LENGTH places."""
    coupled: tuple[float, ...] = (0.0,) * LENGTH
    """Expected chains that are right up to there at temperature 1 with the same noise on both sides."""

    def __add__(self, other: Chains) -> Chains:
        """Return both together."""
        pairs = zip(self.reached, other.reached, strict=True)
        return Chains(
            num_starts=self.num_starts + other.num_starts,
            reached=tuple(
                tuple(a + b for a, b in zip(mine, theirs, strict=True)) for mine, theirs in pairs
            ),
            coupled=tuple(a + b for a, b in zip(self.coupled, other.coupled, strict=True)),
        )

    def shares(self, width: int = 1) -> tuple[float, ...]:
        """Return the share of chains, or trees of a width, that get past the first 1, 2 ... LENGTH places."""
        counts = self.reached[WIDTHS.index(width)]
        return tuple(count / max(1, self.num_starts) for count in counts)

    def coupled_shares(self) -> tuple[float, ...]:
        """Return the same for chains at temperature 1."""
        return tuple(count / max(1, self.num_starts) for count in self.coupled)

    def tokens_per_round(self, length: int, *, width: int = 1) -> float:
        """Return expected tokens of a round, the target's own one included."""
        return 1 + sum(self.shares(width)[:length])

    def coupled_tokens_per_round(self, length: int) -> float:
        """Return the same for chains at temperature 1."""
        return 1 + sum(self.coupled_shares()[:length])


def by_position(shares: tuple[float, ...]) -> list[float | None]:
    """Return the acceptance at each place of a chain that got there; None: none did."""
    before = (1.0, *shares[:-1])
    return [here / last if last > 0 else None for here, last in zip(shares, before, strict=True)]


def count_chains(
    ranks_T: NDArray[Any], matches_T: NDArray[Any], is_answer_T: NDArray[np.bool_]
) -> Chains:
    """Count the chains of one text.

    Args:
        ranks_T: at which rank the student has the target's token, 0 is first.
        matches_T: probability that both draw the same token at temperature 1. That places are independent of each other
            given the text is an approximation: the target may have gone on in another way.
        is_answer_T: where the target answers; a chain leaves no answer.
    """
    if len(ranks_T) < LENGTH:
        return Chains()
    whole = sliding_window_view(is_answer_T, LENGTH).all(axis=1)
    ranks_SL = sliding_window_view(ranks_T, LENGTH)[whole]
    matches_SL = sliding_window_view(matches_T, LENGTH)[whole]
    reached = []
    for width in WIDTHS:
        is_right = np.logical_and.accumulate(ranks_SL < width, axis=1)
        reached.append(tuple(int(count) for count in is_right.sum(axis=0)))
    coupled = np.cumprod(matches_SL.astype(np.float64), axis=1).sum(axis=0)
    return Chains(
        num_starts=len(ranks_SL), reached=tuple(reached), coupled=tuple(map(float, coupled))
    )
