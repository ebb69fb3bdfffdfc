"""The verifier's own worker on a real model, in virtual time: it computes at once, and its steps last as long as they cost."""

from collections.abc import Sequence
from dataclasses import replace

from cloud.orders import CacheView, OpenOrder, PrefixCounts, StepOrder, StepResult, StepTimes
from cloud.worker import Worker, WorkerSettings
from paceline.engine.rows import MemoryStats, StepSplit
from paceline.errors import PacelineError
from simulator.virtual.computing import one_thread
from simulator.virtual.metering import Fill, StepMeter
from simulator.virtual.real_target import RealTarget


class RealModel:
    """A `cloud.stepper.StepModel`. All it tells of time is virtual; it shares no cache with any other.

    Args:
        target: the model.
        meter: is charged for every step.
        max_context_tokens: of all sessions together.
        max_draft_rows: of one session in a step.
    """

    def __init__(
        self,
        target: RealTarget,
        *,
        meter: StepMeter,
        max_context_tokens: int,
        max_draft_rows: int,
    ) -> None:
        self._worker = Worker(
            target.engine(most_tokens=max_context_tokens),
            settings=WorkerSettings(max_draft_rows=max_draft_rows),
        )
        self._meter = meter
        self._lengths: dict[int, int] = {}

    @property
    def keys(self) -> frozenset[int]:
        """See `StepModel`."""
        return self._worker.keys

    @property
    def times(self) -> StepTimes:
        """See `StepModel`."""
        return self._meter.times

    @property
    def memory(self) -> MemoryStats:
        """See `StepModel`."""
        return self._worker.memory

    @property
    def prefix(self) -> PrefixCounts:
        """See `StepModel`."""
        return self._worker.prefix

    @property
    def engine_split(self) -> StepSplit:
        """See `StepModel`: virtual time is not divided further."""
        return StepSplit()

    def arrange(
        self, closes: Sequence[int], opens: Sequence[OpenOrder]
    ) -> dict[int, PacelineError | None]:
        """See `StepModel`."""
        with one_thread():
            answers = self._worker.arrange(closes, opens)
        for key in closes:
            self._lengths.pop(key, None)
        self._lengths |= {order.key: len(order.text) for order in opens if not answers[order.key]}
        return answers

    def views(self) -> dict[int, CacheView]:
        """See `StepModel`."""
        return self._worker.views()

    def step(self, orders: Sequence[StepOrder], take_over: Sequence[int] = ()) -> StepResult:
        """See `StepModel`."""
        views = self._worker.views()
        fills = {
            key: Fill(length=length, num_to_prefill=views[key].num_to_prefill)
            for key, length in self._lengths.items()
        }
        step_ns, num_rows = self._meter.charge(orders, fills)
        with one_thread():
            result = self._worker.step(orders, take_over)
        for key, served in result.served.items():
            self._lengths[key] += len(served.tokens)
        return replace(result, step_ns=step_ns, num_rows=num_rows)

    def prepare_noise(self) -> bool:
        """See `StepModel`: noise costs nothing here, so there is no use in having it early."""
        return False
