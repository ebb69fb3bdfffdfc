"""Links within one process, for tests and simulations: no sockets, but every message is really encoded and decoded.

They keep the contract of the gRPC ones (tests/contract/test_link.py runs against both): order, half-close, a bounded
number of bytes under way, time-outs, and a peer that ends the stream or vanishes.
"""

import asyncio
from collections import deque
from collections.abc import Collection, Mapping
from typing import Protocol

from paceline.client.link import VerifierInfo
from paceline.codec import encode_cloud, encode_edge, parse_cloud, parse_edge
from paceline.errors import LinkClosed, LinkTimeout, PacelineError
from paceline.messages import CloudMessage, EdgeMessage
from paceline.settings import Address

CAPACITY_BYTES = 65536
"""Most bytes under way in one direction before a sender waits; a single larger message may pass alone."""


class MemoryServer(Protocol):
    """A verifier within this process."""

    def accept(self, peer: "MemoryPeer") -> None:
        """Begin to serve a new stream, in a task of its own.

        Raises:
            LinkClosed: nobody is there.
        """
        ...

    async def describe(self, address: Address) -> VerifierInfo:
        """Answer what it serves.

        Raises:
            LinkClosed: nobody is there.
        """
        ...


class _Pipe:
    """One direction: bytes in order, then perhaps an end, and the reason for it."""

    def __init__(self) -> None:
        self._payloads: deque[bytes] = deque()
        self._used = 0
        self._end: PacelineError | None = None
        self._has_end = False
        self._changed = asyncio.Event()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def put(self, payload: bytes) -> None:
        while not self._has_end and self._payloads and self._used + len(payload) > CAPACITY_BYTES:
            await self._changed.wait()
        if self._has_end:
            raise self._end or LinkClosed("memory: the stream is over")
        self._payloads.append(payload)
        self._used += len(payload)
        self._wake()

    async def get(self) -> bytes | None:
        """Return the next payload; None after the last one, or the reason for the end as an exception."""
        while not self._payloads:
            if self._end is not None:
                raise self._end
            if self._has_end:
                return None
            await self._changed.wait()
        payload = self._payloads.popleft()
        self._used -= len(payload)
        self._wake()
        return payload

    def end(self, error: PacelineError | None = None) -> None:
        """Nothing more comes. What is under way still arrives."""
        if not self._has_end:
            self._has_end, self._end = True, error
            self._wake()

    def cut(self, error: PacelineError) -> None:
        """The same, but what is under way is lost."""
        self._payloads.clear()
        self._has_end, self._end = True, error
        self._wake()


class MemoryLink:
    """The edge's end; see `Link`."""

    def __init__(self, up: _Pipe, down: _Pipe, *, silence_s: float) -> None:
        self._up = up
        self._down = down
        self._silence_s = silence_s
        self._bytes_up = self._bytes_down = 0

    @property
    def payload_bytes_up(self) -> int:
        """Bytes of serialised messages sent so far."""
        return self._bytes_up

    @property
    def payload_bytes_down(self) -> int:
        """Bytes of serialised messages received so far."""
        return self._bytes_down

    async def send(self, message: EdgeMessage) -> None:
        """See `Link`."""
        payload = encode_edge(message).SerializeToString()
        try:
            async with asyncio.timeout(self._silence_s):
                await self._up.put(payload)
        except TimeoutError as error:
            raise self._silent("took") from error
        self._bytes_up += len(payload)

    async def receive(self) -> CloudMessage:
        """See `Link`."""
        try:
            async with asyncio.timeout(self._silence_s):
                payload = await self._down.get()
        except TimeoutError as error:
            raise self._silent("said") from error
        if payload is None:
            raise LinkClosed("memory: the verifier ended the stream")
        self._bytes_down += len(payload)
        return parse_cloud(payload)

    async def finish(self) -> None:
        """See `Link`."""
        self._up.end()

    async def close(self) -> None:
        """See `Link`."""
        gone = LinkClosed("memory: the stream was closed by the edge")
        self._up.cut(gone)
        self._down.cut(gone)

    def _silent(self, verb: str) -> LinkTimeout:
        return LinkTimeout(f"memory: {verb} nothing for {self._silence_s:g} s")


class MemoryPeer:
    """The verifier's end of a `MemoryLink`."""

    def __init__(self, up: _Pipe, down: _Pipe) -> None:
        self._up = up
        self._down = down

    async def receive(self) -> EdgeMessage | None:
        """Return the next message, or None when the edge will send no more.

        Raises:
            LinkClosed: the edge is gone.
            RemoteProtocolError: the message breaks the protocol.
        """
        payload = await self._up.get()
        return None if payload is None else parse_edge(payload)

    async def send(self, message: CloudMessage) -> None:
        """Send a message; waits while the edge takes nothing.

        Raises:
            LinkClosed: the edge is gone.
        """
        await self._down.put(encode_cloud(message).SerializeToString())

    def end(self, error: PacelineError | None = None) -> None:
        """End the stream in order; with an error as its status if there is one."""
        self._down.end(error)
        self._up.end(error or LinkClosed("memory: the verifier ended the stream"))

    def vanish(self) -> None:
        """Break the link: what is under way is lost, in both directions."""
        gone = LinkClosed("memory: the link broke")
        self._up.cut(gone)
        self._down.cut(gone)


def memory_link(*, silence_s: float) -> tuple[MemoryLink, MemoryPeer]:
    """Return the two ends of a new link."""
    up, down = _Pipe(), _Pipe()
    return MemoryLink(up, down, silence_s=silence_s), MemoryPeer(up, down)


class MemoryConnector:
    """Makes links to verifiers within this process; see `Connector`."""

    def __init__(self, servers: Mapping[Address, MemoryServer], *, silence_s: float = 60.0) -> None:
        self._servers = servers
        self._silence_s = silence_s

    async def connect(self, address: Address) -> MemoryLink:
        """See `Connector`."""
        link, peer = memory_link(silence_s=self._silence_s)
        self._servers[address].accept(peer)
        return link

    async def describe(self, address: Address) -> VerifierInfo:
        """See `Connector`."""
        return await self._servers[address].describe(address)

    async def keep_only(self, addresses: Collection[Address]) -> None:
        """There is nothing to close."""

    async def close(self) -> None:
        """There is nothing to close."""
