"""A world of simulated edges, verifiers and links: made from one frozen value, run to its end in virtual time.

    settings = WorldSettings(edges=(EdgeSettings(requests=(...)),), verifiers=(VerifierSettings(),), seed=7)
    log = EventLog()
    result = run(settings, log=log)
    result.asked, log.lines()

The same settings give the same log, to the byte, in any process.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from numpy.random import default_rng

from paceline.errors import ConfigError
from paceline.settings import Address
from simulator.network import NetworkSettings
from simulator.virtual.channel import Path
from simulator.virtual.edge import Asked, EdgeSettings, SimulatedEdge
from simulator.virtual.events import EventLog, Tell
from simulator.virtual.loop import no_story, run_virtually
from simulator.virtual.mqtt.house import BrokerSettings
from simulator.virtual.orchestrator import OrchestratorSettings
from simulator.virtual.parts import AnyTarget, check_parts
from simulator.virtual.plane import MANY, Plane
from simulator.virtual.target import ToyTarget
from simulator.virtual.verifier import SimulatedVerifier, VerifierSettings

MARGIN_S = 60.0
"""After the last lease, for what is still under way."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorldSettings:
    """Everything that decides what happens.

    Raises:
        ConfigError: there is no verifier, or a drafter that cannot guess what the target draws.
    """

    edges: tuple[EdgeSettings, ...]
    verifiers: tuple[VerifierSettings, ...]
    seed: int = 0
    target: AnyTarget = field(default_factory=ToyTarget)
    """What all verifiers serve: a `ToyTarget`, or a `RealTarget` that computes."""
    network: NetworkSettings = field(default_factory=NetworkSettings)
    """Between every edge and every verifier, where `networks` says nothing else."""
    networks: tuple[tuple[int, int, NetworkSettings], ...] = ()
    """Of single ways: number of the edge, number of the verifier, settings."""
    orchestrator: OrchestratorSettings | None = None
    """With one there are a broker and a control plane, in which everybody takes part; None: edges decide by themselves."""
    broker: BrokerSettings = field(default_factory=BrokerSettings)
    """Bounds of the broker, where there is one."""
    longest_s: float = 3600.0
    """Virtual time after which all should have been answered."""

    def __post_init__(self) -> None:
        """Check the fields."""
        if not self.verifiers:
            raise ConfigError("verifiers: got none, expected at least one")
        for edge in self.edges:
            if edge.make_drafter is None:
                check_parts(self.target, edge.draft)


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """What became of a world."""

    asked: tuple[tuple[Asked, ...], ...]
    """By edge: every try, in order."""
    healed_s: float
    """Virtual time at which the script was over."""
    duration_s: float
    """Virtual time until everything was answered."""
    num_messages: int
    """Carried by all links."""
    bugs: tuple[Exception, ...]
    """What a verifier's service raised and should not have."""
    followed_s: float | None = None
    """Virtual time at which all edges followed the orchestrator, after the script was over; None: never, or there is none."""
    astray: tuple[str, ...] = ()
    """Which edges did not in the end, and why."""


Script = Callable[["World"], Awaitable[None]]
"""What happens in a world besides its own business, faults for example."""


