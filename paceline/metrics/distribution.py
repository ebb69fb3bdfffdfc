"""Counts of values by size: what a Prometheus histogram tells, as plain numbers that a program keeps anyway."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """A distribution at one moment."""

    bounds: tuple[float, ...]
    """Upper ends of the buckets, each included; one more bucket above them has no end."""
    counts: tuple[int, ...]
    """Values per bucket; one more than `bounds`."""
    total: float
    """Sum of all values."""

    @property
    def num_values(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def cumulative(self) -> list[tuple[float, int]]:
        """Return for every bound how many values are at or below it; the last bound is infinite."""
        found, below = [], 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            below += count
            found.append((bound, below))
        return found


class Distribution:
    """Counts values. Costs one binary search per value and a fixed amount of memory."""

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count a value; below 0 it counts as 0: a clock's rounding must not make a sum go back."""
        value = max(0.0, value)
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    @property
    def spread(self) -> Spread:
        """What was counted so far."""
        return Spread(bounds=self._bounds, counts=tuple(self._counts), total=self._total)
