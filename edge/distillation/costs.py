"""What a drafted token costs against a step of the target: both as the product runs them, on this machine."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from paceline.clock import MonotonicClock
from paceline.engine.engine import Engine
from paceline.engine.rows import RowGroup
from paceline.tokens import TokenId

CONTEXT = 256
"""Tokens before the measured ones."""
WARM_UP, RUNS = 3, 24


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Medians of single-row steps in seconds."""

    draft_s: float
    target_s: float

    @property
    def share(self) -> float:
        """Time of a drafted token in steps of the target."""
        return self.draft_s / self.target_s


def measure_costs(draft: Engine, target: Engine) -> Costs:
    """Time both in turns, so that a busy machine slows both."""
    times: dict[int, list[float]] = {0: [], 1: []}
    engines = (draft, target)
    sequences = [
        engine.open(max_length=CONTEXT + WARM_UP + RUNS + 1, max_pending=0) for engine in engines
    ]
    try:
        for engine, sequence in zip(engines, sequences, strict=True):
            tokens = [TokenId(5 + i % 200) for i in range(CONTEXT)]
            engine.forward([RowGroup(sequence=sequence, tokens=tokens, logits="none", commit=True)])
        for run in range(WARM_UP + RUNS):
            for index, (engine, sequence) in enumerate(zip(engines, sequences, strict=True)):
                took_s = _step_s(
                    engine, RowGroup(sequence=sequence, tokens=[TokenId(9)], commit=True)
                )
                if run >= WARM_UP:
                    times[index].append(took_s)
    finally:
        for engine, sequence in zip(engines, sequences, strict=True):
            engine.rollback(sequence, 0)
            engine.close(sequence)
    return Costs(draft_s=statistics.median(times[0]), target_s=statistics.median(times[1]))


def _step_s(engine: Engine, group: RowGroup) -> float:
    """Seconds until the likeliest token is known, which on CUDA waits for the device."""
    clock = MonotonicClock()
    started_s = clock.now_s()
    engine.forward([group]).of(0)[0].argmax().item()
    return clock.now_s() - started_s
