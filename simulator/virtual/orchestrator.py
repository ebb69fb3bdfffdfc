"""A simulated orchestrator: the service of a real one, with its planner and its history, over the simulated broker.

It lives several times. What it keeps on disk, an operator's orders among it, outlasts it; what it knows does not.
"""

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass

from orchestrator.board import Board
from orchestrator.history import History
from orchestrator.history_file import HistoryBounds, HistoryFile
from orchestrator.links import fleet_links, say_present
from orchestrator.service import Service, running_service
from paceline.beside import running_beside
from simulator.link import LinkSettings
from simulator.network import NetworkSettings
from simulator.virtual.events import Tell
from simulator.virtual.machine import MachineClock, Occupation, VirtualThread
from simulator.virtual.mqtt.station import Station

NEAR = NetworkSettings(
    up=LinkSettings(delay_s=0.0005), down=LinkSettings(delay_s=0.0005), name="near"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorSettings:
    """An orchestrator, and how everybody takes part in its control plane."""

    network: NetworkSettings = NEAR
    """From the orchestrator to the broker, and from each verifier."""
    edge_network: NetworkSettings | None = None
    """From each edge to the broker; None: as to the verifiers."""
    is_apart: bool = False
    """Telemetry comes over a link of its own."""
    telemetry_interval_s: float = 5.0
    """Of edges."""
    follow_verifiers: bool = True
    """Edges use the verifiers that policies name."""


class SimulatedOrchestrator:
    """See the module.

    Args:
        settings: how it takes part.
        station: its way to the broker.
        origin_s: what its clock shows at first.
        tell: told what happens, if anybody wants to know.
    """

    def __init__(
        self,
        settings: OrchestratorSettings,
        *,
        station: Station,
        origin_s: float,
        tell: Tell | None,
    ) -> None:
        self.station = station
        self.clock = MachineClock(origin_s=origin_s)
        self.service: Service | None = None
        """The program; None while it does not run."""
        self.num_lives = 0
        self._settings = settings
        self._file = HistoryFile(None, bounds=HistoryBounds())
        self._tell = tell
        self._task: asyncio.Task[None] | None = None
        self._asked_to_end = asyncio.Event()

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start the program, unless it runs."""
        if self._task is None:
            self._asked_to_end.clear()
            self._task = group.create_task(self._live())

    def kill(self) -> None:
        """End the program like SIGKILL."""
        if self._task is None:
            return
        self._note("killed")
        self.station.die()
        self._task.cancel()
        self._task = self.service = None

    async def end(self) -> None:
        """Let the program end in order, and its disk with it."""
        self._asked_to_end.set()
        if self._task is not None:
            await asyncio.wait({self._task})
        self._file.close()

    async def _live(self) -> None:
        self.num_lives += 1
        transport = self.station.begin()
        incarnation, board = self.station.incarnation, self._board()
        async with AsyncExitStack() as stack:
            history = History(self._file, thread=VirtualThread(Occupation()))
            link, telemetry = await stack.enter_async_context(
                fleet_links(
                    self.station.broker,
                    incarnation=incarnation,
                    is_apart=self._settings.is_apart,
                    generator=self.station.chance,
                    transport=transport,
                )
            )
            service = Service(
                link, telemetry=telemetry, history=history, board=board, clock=self.clock
            )
            await service.recall()
            await stack.enter_async_context(running_beside(history.write_for_ever))
            await stack.enter_async_context(running_service(service))
            say_present(link, incarnation=incarnation)
            self.service = service
            self._note("started", life=self.num_lives)
            await self._asked_to_end.wait()
            self.service = None

    def _board(self) -> Board:
        return Board(
            broker=str(self.station.broker.address), history="simulated", unix_offset_s=0.0
        )

    def _note(self, kind: str, **fields: float) -> None:
        if self._tell is not None:
            self._tell(kind, **fields)
