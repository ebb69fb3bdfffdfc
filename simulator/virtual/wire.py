"""What connects two simulated machines: bytes in order each way, at the times that the link model says.

    sent --> [ link model: queue, transmitter, propagation, loss ] --> arrives
         ^ a black hole: waits here                                ^ and here, until it heals

A connection breaks in one of three ways. A reset at one end travels to the other like data. A cut resets both ends at
once. In a black hole nothing passes and nobody is told: what was on its way arrives when it heals, as TCP has it, unless
an end has lost patience before.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto

from simulator.link import OneWay

Action = Callable[[], None]


class Mangling(Enum):
    """What a faulty network or peer does to a message; TCP does neither."""

    DUPLICATE = auto()
    TRUNCATE = auto()


@dataclass(slots=True, kw_only=True, eq=False)
class Way:
    """One direction between two machines, shared by the connections that follow one another there."""

    is_passable: bool = True
    """Unset while it is a black hole."""
    num_messages: int = 0
    num_bytes: int = 0
    """Of payload that has entered the link."""
    mangling: deque[Mangling] = field(default_factory=deque)
    """What happens to the next messages."""


class Wire:
    """One direction of one connection.

    Args:
        way: what it shares with the connections before and after it.
        stream: the link model; its clock is the loop's.
    """

    def __init__(self, way: Way, stream: OneWay) -> None:
        self.way = way
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._to_enter: deque[tuple[int, Action]] = deque()
        self._to_arrive: deque[Action] = deque()
        self._num_due = 0
        """What has come out of the link model while nothing passed."""
        self._is_cut = False
        self._is_shut = False

    def send(self, num_bytes: int, arrive: Action) -> None:
        """Send so many bytes; `arrive` is called when they are there."""
        if self._is_cut or self._is_shut:
            return
        if not self.way.is_passable:
            self._to_enter.append((num_bytes, arrive))
            return
        self.way.num_messages += 1
        self.way.num_bytes += num_bytes
        leaves_s = self._stream.leaves_at(self._loop.time(), num_bytes)
        self._to_arrive.append(arrive)
        self._loop.call_at(leaves_s, self._out)

    def healed(self) -> None:
        """Let through what was held up."""
        for _ in range(self._num_due):
            self._to_arrive.popleft()()
        self._num_due = 0
        held, self._to_enter = self._to_enter, deque()
        was_shut, self._is_shut = self._is_shut, False
        for num_bytes, arrive in held:
            self.send(num_bytes, arrive)
        self._is_shut = was_shut

    def cut(self) -> None:
        """Lose what is on its way, and whatever comes."""
        self._is_cut = True
        self._to_enter.clear()
        self._to_arrive.clear()
        self._num_due = 0

    def shut(self) -> None:
        """Take nothing more: the sender is gone. What is on its way arrives."""
        self._is_shut = True

    def _out(self) -> None:
        """Something has left the link model. Timers of nearly one instant go off by their time; messages keep their order."""
        if self._is_cut:
            return
        if self.way.is_passable:
            self._to_arrive.popleft()()
        else:
            self._num_due += 1
