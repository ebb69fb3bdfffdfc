"""Recorded links: when packets could be sent, and how round trips went. Text in, values out; no files, no clock.

Delivery traces are in the format of Mahimahi (Netravali et al., USENIX ATC 2015): one line per opportunity to send one
packet of 1,500 bytes, in whole milliseconds since the start, never falling; the trace repeats at its end.

A series of round trips is a CSV with a header, as of pings that were summed up every so many seconds. What happened
between two summaries is not in it: simulator.weather makes it up, to fit the summary.
"""

import csv
import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from paceline.errors import ConfigError

OPPORTUNITY_BYTES = 1500
MAX_OPPORTUNITIES = 5_000_000
MAX_SUMMARIES = 1_000_000
MAX_RTT_S = 60.0

_TOLERANCE_MS = 1e-6
"""Seconds that were milliseconds once are off by less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeliveryTrace:
    """When packets could be sent; opportunity numbers go on through the repetitions."""

    times_ms: tuple[int, ...] = field(repr=False)
    """Of each opportunity, since the start, never falling; the last one is the length of the trace."""

    name: str = ""
    """Where it came from, for messages."""

    def __post_init__(self) -> None:
        """Check what later code relies on."""
        times = self.times_ms
        if not times or times[-1] <= 0:
            raise ConfigError(f"trace {self.name}: no opportunity after 0 ms, expected some")
        if times[0] < 0 or any(a > b for a, b in pairwise(times)):
            raise ConfigError(f"trace {self.name}: times fall, expected them in order from 0")

    @property
    def mean_bps(self) -> float:
        """Capacity over the whole trace, in bits per second."""
        return len(self.times_ms) * OPPORTUNITY_BYTES * 8 / (self.times_ms[-1] / 1e3)

    def time_s(self, number: int) -> float:
        """Return when an opportunity comes; `number` counts from 0 and through all repetitions."""
        cycle, index = divmod(number, len(self.times_ms))
        return (cycle * self.times_ms[-1] + self.times_ms[index]) / 1e3

    def first_from(self, time_s: float) -> int:
        """Return the number of the first opportunity at a time or after it."""
        cycle, rest_ms = divmod(time_s * 1e3 - _TOLERANCE_MS, self.times_ms[-1])
        return int(cycle) * len(self.times_ms) + bisect_left(self.times_ms, rest_ms)


@dataclass(frozen=True, slots=True, kw_only=True)
class RttSummary:
    """Round trips of one interval."""

    best_s: float
    mean_s: float
    stddev_s: float
    loss: float
    """Share of the packets that got no answer, 0 to 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RttSeries:
    """Summaries of round trips, one after the other; they repeat at the end."""

    summaries: tuple[RttSummary, ...] = field(repr=False)
    interval_s: float
    """How long each one lasts."""
    name: str = ""

    def __post_init__(self) -> None:
        """Check what later code relies on."""
        if not self.summaries or not 0.0 < self.interval_s <= 3600.0:
            raise ConfigError(
                f"series {self.name}: got {len(self.summaries)} summaries of {self.interval_s} s, "
                "expected at least one, of up to an hour"
            )

    def at(self, index: int) -> RttSummary:
        """Return the summary of an interval, counted from 0 and through all repetitions."""
        return self.summaries[index % len(self.summaries)]


def parse_delivery_trace(lines: Iterable[str], *, name: str) -> DeliveryTrace:
    """Return a delivery trace in Mahimahi's format.

    Raises:
        ConfigError: a line is no whole number of milliseconds, times fall, or there are too many.
    """
    times_ms: list[int] = []
    for number, line in enumerate(lines, start=1):
        text = line.strip()
        if not text:
            continue
        if not (text.isascii() and text.isdigit() and len(text) < 12):
            raise ConfigError(
                f"trace {name}: line {number}: got {text[:40]!r}, expected whole milliseconds"
            )
        if len(times_ms) >= MAX_OPPORTUNITIES:
            raise ConfigError(f"trace {name}: more than {MAX_OPPORTUNITIES} lines, expected fewer")
        times_ms.append(int(text))
    return DeliveryTrace(times_ms=tuple(times_ms), name=name)


def parse_rtt_series(lines: Iterable[str], *, interval_s: float, name: str) -> RttSeries:
    """Return a series from CSV with the columns ping_best, ping_avg, ping_stddev (ms) and packet_loss (%).

    Other columns are left out.

    Raises:
        ConfigError: a column is missing, a number is none or out of its range, or there are too many lines.
    """
    summaries: list[RttSummary] = []
    for number, row in enumerate(csv.DictReader(lines), start=2):
        best, mean, stddev, loss = (
            _number(row.get(column), where=f"series {name}: line {number}: {column}")
            for column in ("ping_best", "ping_avg", "ping_stddev", "packet_loss")
        )
        if not best <= mean <= MAX_RTT_S * 1e3 or loss > 100.0:
            raise ConfigError(
                f"series {name}: line {number}: got best {best}, average {mean} ms and loss {loss} %, "
                "expected best <= average <= 60,000 and loss <= 100"
            )
        if len(summaries) >= MAX_SUMMARIES:
            raise ConfigError(f"series {name}: more than {MAX_SUMMARIES} lines, expected fewer")
        summaries.append(
            RttSummary(
                best_s=best / 1e3, mean_s=mean / 1e3, stddev_s=stddev / 1e3, loss=loss / 100.0
            )
        )
    return RttSeries(summaries=tuple(summaries), interval_s=interval_s, name=name)


def _number(text: str | None, *, where: str) -> float:
    try:
        number = float(text or "")
    except ValueError:
        number = math.nan
    if not 0.0 <= number < math.inf:
        got = "nothing" if text is None else repr(text[:40])
        raise ConfigError(f"{where}: got {got}, expected a number, 0 or more")
    return number