class World:
    """The machines and the ways between them; made inside the loop.

    Args:
        settings: everything that decides.
        log: where to tell what happens, if anywhere.
        group: runs the programs.
    """

    def __init__(
        self, settings: WorldSettings, *, log: EventLog | None, group: asyncio.TaskGroup
    ) -> None:
        self.settings = settings
        self.log = log
        self.group = group
        self.healed_s = 0.0
        self._loop = asyncio.get_running_loop()
        self._numbers = itertools.count(1)
        self.plane: Plane | None = None
        """The control plane, if there is one."""
        self.verifiers = [
            SimulatedVerifier(
                name=f"verifier{index}",
                address=Address(host=f"10.0.0.{index + 1}", port=50051),
                target=settings.target,
                settings=one,
                generator=default_rng((settings.seed, 1, index)),
                tell=self._tell(f"verifier{index}"),
            )
            for index, one in enumerate(settings.verifiers)
        ]
        self.edges = [self._edge(index, one) for index, one in enumerate(settings.edges)]
        if settings.orchestrator is not None:
            self.plane = self._plane(settings.orchestrator)

    def path(self, edge: int, verifier: int) -> Path:
        """Return the way between two machines."""
        return self.edges[edge].paths[self.verifiers[verifier].address]

    @property
    def paths(self) -> list[Path]:
        """All ways."""
        return [path for edge in self.edges for path in edge.paths.values()]

    def heal(self) -> None:
        """Let every way be as at first, and start every program that does not run."""
        for path in self.paths:
            path.heal()
            path.up.mangling.clear()
            path.down.mangling.clear()
        if self.plane is not None:
            for station in self.plane.stations.values():
                station.path.heal()
            self.plane.start(self.group)
        for verifier in self.verifiers:
            verifier.start(self.group)
        for edge in self.edges:
            edge.start(self.group)

    async def run(self, script: Script | None) -> float:
        """Let everything be answered, then everything end; return the time of the last answer.

        Raises:
            AssertionError: something was left behind.
        """
        if self.plane is not None:
            self.plane.start(self.group)
        for verifier in self.verifiers:
            verifier.start(self.group)
        for edge in self.edges:
            edge.start(self.group)
        if script is not None:
            await script(self)
        self.healed_s = self._loop.time()
        async with asyncio.TaskGroup() as group:
            if self.plane is not None:
                group.create_task(self.plane.watch(edges=self.edges, verifiers=self.verifiers))
            for edge in self.edges:
                await edge.is_done.wait()
            duration_s = self._loop.time()
        if self.plane is not None:
            await self.plane.end(edges=self.edges, verifiers=self.verifiers)
        await self._settle()
        for verifier in self.verifiers:
            verifier.kill()
        return duration_s

    async def _settle(self) -> None:
        """Wait until every session that was left behind has ended by itself."""
        longest_s = max(
            one.sessions.lease_s + one.sessions.silence_s for one in self.settings.verifiers
        )
        await asyncio.sleep(longest_s + MARGIN_S)
        for verifier in self.verifiers:
            assert verifier.is_idle(), f"{verifier.name}: sessions are left behind"
        for edge in self.edges:
            assert not edge.num_open_drafts, f"{edge.name}: drafts are left behind"

    def _edge(self, index: int, settings: EdgeSettings) -> SimulatedEdge:
        world, name = self.settings, f"edge{index}"
        special = {(edge, verifier): one for edge, verifier, one in world.networks}
        paths: dict[Address, Path] = {}
        for number, verifier in enumerate(self.verifiers):
            path = paths[verifier.address] = Path(
                places=(name, verifier.name),
                server=verifier,
                settings=special.get((index, number), world.network),
                seed=(world.seed * MANY + index) * MANY + number,
                log=self.log,
                numbers=self._numbers,
            )
            verifier.paths.append(path)
        return SimulatedEdge(
            name=name,
            settings=settings,
            target=world.target,
            paths=paths,
            generator=default_rng((world.seed, 0, index)),
            tell=self._tell(name),
        )

    def _plane(self, settings: OrchestratorSettings) -> Plane:
        world = self.settings
        plane = Plane(
            settings, broker=world.broker, seed=world.seed, log=self.log, numbers=self._numbers
        )
        for verifier in self.verifiers:
            verifier.station = plane.station(verifier.name, settings.network)
        for edge in self.edges:
            edge.seat = plane.seat(edge.name, world.network)
        return plane

    def _tell(self, name: str) -> Tell | None:
        return None if self.log is None else self.log.tell(name, time=self._loop.time)


def run(
    settings: WorldSettings, *, script: Script | None = None, log: EventLog | None = None
) -> Result:
    """Run a world to its end.

    Args:
        settings: everything that decides what happens, but for the script.
        script: what happens besides.
        log: takes what happens; without one it is faster.

    Raises:
        StandstillError: it never comes to its end; tells the story.
        ExceptionGroup: a program broke.
        AssertionError: something was left behind.
    """

    async def main() -> Result:
        async with asyncio.TaskGroup() as group:
            world = World(settings, log=log, group=group)
            duration_s = await world.run(script)
        paths, plane = list(world.paths), world.plane
        if plane is not None:
            paths += [station.path for station in plane.stations.values()]
        return Result(
            asked=tuple(tuple(edge.asked) for edge in world.edges),
            healed_s=world.healed_s,
            duration_s=duration_s,
            num_messages=sum(path.up.num_messages + path.down.num_messages for path in paths),
            bugs=tuple(bug for verifier in world.verifiers for bug in verifier.bugs),
            followed_s=None if plane is None else plane.followed_s,
            astray=() if plane is None else tuple(plane.astray),
        )

    story = log.story if log is not None else no_story
    return run_virtually(main(), longest_s=settings.longest_s, story=story)
