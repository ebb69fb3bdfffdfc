"""One connection through the relay: two directions, each read at one end and written at the other.

        client  --reader-->  up: link, in flight  --writer-->  server
                <--writer--  down: in flight, link  <--reader--

What is in flight is bounded: at the bound the relay stops reading, the kernel's buffers fill, and TCP slows the sender.
An end of file and a reset travel like data, behind it.
"""

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from simulator.link import Link, OneWay
from simulator.network import Connection

CHUNK_BYTES = 16 * 1024
"""Most bytes read at once: what one flow may put in front of another's message."""

MAX_IN_FLIGHT_BYTES = 4 * 1024 * 1024
"""Most bytes of one flow and direction between reader and writer; 160 Mbit/s at 200 ms one way."""

CHUNK_OVERHEAD_BYTES = 128
"""Counted for each chunk besides its data, so that a flood of tiny messages is bounded too."""

RESET_FORGOTTEN_AFTER_S = 5.0
"""When a forgotten flow is reset, counted from the first bytes that vanished."""

CONNECT_TIMEOUT_S = 10.0
CLOSE_TIMEOUT_S = 30.0
"""How long a receiver may take to read the last bytes of a flow that has ended in order."""


class Kind(Enum):
    """What travels."""

    DATA = auto()
    END = auto()
    RESET = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """Something on its way."""

    kind: Kind
    leaves_s: float
    """When it leaves the link, in the loop's time."""
    data: bytes = b""


class Direction:
    """One direction of the link, shared by all flows."""

    def __init__(self, link: Link, *, passable: asyncio.Event, origin_s: float) -> None:
        """Wrap a direction of a network.

        Args:
            link: the direction.
            passable: unset while it is a black hole.
            origin_s: the loop's time at which that of the network is 0.
        """
        self.link = link
        self.passable = passable
        self.carried_bytes = 0
        """Bytes that have entered the link."""
        self._origin_s = origin_s
        self._turn = asyncio.Lock()

    def now_s(self) -> float:
        """Return the time of the network."""
        return asyncio.get_running_loop().time() - self._origin_s

    def travel_s(self) -> float:
        """Return what a packet without size takes now."""
        return self.link.conditions.travel_s(self.now_s())

    async def enter(self, size_bytes: int, *, stream: OneWay) -> float:
        """Wait until the queue has room, put a message of a stream in, and return when it leaves, in the loop's time."""
        async with self._turn:
            await self.passable.wait()
            # ASYNC110 wants an event; what is waited for is a time. Timers may come a little early.
            while (room_in_s := self.link.room_in_s(now_s=self.now_s())) > 0.0:  # noqa: ASYNC110
                await asyncio.sleep(room_in_s)
            self.carried_bytes += size_bytes
            return self._origin_s + stream.leaves_at(self.now_s(), size_bytes)


class InFlight:
    """The chunks of one flow and direction, in order, bounded in bytes."""

    def __init__(self) -> None:
        self._chunks: deque[Chunk] = deque()
        self._held_bytes = 0
        self._changed = asyncio.Event()

    async def put(self, chunk: Chunk) -> None:
        """Add a chunk; wait while the bound is reached."""
        while self._held_bytes >= MAX_IN_FLIGHT_BYTES:
            self._changed.clear()
            await self._changed.wait()
        self._chunks.append(chunk)
        self._held_bytes += len(chunk.data) + CHUNK_OVERHEAD_BYTES
        self._changed.set()

    async def first(self) -> Chunk:
        """Return the next chunk without taking it; wait for one."""
        while not self._chunks:
            self._changed.clear()
            await self._changed.wait()
        return self._chunks[0]

    def take_due(self, *, now_s: float) -> tuple[bytes, Kind]:
        """Take all data that is due and return it, with what comes right behind it: END, RESET, or more DATA."""
        parts: list[bytes] = []
        kind = Kind.DATA
        while self._chunks and self._chunks[0].leaves_s <= now_s and kind is Kind.DATA:
            chunk = self._chunks.popleft()
            self._held_bytes -= len(chunk.data) + CHUNK_OVERHEAD_BYTES
            parts.append(chunk.data)
            kind = chunk.kind
        self._changed.set()
        return b"".join(parts), kind


