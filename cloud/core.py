"""A verifier without a way in: sessions, steps and the model thread, and the service that edges are to be connected to.

Whoever runs one puts a server before it: `cloud.server` its own, `cloud.replicas` that of Ray Serve.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING

from cloud.account import VerifierStatistics
from cloud.admission import SessionSettings
from cloud.overview import overview
from cloud.scheduler import SchedulerSettings
from cloud.service import VerificationService
from cloud.sessions import Registry
from cloud.stepper import ModelThread, StepModel, Stepper, Thread
from cloud.tenants import Doorkeeper, TenantSettings
from cloud.workload import Workload
from paceline.clock import Clock, MonotonicClock
from paceline.errors import DrainingError

if TYPE_CHECKING:
    from cloud.worker import WorkerSettings
    from paceline.engine.engine import Engine

log = logging.getLogger(__name__)


class Core:
    """What a verifier is whatever stands before it; made by `running_core`."""

    def __init__(
        self,
        *,
        registry: Registry,
        worker: StepModel,
        thread: Thread,
        service: VerificationService,
        clock: Clock,
    ) -> None:
        self.registry = registry
        self.worker = worker
        self.service = service
        self._thread = thread
        self._clock = clock

    @property
    def statistics(self) -> VerifierStatistics:
        """What it has done so far and holds now."""
        return overview(self.registry, self.worker, now_s=self._clock.now_s())

    async def answers(self) -> None:
        """Return when the model thread has done what it was at: it lives. Waits for one step at most."""
        await self._thread.run(lambda: None)

    async def drain(self, *, within_s: float, hurry: asyncio.Event) -> None:
        """Refuse new sessions, let running ones finish or move, and end the rest.

        Args:
            within_s: how long that may take.
            hurry: set to end at once.
        """
        self.registry.drain(self._clock.now_s() + within_s)
        log.info("draining", extra={"sessions": self.registry.num_streams, "within_s": within_s})
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._until_quiet(hurry)
        self.registry.end_all(
            DrainingError("stream: this verifier has shut down; open the session on another one")
        )

    async def _until_quiet(self, hurry: asyncio.Event) -> None:
        """Wait until no edge is connected, or somebody is in a hurry."""
        async with asyncio.TaskGroup() as group:
            waiting = [
                group.create_task(self.registry.no_streams.wait()),
                group.create_task(hurry.wait()),
            ]
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in waiting:
                task.cancel()


@asynccontextmanager
async def running_core(
    engine: Engine,
    *,
    sessions: SessionSettings,
    scheduler: SchedulerSettings,
    worker: WorkerSettings,
    tenants: TenantSettings,
    address: str = "",
) -> AsyncIterator[Core]:
    """Run steps until left; then end every session and free everything.

    Args:
        engine: with the target model.
        sessions: bounds of sessions.
        scheduler: how rows are given out.
        worker: how steps run.
        tenants: whom to let in.
        address: HOST:PORT where edges come back to a session; empty for the address they dialled.
    """
    from cloud.worker import Worker  # noqa: PLC0415 - PyTorch, which simulated verifiers do without

    clock = MonotonicClock()
    model = Worker(engine, settings=worker)
    registry = Registry(sessions, target=engine.identity, clock=clock)
    workload = Workload(
        registry,
        max_draft_rows=worker.max_draft_rows,
        clock=clock,
        race_drafts=scheduler.race_drafts,
    )
    thread = ModelThread()
    core = Core(
        registry=registry,
        worker=model,
        thread=thread,
        service=VerificationService(
            registry=registry, doorkeeper=Doorkeeper(tenants), clock=clock, address=address
        ),
        clock=clock,
    )
    stepper = Stepper(
        registry=registry,
        workload=workload,
        worker=model,
        thread=thread,
        settings=scheduler,
        clock=clock,
    )
    try:
        async with asyncio.TaskGroup() as group:
            stepping = group.create_task(stepper.run())
            try:
                yield core
            finally:
                registry.end_all(DrainingError("stream: this verifier has shut down"))
                stepping.cancel()
        registry.closing.clear()  # what is still to be freed goes with all the rest
        await thread.run(model.close)
    finally:
        thread.close()
