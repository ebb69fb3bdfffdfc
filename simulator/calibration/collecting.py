"""Times steps and gathers them by kind.

A shared machine is not a slower one: now and then somebody else has the processor, and a step takes twice as long. What
the processor worked for us during a step tells, so steps in which we had clearly less of it than in the best of their
kind are left out, and counted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import astuple, dataclass
from typing import TypeVar

from paceline.clock import MonotonicClock
from simulator.calibration.fit import Sample
from simulator.cost import Work

QUIET = 0.93
"""Least part of the best processor share of its kind at which a step counts."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Timed:
    """One step."""

    work: Work
    seconds: float
    processor_s: float
    """Time of the processor in all our threads."""

    @property
    def share(self) -> float:
        """Processor time for each second."""
        return self.processor_s / max(self.seconds, 1e-9)


class Collection:
    """Times of steps by kind."""

    def __init__(self) -> None:
        self._kinds: dict[Hashable, list[Timed]] = {}
        self._clock = MonotonicClock()

    def time(self, kind: Hashable, work: Work, run: Callable[[], _T]) -> _T:
        """Run a step, note how long it took, return what it returned."""
        used_s, started_s = time.process_time(), self._clock.now_s()
        result = run()
        seconds, used_s = self._clock.now_s() - started_s, time.process_time() - used_s
        self.add(kind, Timed(work=work, seconds=seconds, processor_s=used_s))
        return result

    def add(self, kind: Hashable, timed: Timed) -> None:
        """Take a step that was timed elsewhere."""
        self._kinds.setdefault(kind, []).append(timed)

    @property
    def left_out(self) -> float:
        """Part of the steps that were disturbed and do not count."""
        total = sum(map(len, self._kinds.values()))
        quiet = sum(len(_quiet(steps)) for steps in self._kinds.values())
        return 1 - quiet / max(1, total)

    def samples(self) -> tuple[Sample, ...]:
        """Return every kind with its undisturbed times; its work is the middle one, since a text grows."""
        return tuple(
            Sample(
                work=sorted((step.work for step in steps), key=astuple)[len(steps) // 2],
                times_s=tuple(step.seconds for step in _quiet(steps)),
            )
            for steps in self._kinds.values()
        )


def _quiet(steps: list[Timed]) -> list[Timed]:
    best = max(step.share for step in steps)
    return [step for step in steps if step.share >= QUIET * best]
