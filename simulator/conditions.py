"""What a message meets after it was sent, over time: delay, jitter and loss, from settings or from a recorded series."""

from dataclasses import dataclass
from typing import Protocol

from numpy.random import default_rng

from simulator.traces import RttSeries, RttSummary
from simulator.weather import Bursts, Noise, split_jitter

EXPONENTIAL_SQUARES = 2

SERIES_CORRELATION_S = 0.05
"""Of the jitter inside a summary, which does not tell: the worst of 250 pings 0.1 s apart is as far out as if they were independent."""

MAX_OUTAGES_KEPT = 4


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


class Recorded:
    """Conditions that follow a series of summaries of round trips.

    Made up inside of a summary: the shortest round trip is travelled half each way; what the mean has above it is
    jitter, split over the two ways so that mean and standard deviation of the sum are those of the summary, the larger
    part on the way up; and the share of lost packets is one outage of both ways, at a random place.
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
        self._outages_s: dict[int, tuple[float, float]] = {}

    def travel_s(self, sent_s: float) -> float:
        """Return half the best round trip and this way's jitter at that time."""
        summary = self._series.at(self._index(sent_s))
        split_s = split_jitter(summary.mean_s - summary.best_s, summary.stddev_s)
        return summary.best_s / 2.0 + split_s[self._is_down] * self._jitter.at(sent_s)

    def loses_all(self, sent_s: float) -> bool:
        """Return whether the summary's outage covers the time."""
        begins_s, ends_s = self._outage(self._index(sent_s))
        return begins_s <= sent_s < ends_s

    def _index(self, sent_s: float) -> int:
        return max(0, int(sent_s // self._series.interval_s))

    def _outage(self, index: int) -> tuple[float, float]:
        if index not in self._outages_s:
            while len(self._outages_s) >= MAX_OUTAGES_KEPT:
                del self._outages_s[next(iter(self._outages_s))]
            self._outages_s[index] = self._place(index, self._series.at(index))
        return self._outages_s[index]

    def _place(self, index: int, summary: RttSummary) -> tuple[float, float]:
        lasts_s = summary.loss * self._series.interval_s
        free_s = self._series.interval_s - lasts_s
        begins_s = default_rng((*self._outage_seed, index)).random() * free_s
        begins_s += index * self._series.interval_s
        return begins_s, begins_s + lasts_s
