"""The heart of the verifier: while any session has work, plan a step, run it on the model thread, hand out the result.

The event loop only plans and hands out; it never touches a tensor. One step is under way at a time, and what arrives
meanwhile is in the next one: sessions are packed by themselves, nobody waits for a batch to fill.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, Protocol, TypeVar

from cloud.orders import (
    CacheView,
    OpenOrder,
    PrefixCounts,
    StepOrder,
    StepResult,
    StepTimes,
)
from cloud.scheduler import Plan, SchedulerSettings, plan_step
from cloud.sessions import Registry
from cloud.walk import NO_DRAFTS, Tree
from cloud.workload import Workload
from paceline.clock import Clock
from paceline.engine.rows import MemoryStats, StepSplit
from paceline.errors import PacelineError

P = ParamSpec("P")
T = TypeVar("T")


class StepModel(Protocol):
    """What holds the caches and makes the steps: `cloud.worker.Worker`, or a simulated one. Methods run on the thread."""

    @property
    def keys(self) -> frozenset[int]:
        """Sessions that hold a cache."""
        ...

    @property
    def times(self) -> StepTimes:
        """Where the time went since the start."""
        ...

    @property
    def memory(self) -> MemoryStats:
        """Memory of all caches."""
        ...

    @property
    def prefix(self) -> PrefixCounts:
        """What sharing prefixes saved since the start."""
        ...

    @property
    def engine_split(self) -> StepSplit:
        """Where the time of forward passes went since the start."""
        ...

    def arrange(
        self, closes: Sequence[int], opens: Sequence[OpenOrder]
    ) -> dict[int, PacelineError | None]:
        """Free caches, then make new ones; return for each order None or why it was refused."""
        ...

    def views(self) -> dict[int, CacheView]:
        """Return the state of every cache."""
        ...

    def step(self, orders: Sequence[StepOrder], take_over: Sequence[int] = ()) -> StepResult:
        """Verify all orders' rows and draw what follows them."""
        ...

    def prepare_noise(self) -> bool:
        """Do a bounded part of what later steps need; return whether there was any."""
        ...


class Thread(Protocol):
    """Where a `StepModel` runs."""

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns there; calls run one after the other, in the order asked for."""
        ...


class ModelThread:
    """One thread of its own for everything that touches the model, in the order asked for."""

    def __init__(self) -> None:
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="paceline-model")

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns on the thread. A cancelled caller leaves it running to its end."""
        future = self._executor.submit(function, *args, **kwargs)
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait until the thread has ended what it is doing, and end it. Bounded by one step."""
        self._executor.shutdown(wait=True, cancel_futures=True)


class Stepper:
    """Runs steps for as long as `run` runs."""

    def __init__(
        self,
        *,
        registry: Registry,
        workload: Workload,
        worker: StepModel,
        thread: Thread,
        settings: SchedulerSettings,
        clock: Clock,
    ) -> None:
        self._registry = registry
        self._workload = workload
        self._worker = worker
        self._thread = thread
        self._settings = settings
        self._clock = clock

    async def run(self) -> None:
        """Serve all sessions; ends only by being cancelled, and leaves the caches to the caller."""
        while True:
            # Cleared before looking: what comes while we look, or during a step, sets it again.
            self._registry.work.clear()
            self._registry.expire()
            await self._arrange()
            views, trees = self._workload.scheduler_views(row_budget=self._settings.row_budget)
            plan = plan_step(
                views, self._settings, now_s=self._clock.now_s(), costs=self._workload.costs
            )
            if plan.rows or plan.take_over:
                await self._step(plan, trees)
            else:
                await self._rest(plan.wake_at_s)

    async def _arrange(self) -> None:
        """Free and make caches."""
        closes, opens = self._workload.take_cache_orders()
        if closes or opens:
            answers = await self._thread.run(self._worker.arrange, closes, opens)
            for key, error in answers.items():
                self._workload.cache_opened(key, error)
            self._workload.cache_views(await self._thread.run(self._worker.views))

    async def _step(self, plan: Plan, trees: dict[int, Tree]) -> None:
        orders = [
            StepOrder(
                key=rows.key,
                num_prefill=rows.num_prefill,
                drafts=_first(trees[rows.key], rows.num_drafts),
            )
            for rows in plan.rows
        ]
        started_s = self._clock.now_s()
        result, views = await self._thread.run(self._step_and_look, orders, plan.take_over)
        self._workload.cache_views(views)
        self._workload.stepped(result, plan, started_s=started_s)

    def _step_and_look(
        self, orders: list[StepOrder], take_over: tuple[int, ...]
    ) -> tuple[StepResult, dict[int, CacheView]]:
        """Run on the model thread: one hand-over instead of two."""
        return self._worker.step(orders, take_over), self._worker.views()

    async def _rest(self, wake_at_s: float | None) -> None:
        """Prepare noise until there is work, while a session draws; then wait for it, or for the next deadline."""
        deadlines = [wake_at_s, self._registry.next_deadline_s]
        until_s = min((at_s for at_s in deadlines if at_s is not None), default=None)
        while self._workload.needs_noise and not self._registry.work.is_set():
            if until_s is not None and self._clock.now_s() >= until_s:
                return
            if not await self._thread.run(self._worker.prepare_noise):
                break
        if until_s is None:
            await self._registry.work.wait()
            return
        timeout_s = max(0.0, until_s - self._clock.now_s())
        try:
            async with asyncio.timeout(timeout_s):
                await self._registry.work.wait()
        except TimeoutError:
            pass  # a deadline: the next round looks at it


def _first(tree: Tree, count: int) -> Tree:
    """Return the first nodes of a tree; parents come before children, so that is a tree again."""
    if count == 0:
        return NO_DRAFTS
    return Tree(tokens=tree.tokens[:count], parents=tree.parents[:count])
