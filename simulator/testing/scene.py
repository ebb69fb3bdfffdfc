"""The network of one test and everything that was made for it. Cheap to import."""

from __future__ import annotations

import shlex
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from paceline.errors import ConfigError
from simulator.testing.marker import Description, Mark, Time, described

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from simulator.testing.diary import Diary
    from simulator.testing.real import RealWorld
    from simulator.testing.relayed import RelayedLinks
    from simulator.testing.virtual import VirtualWorld
    from simulator.testing.written import WrittenNetwork

    World: TypeAlias = VirtualWorld | RealWorld
else:
    World: TypeAlias = Any

MOST_EVENTS = 25
"""Told of a test that failed."""


class Scene:
    """Makes worlds and links of a test's network; a context that ends them all.

    Args:
        description: what the markers say.
        time: in which the test runs; None if they say nothing.
        seed: of the network.

    Raises:
        ConfigError: the network is described wrongly; names the key.
    """

    def __init__(self, description: Description, *, time: Time | None, seed: int) -> None:
        from simulator.testing.written import WrittenNetwork  # noqa: PLC0415 - NumPy

        self.seed = seed
        self.time = time
        self.network: WrittenNetwork = WrittenNetwork.read(description.written, description.keys)
        self.worlds: list[World] = []
        self.diary: Diary | None = None
        """Of links without a world."""
        self._links: RelayedLinks | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        """Nothing is made yet."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End everything, the newest first.

        Raises:
            Exception: what nobody took.
        """
        del kind, error, traceback
        self._stack.close()

    def world(self, **parts: Any) -> World:
        """Return edges and verifiers, running.

        Args:
            parts: the fields of `Parts`.

        Raises:
            ConfigError: one is wrong.
            ProgramError: a program could not start.
        """
        from simulator.testing.parts import made_parts  # noqa: PLC0415 - used by few tests

        wanted = made_parts(parts)
        made: World
        if self.time is Time.REAL:
            from simulator.testing.real import RealWorld  # noqa: PLC0415 - aiohttp

            made = RealWorld(network=self.network, seed=self.seed, parts=wanted)
        else:
            from simulator.testing.virtual import VirtualWorld  # noqa: PLC0415 - PyTorch

            made = VirtualWorld(network=self.network, seed=self.seed, parts=wanted)
        self._stack.callback(made.close)
        self.worlds.append(made)
        made.open()
        return made

    def links(self) -> RelayedLinks:
        """Return what puts the network before servers; the same one each time.

        Raises:
            ConfigError: time is virtual.
        """
        from simulator.testing.diary import Diary  # noqa: PLC0415 - used by few tests
        from simulator.testing.relayed import RelayedLinks  # noqa: PLC0415 - the same
        from simulator.testing.thread import LoopThread  # noqa: PLC0415 - the same

        if self.time is Time.VIRTUAL:
            raise ConfigError(
                "time: got virtual, expected real: the fixture link carries real connections"
            )
        if self._links is None:
            thread, self.diary = LoopThread(), Diary()
            thread.start()
            self._stack.callback(thread.stop)
            self._links = RelayedLinks(
                network=self.network, seed=self.seed, diary=self.diary, thread=thread
            )
        return self._links


def network(*args: Any, **keys: Any) -> Scene:
    """Return a network without a test, for fixtures of a wider scope for example; the arguments are the marker's.

        with network(rtt="80ms", time="real") as made:
            pair = made.world()

    Raises:
        ConfigError: an argument is wrong; names it.
    """
    description = described([Mark(args=args, keys=keys)])
    for name, values in (("time", description.times), ("seed", description.seeds)):
        if len(values) > 1:
            raise ConfigError(f"{name}: got {len(values)} values, expected one")
    return Scene(
        description,
        time=next(iter(description.times), None),
        seed=next(iter(description.seeds), 0),
    )


def told_scene(scene: Scene, *, test: str) -> Sequence[str]:
    """Return a failed test's network in lines: how to have it again, and what happened last.

    Args:
        scene: the network.
        test: the node id.
    """
    lines = [
        f"{scene.network.label}; seed {scene.seed}",
        f"again: pytest {shlex.quote(test)} --network-seed {scene.seed}",
    ]
    for number, world in enumerate(scene.worlds):
        name = f"world {number}: " if len(scene.worlds) > 1 else ""
        kind = "virtual" if world.is_virtual else "real"
        lines.append(f"{name}{kind} time {world.now_s:.3f} s; the last events:")
        lines += [event.line() for event in world.events[-MOST_EVENTS:]]
        lines += world.last_words()
    if scene.diary is not None:
        lines.append(f"{scene.diary.now_s:.3f} s since the first link; the last events:")
        lines += [event.line() for event in scene.diary.events[-MOST_EVENTS:]]
    return lines
