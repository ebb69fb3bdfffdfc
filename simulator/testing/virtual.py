"""A world of `simulator.virtual` that a test drives: it asks, cuts, waits, and time passes only then."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from simulator.testing.answer import DEFAULT_TOKENS
from simulator.testing.parts import Parts
from simulator.testing.steps import Steps
from simulator.testing.virtual_edge import VirtualEdge
from simulator.testing.virtual_parts import virtual_edges, virtual_target, virtual_verifiers
from simulator.testing.written import WrittenNetwork, seconds
from simulator.virtual.channel import Path, PathState
from simulator.virtual.events import Event, EventLog
from simulator.virtual.verifier import SimulatedVerifier
from simulator.virtual.world import World, WorldSettings

MOST_EVENTS = 100_000


class VirtualWorld:
    """Edges and verifiers, and the links between them.

    Args:
        network: of every link, at first.
        seed: of all that is left to chance.
        parts: the machines.
    """

    is_virtual = True

    def __init__(self, *, network: WrittenNetwork, seed: int, parts: Parts) -> None:
        self.seed = seed
        self._log = EventLog(most=MOST_EVENTS)
        self.settings = WorldSettings(
            edges=virtual_edges(parts),
            verifiers=virtual_verifiers(parts),
            seed=seed,
            target=virtual_target(parts),
            network=network.settings,
        )
        self._network = network
        self._steps = Steps(story=self._log.story)
        self._ended = asyncio.Event()
        self.edges: tuple[VirtualEdge, ...] = ()
        self.verifiers: tuple[VirtualVerifier, ...] = ()
        self.links: Mapping[tuple[int, int], VirtualLink] = {}

    def open(self) -> None:
        """Start every program."""
        self._steps.begin(self._live())

    def close(self) -> None:
        """End everything.

        Raises:
            ExceptionGroup: errors of our own programs, and of functions given to `after`, that nobody took.
        """
        self._ended.set()
        bugs = [bug for verifier in self.verifiers for bug in verifier.simulated.bugs]
        bugs += self._steps.close()
        if bugs:
            raise ExceptionGroup("errors that nobody took", bugs)

    # --- what a test asks

    @property
    def edge(self) -> VirtualEdge:
        """The first edge."""
        return self.edges[0]

    @property
    def verifier(self) -> "VirtualVerifier":
        """The first verifier."""
        return self.verifiers[0]

    @property
    def link(self) -> "VirtualLink":
        """Between the first edge and the first verifier."""
        return self.links[0, 0]

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened, the oldest first."""
        return tuple(self._log)

    @property
    def now_s(self) -> float:
        """Virtual seconds since the start."""
        return self._steps.now_s

    def wait(self, duration: float | str) -> None:
        """Let time pass, "2s" for example; numbers are seconds."""
        duration_s = seconds(duration)
        self._steps.run(asyncio.sleep(duration_s), within_s=duration_s + 1.0)

    def after(self, delay: float | str, action: Callable[[], object]) -> None:
        """Call something later, `world.link.cut` for example; it must not wait for anything."""
        self._steps.after(seconds(delay), action)

    def target_text(self, prompt: str, *, max_tokens: int = DEFAULT_TOKENS) -> str:
        """Return what the target says by itself: no draft, no network."""
        target = self.settings.target
        tokens = target.run(target.tokenizer.encode(prompt), max_tokens)
        return target.tokenizer.decode(tokens)

    def last_words(self) -> list[str]:
        """Return what programs wrote to stderr: nothing, there are none."""
        return []

    async def _live(self) -> None:
        try:
            await self._run()
        except BaseExceptionGroup as failures:
            raise first_of(failures) from None

    async def _run(self) -> None:
        async with asyncio.TaskGroup() as group:
            world = World(self.settings, log=self._log, group=group)
            self.edges = tuple(
                VirtualEdge(
                    one, index=index, settings=self.settings, steps=self._steps, group=group
                )
                for index, one in enumerate(world.edges)
            )
            self.verifiers = tuple(
                VirtualVerifier(one, steps=self._steps, group=group) for one in world.verifiers
            )
            self.links = {
                (i, j): VirtualLink(
                    world.path(i, j),
                    steps=self._steps,
                    network=self._network,
                    keepalive_s=one.settings.connection.keepalive_s,
                )
                for i, one in enumerate(world.edges)
                for j in range(len(self.verifiers))
            }
            for verifier in world.verifiers:
                verifier.start(group)
            for edge in world.edges:
                edge.start(group)
            await self._ended.wait()


def first_of(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """Return the first of the errors in a group and its groups: what a test is told."""
    first = failures.exceptions[0]
    return first_of(first) if isinstance(first, BaseExceptionGroup) else first


class VirtualVerifier:
    """A verifier."""

    def __init__(
        self, simulated: SimulatedVerifier, *, steps: Steps, group: asyncio.TaskGroup
    ) -> None:
        self.simulated = simulated
        self._steps = steps
        self._group = group

    def kill(self) -> None:
        """End the program like SIGKILL."""
        self._steps.do(self.simulated.kill)

    def start(self) -> None:
        """Start it again; it knows nothing any more."""
        self._steps.do(lambda: self.simulated.start(self._group))


class VirtualLink:
    """The way between one edge and one verifier."""

    def __init__(
        self, path: Path, *, steps: Steps, network: WrittenNetwork, keepalive_s: float
    ) -> None:
        self._path = path
        self._steps = steps
        self._first = self._network = network
        self._keepalive_s = keepalive_s

    @property
    def state(self) -> str:
        """Open, cut, or black-hole."""
        return self._path.state.name.lower().replace("_", "-")

    def cut(self) -> None:
        """Reset every connection and refuse new ones, until it heals."""
        self._steps.do(self._path.cut)

    def black_hole(self) -> None:
        """Let nothing pass and tell nobody, until it heals."""
        self._steps.do(lambda: self._path.black_hole(keepalive_s=self._keepalive_s))

    def heal(self) -> None:
        """Let everything pass again."""
        self._steps.do(self._heal)

    def change(self, written: str | Mapping[str, Any] | None = None, **keys: Any) -> None:
        """Give it another network, `change("wan")`, or change some of this one, `change(rtt="200ms")`.

        Raises:
            ConfigError: it names the key.
        """
        self._network = self._network.changed(written, keys)
        self._steps.do(lambda: self._path.change(self._network.settings))

    def _heal(self) -> None:
        if self._path.state is not PathState.OPEN:
            self._path.heal()  # to its first settings
            if self._network is not self._first:
                self._path.change(self._network.settings)
