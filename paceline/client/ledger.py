"""Sums over all generations of a client, for telemetry and metrics. Pure: time is passed in."""

from collections.abc import Iterable
from dataclasses import fields
from operator import attrgetter

from paceline.client.outcome import Statistics
from paceline.control.messages import EdgeCounters

_NS = 1_000_000_000


class Ledger:
    """Adds up generations that ended; those under way are handed in with every question."""

    def __init__(self) -> None:
        self._ended = EdgeCounters()
        self._num_running = 0
        self._busy_since_s = 0.0
        self._busy_s = 0.0

    @property
    def num_running(self) -> int:
        """Generations under way."""
        return self._num_running

    def began(self, *, now_s: float) -> None:
        """A generation began."""
        if self._num_running == 0:
            self._busy_since_s = now_s
        self._num_running += 1

    def ended(self, statistics: Statistics, *, failed: bool, now_s: float) -> None:
        """One that began has ended, and cost so much."""
        self._num_running -= 1
        if self._num_running == 0:
            self._busy_s += now_s - self._busy_since_s
        one = EdgeCounters(num_generations=1, num_failed=int(failed))
        self._ended = _sum(self._ended, one, _counters(statistics))

    def counters(self, running: Iterable[Statistics], *, now_s: float) -> EdgeCounters:
        """Return the sums; `running` are the statistics of the generations under way."""
        busy_s = self._busy_s + (now_s - self._busy_since_s if self._num_running else 0.0)
        busy = EdgeCounters(busy_ns=round(busy_s * _NS))
        return _sum(self._ended, busy, *map(_counters, running))


_NAMES = tuple(item.name for item in fields(EdgeCounters))
_FIGURES: "attrgetter[tuple[int, ...]]" = attrgetter(*_NAMES)


def _sum(*parts: EdgeCounters) -> EdgeCounters:
    sums = map(sum, zip(*map(_FIGURES, parts), strict=True))
    return EdgeCounters(**dict(zip(_NAMES, sums, strict=True)))


def _counters(statistics: Statistics) -> EdgeCounters:
    return EdgeCounters(
        committed=statistics.committed,
        drafted=statistics.drafted,
        judged=statistics.judged,
        accepted=statistics.accepted,
        late=statistics.late,
        stale=statistics.stale,
        steps=statistics.steps,
        proposals=statistics.proposals,
        payload_bytes_up=statistics.payload_bytes_up,
        payload_bytes_down=statistics.payload_bytes_down,
        drafting_ns=round(statistics.drafting_s * _NS),
        drafting_tokens=statistics.drafting_tokens,
        reconnects=statistics.reconnects,
    )
