"""A simulated verifier: the registry, stepper and service of a real one on a simulated model.

It lives several times: it can be killed, which ends everything it holds at once, and started again at its address.
"""

import asyncio
from dataclasses import dataclass

import grpc
from numpy.random import Generator

from cloud.admission import SessionSettings
from cloud.announcing import telling
from cloud.core import Core
from cloud.scheduler import SchedulerSettings
from cloud.service import VerificationService
from cloud.sessions import Registry
from cloud.status import Teller
from cloud.stepper import StepModel, Stepper
from cloud.tenants import Doorkeeper, TenantSettings
from cloud.workload import Workload
from paceline.settings import Address
from simulator.virtual.call import Call, VirtualContext
from simulator.virtual.channel import Path
from simulator.virtual.events import Tell
from simulator.virtual.machine import MachineClock, Occupation, VirtualThread
from simulator.virtual.model import ModelSettings
from simulator.virtual.mqtt.station import Station
from simulator.virtual.parts import AnyTarget, make_model


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSettings:
    """A verifier and its machine."""

    model: ModelSettings = ModelSettings()  # noqa: RUF009 - frozen
    sessions: SessionSettings = SessionSettings()  # noqa: RUF009 - frozen
    scheduler: SchedulerSettings = SchedulerSettings()  # noqa: RUF009 - frozen
    max_draft_rows: int = 63
    """Most draft rows of one session in a step."""


@dataclass(slots=True, kw_only=True)
class _Life:
    """One incarnation."""

    core: Core
    model: StepModel
    stepper: Stepper
    group: asyncio.TaskGroup
    telling: asyncio.Task[None] | None = None
    """Tells the fleet of it, if there is a control plane."""


class SimulatedVerifier:
    """See the module.

    Args:
        name: for the log.
        address: where it listens.
        target: what it serves.
        settings: the program and its machine.
        generator: draws session ids.
        tell: told what happens, if anybody wants to know.
    """

    def __init__(
        self,
        *,
        name: str,
        address: Address,
        target: AnyTarget,
        settings: VerifierSettings,
        generator: Generator,
        tell: Tell | None,
    ) -> None:
        self.name = name
        self.address = address
        self.clock = MachineClock(origin_s=float(generator.integers(1, 10_000_000)))
        self.occupation = Occupation()
        self.paths: list[Path] = []
        """From the edges."""
        self.bugs: list[Exception] = []
        """What the service raised and should not have."""
        self.is_listening = False
        self.num_lives = 0
        self.station: Station | None = None
        """Its part in the control plane, if there is one."""
        self._target = target
        self._settings = settings
        self._generator = generator
        self._tell = tell
        self._life: _Life | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def core(self) -> Core | None:
        """The program; None while it does not run."""
        return self._life.core if self._life else None

    # --- what may happen to it

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the program, unless it runs."""
        if self._task is None:
            self._task = group.create_task(self._live())

    def kill(self) -> None:
        """End the program like SIGKILL: it comes to do nothing any more."""
        if self._task is None:
            return
        self._note("killed")
        self._die()

    async def drain(self, *, within_s: float) -> None:
        """Let the program end in peace, as it does at SIGTERM."""
        life = self._life
        if life is None:
            return
        self._note("drains", within_s=within_s)
        await life.core.drain(within_s=within_s, hurry=asyncio.Event())
        if self._life is life:
            # Goodbyes are under way now; they take a round of the loop to be sent.
            await asyncio.sleep(0.001)
        await self.hush()
        if self._life is life:
            self._note("ended")
            self._die()

    async def hush(self) -> None:
        """Tell the fleet that it ends, and nothing more."""
        telling = self._life.telling if self._life else None
        if telling is not None:
            telling.cancel()
            await asyncio.wait({telling})

    def is_idle(self) -> bool:
        """Return whether it holds nothing at all.

        Raises:
            AssertionError: something has leaked.
        """
        if self._life is None:
            return True
        registry, model = self._life.core.registry, self._life.model
        registry.check_integrity(model.keys)
        return registry.is_empty and not model.keys

    # --- Server

    def serve(self, call: Call, method: str) -> None:
        """See `Server`."""
        assert self._life is not None
        call.handler = self._life.group.create_task(self._handle(call, method, self._life))

    async def _handle(self, call: Call, method: str, life: _Life) -> None:
        service, context = life.core.service, VirtualContext(call)
        try:
            if method == "Describe":
                await context.write(await service.Describe(None, context))
            else:
                await service.Verify(None, context)
        except grpc.aio.AbortError:
            pass  # the status is under way
        except Exception as error:  # noqa: BLE001 - gRPC catches as much, and the world reports it
            self.bugs.append(error)
            call.finished(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
        else:
            call.finished(grpc.StatusCode.OK, "")

    async def _live(self) -> None:
        self.num_lives += 1
        life = None
        try:
            async with asyncio.TaskGroup() as group:
                life = self._life = self._made(group)
                group.create_task(life.stepper.run())
                if self.station is not None:
                    life.telling = group.create_task(self._told(life.core, self.station))
                self.is_listening = True
                self._note("started", life=self.num_lives)
        finally:
            if self._life is life:  # it broke
                self._life, self.is_listening = None, False

    async def _told(self, core: Core, station: Station) -> None:
        """Tell the fleet how it is."""
        transport = station.begin()
        teller = Teller(
            incarnation=station.incarnation,
            address=self.address,
            target=self._target.identity,
            row_budget=self._settings.scheduler.row_budget,
            version="simulated",
        )
        async with telling(
            core,
            teller,
            broker=station.broker,
            verifier_id=self.name,
            generator=station.chance,
            transport=transport,
        ):
            await asyncio.Event().wait()

    def _made(self, group: asyncio.TaskGroup) -> _Life:
        settings, clock = self._settings, self.clock
        model = make_model(
            self._target,
            settings=settings.model,
            max_draft_rows=settings.max_draft_rows,
            occupation=self.occupation,
            seed=int(self._generator.integers(2**32)),
            tell=self._tell,
        )
        thread = VirtualThread(self.occupation)
        registry = Registry(
            settings.sessions,
            target=self._target.identity,
            clock=clock,
            random_bytes=self._generator.bytes,
        )
        workload = Workload(
            registry,
            max_draft_rows=settings.max_draft_rows,
            clock=clock,
            race_drafts=settings.scheduler.race_drafts,
        )
        service = VerificationService(
            registry=registry, doorkeeper=Doorkeeper(TenantSettings()), clock=clock
        )
        core = Core(registry=registry, worker=model, thread=thread, service=service, clock=clock)
        stepper = Stepper(
            registry=registry,
            workload=workload,
            worker=model,
            thread=thread,
            settings=settings.scheduler,
            clock=clock,
        )
        return _Life(core=core, model=model, stepper=stepper, group=group)

    def _die(self) -> None:
        task, self._task, self._life = self._task, None, None
        self.is_listening = False
        for path in self.paths:
            path.verifier_died()
        if self.station is not None:
            self.station.die()
        if task is not None:
            task.cancel()

    def _note(self, kind: str, **fields: float) -> None:
        if self._tell is not None:
            self._tell(kind, **fields)
