"""What a message meets after it was sent, over time: delay, jitter and loss, from settings or from a recorded series."""

import math
from dataclasses import dataclass
from typing import Protocol

from numpy.random import default_rng

from simulator.traces import RttSeries, RttSummary
from simulator.weather import Bursts, Noise, split_jitter, tail_power

EXPONENTIAL_SQUARES = 2

SERIES_CORRELATION_S = 0.05
"""Of the jitter inside a summary, which does not tell: the worst of 250 pings 0.1 s apart is as far out as if they were independent."""

MAX_SUMMARIES_KEPT = 4


class Conditions(Protocol):
    """Of one direction; functions of the time only."""

    @property
    def single_loss(self) -> float:
        """Share of the segments that are lost outside of bursts, each for itself."""
        ...

    @property
    def has_bursts(self) -> bool:
        """There may be times in which everything is lost."""
        ...

    def travel_s(self, sent_s: float) -> float:
        """Return propagation and jitter of what is sent at a time."""
        ...

    def loses_all(self, sent_s: float) -> bool:
        """Return whether everything is lost that is sent at a time."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Steady:
    """Conditions whose distributions stay the same."""

    delay_s: float
    jitter_s: float
    jitter: Noise | None
    single_loss: float
    bursts: Bursts | None

    @property
    def has_bursts(self) -> bool:
        """There are bursts of loss."""
        return self.bursts is not None

    def travel_s(self, sent_s: float) -> float:
        """Return the delay and the jitter at that time."""
        if self.jitter is None:
            return self.delay_s
        return self.delay_s + self.jitter_s * self.jitter.at(sent_s)

    def loses_all(self, sent_s: float) -> bool:
        """Return whether a burst covers the time."""
        return self.bursts is not None and self.bursts.covers(sent_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Inside:
    """What is made up for one way inside a summary."""

    delay_s: float
    jitter_s: float
    """What the unit noise is multiplied with, after the power."""
    power: float
    outage_begins_s: float
    outage_ends_s: float


class Recorded:
    """Conditions that follow a series of summaries of round trips.

    Made up inside of a summary: the shortest round trip is travelled half each way; what the mean has above it is
    jitter, split over the two ways so that mean and standard deviation of the sum are those of the summary, the larger
    part on the way up, with a heavier tail there if the deviation is above the mean; and the share of lost packets is
    one outage of both ways, at a random place.
    """

    single_loss = 0.0
    has_bursts = True

    def __init__(self, series: RttSeries, *, seed: tuple[int, ...], is_down: bool) -> None:
        """Prepare the conditions of one way.

        Args:
            series: the summaries.
            seed: names the jitter of this way and, without its last number, the outages of both.
            is_down: it is the way from the server to the clients.
        """
        self._series = series
        self._outage_seed = seed[:-1]
        self._is_down = is_down
        self._jitter = Noise(
            num_squares=EXPONENTIAL_SQUARES, correlation_s=SERIES_CORRELATION_S, seed=seed
        )
        self._insides: dict[int, _Inside] = {}

    def travel_s(self, sent_s: float) -> float:
        """Return half the best round trip and this way's jitter at that time."""
        inside = self._inside(sent_s)
        return inside.delay_s + inside.jitter_s * math.pow(self._jitter.at(sent_s), inside.power)

    def loses_all(self, sent_s: float) -> bool:
        """Return whether the summary's outage covers the time."""
        inside = self._inside(sent_s)
        return inside.outage_begins_s <= sent_s < inside.outage_ends_s

    def _inside(self, sent_s: float) -> _Inside:
        index = max(0, int(sent_s // self._series.interval_s))
        if index not in self._insides:
            while len(self._insides) >= MAX_SUMMARIES_KEPT:
                del self._insides[next(iter(self._insides))]
            self._insides[index] = self._make_up(index, self._series.at(index))
        return self._insides[index]

    def _make_up(self, index: int, summary: RttSummary) -> _Inside:
        excess_s = summary.mean_s - summary.best_s
        jitter_s = split_jitter(excess_s, summary.stddev_s)[self._is_down]
        power = 1.0
        if summary.stddev_s > excess_s > 0.0:  # all of it is on the way up
            power = tail_power(summary.stddev_s / excess_s)
        lasts_s = summary.loss * self._series.interval_s
        free_s = self._series.interval_s - lasts_s
        begins_s = default_rng((*self._outage_seed, index)).random() * free_s
        begins_s += index * self._series.interval_s
        return _Inside(
            delay_s=summary.best_s / 2.0,
            jitter_s=jitter_s / math.gamma(1.0 + power),
            power=power,
            outage_begins_s=begins_s,
            outage_ends_s=begins_s + lasts_s,
        )
