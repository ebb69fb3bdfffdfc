"""The control plane of a world: a broker, an orchestrator, and everybody's way to the broker."""

import asyncio
from collections.abc import Iterator, Sequence

from numpy.random import default_rng

from paceline.mqtt.settings import BrokerSettings as LinkSettings
from paceline.settings import Address
from simulator.network import NetworkSettings
from simulator.virtual.channel import Path
from simulator.virtual.edge import SimulatedEdge
from simulator.virtual.events import EventLog
from simulator.virtual.following import astray
from simulator.virtual.mqtt.broker import PATIENCE_S, SimulatedBroker
from simulator.virtual.mqtt.house import BrokerSettings
from simulator.virtual.mqtt.station import Station
from simulator.virtual.orchestrator import OrchestratorSettings, SimulatedOrchestrator
from simulator.virtual.seat import Seat
from simulator.virtual.verifier import SimulatedVerifier

FOLLOW_S = 60.0
"""Within this time after everything has healed all edges must follow the orchestrator: an attempt under way may fail (10 s), the
next one is at most 10 s later, a policy that was lost is sent again with the second telemetry after that (10 s), a verifier that was
away is asked again within 10 s."""

LOOK_S = 0.25
"""How often it is looked whether they do."""

MANY = 1009
"""More machines of a kind than any world has; tells seeds of ways apart."""

KEEPALIVE_S = 15.0
ADDRESS = Address(host="10.0.1.1", port=1883)
ORCHESTRATOR = "orchestrator"
_SEED = 2
"""Tells what is drawn here from what edges (0) and verifiers (1) draw."""


class Plane:
    """See the module.

    Args:
        settings: who takes part, and how.
        broker: bounds of the broker.
        seed: of the world.
        log: where to tell what happens, if anywhere.
        numbers: gives connections their numbers.
    """

    def __init__(
        self,
        settings: OrchestratorSettings,
        *,
        broker: BrokerSettings,
        seed: int,
        log: EventLog | None,
        numbers: Iterator[int],
    ) -> None:
        time = asyncio.get_running_loop().time
        self.settings = settings
        self.stations: dict[str, Station] = {}
        """By name of the machine."""
        self.followed_s: float | None = None
        """Since when all followed the orchestrator, after everything had healed."""
        self.astray: Sequence[str] = ()
        """Who did not, when that was looked at last."""
        self._seed = seed
        self._log = log
        self._numbers = numbers
        self.broker = SimulatedBroker(
            address=ADDRESS,
            settings=broker,
            tell=None if log is None else log.tell("broker", time=time),
        )
        station = self.station(ORCHESTRATOR, settings.network)
        self.orchestrator = SimulatedOrchestrator(
            settings,
            station=station,
            origin_s=float(default_rng((seed, _SEED)).integers(1, 10_000_000)),
            tell=None if log is None else log.tell(ORCHESTRATOR, time=time),
        )

    def station(self, name: str, network: NetworkSettings) -> Station:
        """Give a machine a way to the broker."""
        number = len(self.stations)
        path = Path(
            places=(name, "broker"),
            server=self.broker,
            settings=network,
            seed=(self._seed * MANY + MANY - 1) * MANY + number,
            log=self._log,
            numbers=self._numbers,
            patience_s=PATIENCE_S,
        )
        self.broker.paths.append(path)
        station = self.stations[name] = Station(
            path,
            broker=LinkSettings(address=ADDRESS, keepalive_s=int(KEEPALIVE_S)),
            generator=default_rng((self._seed, _SEED, number)),
        )
        return station

    def seat(self, name: str, network: NetworkSettings) -> Seat:
        """Give an edge its place.

        Args:
            name: of the edge.
            network: between it and the verifiers.
        """
        station = self.station(name, self.settings.edge_network or network)
        return Seat(station=station, settings=self.settings, name=name)

    def start(self, group: asyncio.TaskGroup) -> None:
        """Start what does not run."""
        self.broker.start(group)
        self.orchestrator.start(group)

    async def watch(
        self, *, edges: Sequence[SimulatedEdge], verifiers: Sequence[SimulatedVerifier]
    ) -> None:
        """Look until all is answered and all follow the orchestrator; give up when some did not for FOLLOW_S."""
        loop = asyncio.get_running_loop()
        astray_since_s: float | None = None
        while True:
            now_s = loop.time()
            self.astray = astray(self.orchestrator, edges=edges, verifiers=verifiers)
            if self.astray:
                self.followed_s = None
                astray_since_s = now_s if astray_since_s is None else astray_since_s
                if now_s - astray_since_s >= FOLLOW_S:
                    return
            else:
                astray_since_s = None
                self.followed_s = now_s if self.followed_s is None else self.followed_s
                if all(edge.is_done.is_set() for edge in edges):
                    return
            await asyncio.sleep(LOOK_S)

    async def end(
        self, *, edges: Sequence[SimulatedEdge], verifiers: Sequence[SimulatedVerifier]
    ) -> None:
        """Let everybody take leave in order, the broker last.

        Raises:
            AssertionError: the broker holds somebody who has left, or held more than it may.
        """
        for edge in edges:
            edge.released.set()
        for edge in edges:
            await edge.gone()
        for verifier in verifiers:
            await verifier.hush()
        await self.orchestrator.end()
        # What was said last is under way.
        await asyncio.sleep(max(PATIENCE_S, KEEPALIVE_S))
        house, bounds = self.broker.house, self.broker.settings
        assert house is not None, "the broker does not run"
        assert not house.guests, f"the broker still holds {sorted(house.guests)}"
        most = max(house.most_waiting, self.broker.most_waiting)
        assert most <= bounds.max_queued, f"{most} messages waited for one client"
        self.broker.kill()
