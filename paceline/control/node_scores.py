"""How likely a drafted node is to be accepted, learned from nodes that were judged.

What a drafter says of itself (its confidence: any number from 0 to 1, the surer the larger) becomes a chance that holds:
of the nodes with chance 0.7 about 70 in 100 are accepted. Each rank has a line in log-odds that moves with every judged
node (Platt, 1999, by AdaGrad's steps), and a histogram around it for what is not a line. Old nodes count less and less, so
that it follows another subject or another user. Pure: the same nodes in the same order give the same chances.

Source of the measure: Naeini et al., "Obtaining Well Calibrated Probabilities Using Bayesian Binning" (2015).
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp, floor, log, sqrt

HALF_LIFE = 500.0
"""After so many judged nodes of its rank a node counts half in the histogram."""

TRUST = 24.0
"""The line counts as much as so many nodes near a confidence."""

RATE = 0.15
"""First step of the line, in log-odds; later ones are smaller."""

MOST_RANKS = 16
"""Ranks beyond are taken together with this one."""

_BIN = 0.75
"""Distance of the histogram's points in log-odds of the confidence; between them it is a straight line."""

_MOST_LOG_ODDS = 6.0


class NodeScores:
    """The chances of one drafter's nodes, by rank and confidence.

    Args:
        half_life: see HALF_LIFE; above 0.
    """

    def __init__(self, *, half_life: float = HALF_LIFE) -> None:
        self._keep = 0.5 ** (1.0 / half_life)
        self._ranks: dict[int, _RankScores] = {}
        self.num_judged = 0
        """How many nodes it has learned from."""

    def chance(self, confidence: float, *, rank: int = 1) -> float:
        """Return the chance from 0 to 1 that a node is accepted if all its ancestors are.

        Args:
            confidence: what the drafter says, from 0 to 1.
            rank: 1 for its best candidate, 2 for the next; siblings exclude each other.
        """
        return self._of(rank).chance(_log_odds(confidence))

    def observe(self, confidence: float, *, rank: int = 1, accepted: bool) -> None:
        """Learn from a node that was judged: its ancestors were accepted, and it was accepted or not."""
        self.num_judged += 1
        self._of(rank).observe(_log_odds(confidence), float(accepted), keep=self._keep)

    def _of(self, rank: int) -> _RankScores:
        rank = min(rank, MOST_RANKS)
        scores = self._ranks.get(rank)
        if scores is None:
            scores = self._ranks[rank] = _RankScores(rank)
        return scores


def calibration_error(nodes: Iterable[tuple[float, bool]], *, num_bins: int = 10) -> float:
    """Return the expected calibration error: the mean distance of chance and share of accepted nodes, in even bins.

    Args:
        nodes: of each its chance and whether it was accepted.
        num_bins: how many; with few nodes in each, chance alone makes an error.
    """
    surplus = [0.0] * num_bins
    total = 0
    for chance, accepted in nodes:
        surplus[min(num_bins - 1, int(chance * num_bins))] += chance - accepted
        total += 1
    return sum(map(abs, surplus)) / max(1, total)


class _RankScores:
    """A line, and a histogram whose counts fade. New nodes weigh more and more instead of old ones less and less."""

    def __init__(self, rank: int) -> None:
        # Before anything is known: the best candidate is as good as the drafter says, the others are seldom right.
        self._slope = 1.0 if rank == 1 else 0.0
        self._offset = 0.0 if rank == 1 else -2.0 - 0.3 * rank
        self._slope_squares = self._offset_squares = 1.0
        self._seen: dict[int, float] = {}
        self._accepted: dict[int, float] = {}
        self._weight = 1.0

    def chance(self, at: float) -> float:
        seen = accepted = 0.0
        for point, share in _points(at):
            seen += share * self._seen.get(point, 0.0)
            accepted += share * self._accepted.get(point, 0.0)
        trust = TRUST * self._weight
        return (accepted + trust * self._line(at)) / (seen + trust)

    def observe(self, at: float, accepted: float, *, keep: float) -> None:
        error = accepted - self._line(at)
        self._slope_squares += (error * at) ** 2
        self._offset_squares += error**2
        self._slope += RATE * error * at / sqrt(self._slope_squares)
        self._offset += RATE * error / sqrt(self._offset_squares)
        self._weight /= keep
        for point, share in _points(at):
            self._seen[point] = self._seen.get(point, 0.0) + share * self._weight
            self._accepted[point] = self._accepted.get(point, 0.0) + share * self._weight * accepted
        if self._weight > 1e100:
            self._rescale()

    def _line(self, at: float) -> float:
        return 1.0 / (1.0 + exp(-max(-30.0, min(30.0, self._slope * at + self._offset))))

    def _rescale(self) -> None:
        for counts in (self._seen, self._accepted):
            for point in counts:
                counts[point] /= self._weight
        self._weight = 1.0


def _log_odds(confidence: float) -> float:
    """Return the log-odds of a confidence, within bounds; NaN counts as no confidence."""
    if not confidence > 0.0:
        return -_MOST_LOG_ODDS
    if confidence >= 1.0:
        return _MOST_LOG_ODDS
    return max(-_MOST_LOG_ODDS, min(_MOST_LOG_ODDS, log(confidence / (1.0 - confidence))))


def _points(at: float) -> tuple[tuple[int, float], tuple[int, float]]:
    """Return the two points around a place, and how near each is."""
    place = at / _BIN
    below = floor(place)
    return (below, below + 1 - place), (below + 1, place - below)