@dataclass(slots=True, kw_only=True)
class Flow:
    """One connection and its state; `run` carries it until it ends."""

    up: Direction
    down: Direction
    connection: Connection
    client: tuple[asyncio.StreamReader, asyncio.StreamWriter]
    forgotten_bytes: int = 0
    """Bytes that vanished because the link had forgotten the flow."""
    _last_moved_s: float = field(default_factory=lambda: asyncio.get_running_loop().time())
    _forgotten: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, host: str, port: int) -> None:
        """Connect to the server and carry both directions until both have ended or one end is reset.

        A new connection costs a round trip before its first byte, as TCP's handshake does, and more if that is lost.
        """
        writers = [self.client[1]]
        broken = True
        try:
            await self.up.passable.wait()
            started_s = self.up.now_s()
            await asyncio.sleep(self.connection.opens_at(started_s) - started_s)
            async with asyncio.timeout(CONNECT_TIMEOUT_S):
                server = await asyncio.open_connection(host, port)
            writers.append(server[1])
            for writer in writers:
                _send_at_once(writer)
            async with asyncio.TaskGroup() as group:
                resetter = group.create_task(self._reset_when_forgotten())
                async with asyncio.TaskGroup() as pumps:
                    for reader, writer, is_up in (
                        (self.client[0], server[1], True),
                        (server[0], self.client[1], False),
                    ):
                        in_flight = InFlight()
                        pumps.create_task(self._take_in(reader, in_flight, is_up=is_up))
                        pumps.create_task(self._let_out(writer, in_flight, is_up=is_up))
                resetter.cancel()
            broken = False
        except OSError:
            pass  # the server is not there; its client is told below, by a reset
        except ExceptionGroup as group_error:
            _, others = group_error.split(OSError)
            if others is not None:
                raise others from None
        finally:
            await end(writers, broken=broken)

    async def _take_in(
        self, reader: asyncio.StreamReader, in_flight: InFlight, *, is_up: bool
    ) -> None:
        """Read one end into the link until it ends."""
        direction = self.up if is_up else self.down
        stream = self.connection.up if is_up else self.connection.down
        kind = Kind.DATA
        while kind is Kind.DATA:
            try:
                data = await reader.read(CHUNK_BYTES)
                kind = Kind.DATA if data else Kind.END
            except OSError:
                data, kind = b"", Kind.RESET
            if self._is_forgotten():
                self.forgotten_bytes += len(data)
                continue
            leaves_s = await direction.enter(len(data), stream=stream)
            await in_flight.put(Chunk(kind=kind, leaves_s=leaves_s, data=data))

    async def _let_out(
        self, writer: asyncio.StreamWriter, in_flight: InFlight, *, is_up: bool
    ) -> None:
        """Write what leaves the link to the other end, in time."""
        back = self.down if is_up else self.up
        loop = asyncio.get_running_loop()
        while True:
            chunk = await in_flight.first()
            await asyncio.sleep(max(0.0, chunk.leaves_s - loop.time()))
            await back.passable.wait()
            data, kind = in_flight.take_due(now_s=max(loop.time(), chunk.leaves_s))
            try:
                if data:
                    writer.write(data)
                    await writer.drain()
                if kind is Kind.END:
                    writer.write_eof()
                    return
            except OSError:
                # The receiver is gone; its reset takes the way back before the sender hears of it.
                await asyncio.sleep(back.travel_s())
                raise
            if kind is Kind.RESET:
                raise ConnectionResetError

    def _is_forgotten(self) -> bool:
        """Note that something moves; return whether it came too late and the link has forgotten the flow."""
        now_s = asyncio.get_running_loop().time()
        limits = (self.up.link.settings, self.down.link.settings)
        idle_s = now_s - self._last_moved_s
        if any(
            limit.drop_idle_after_s is not None and idle_s > limit.drop_idle_after_s
            for limit in limits
        ):
            self._forgotten.set()
        self._last_moved_s = now_s
        return self._forgotten.is_set()

    async def _reset_when_forgotten(self) -> None:
        await self._forgotten.wait()
        await asyncio.sleep(RESET_FORGOTTEN_AFTER_S)
        raise ConnectionResetError


def _send_at_once(writer: asyncio.StreamWriter) -> None:
    """Switch off Nagle's algorithm, which would add its own delay to the link's."""
    writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)


async def end(writers: Sequence[asyncio.StreamWriter], *, broken: bool) -> None:
    """Close connections, with a reset if the flow broke, and wait until they are closed."""
    # All are told before any is waited for: a cancellation while waiting must not leave one open.
    for writer in writers:
        if broken:
            _reset(writer)
        else:
            writer.close()
    try:
        for writer in writers:
            with contextlib.suppress(OSError):
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await writer.wait_closed()
    finally:
        for writer in writers:
            writer.transport.abort()


def _reset(writer: asyncio.StreamWriter) -> None:
    # Lingering for 0 s makes close() send a reset instead of an orderly end.
    linger = struct.pack("ii", 1, 0)
    with contextlib.suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    writer.transport.abort()
