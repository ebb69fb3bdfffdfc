"""How sure a model is of its guesses, from the scores of its candidates. Not calibrated: `paceline.control.node_scores` does that."""

from __future__ import annotations

from collections.abc import Sequence
from math import exp

from paceline.drafter import Guess
from paceline.tokens import TokenId


def chance_of(margin: float) -> float:
    """Return the chance of the better of two candidates; a margin is in logits, negative if a filter chose."""
    return 1.0 / (1.0 + exp(-max(-30.0, min(30.0, margin))))


def shares(tokens: Sequence[TokenId], scores: Sequence[float], *, width: int) -> tuple[Guess, ...]:
    """Return the first `width` candidates; a chance is a share of the weight of all that are given.

    Args:
        tokens: candidates, best first.
        scores: of each, in logits.
        width: at least 1.
    """
    peak = max(scores)
    weights = [exp(score - peak) for score in scores]
    total = sum(weights)
    return tuple(
        Guess(token=token, chance=weight / total)
        for token, weight in zip(tokens[:width], weights, strict=False)
    )
