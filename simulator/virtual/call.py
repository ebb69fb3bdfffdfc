"""A call over a simulated network, as gRPC has it: the edge's end is a `Link`, the verifier's a service context.

Messages are serialised and parsed at both ends. At most CAPACITY_BYTES are on their way or unread in one direction,
then the sender waits, as HTTP/2's flow control has it.
"""

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import NoReturn, Protocol

import grpc

from paceline.client.status import error_of_status
from paceline.codec import decode_edge, encode_edge, parse_cloud, read_edge
from paceline.errors import LinkClosed, LinkTimeout, PacelineError
from paceline.messages import CloudMessage, EdgeMessage
from paceline.settings import Address
from simulator.virtual.events import EventLog, Value, described
from simulator.virtual.loop import RESOLUTION_S
from simulator.virtual.wire import Mangling, Wire

CAPACITY_BYTES = 65536
"""Initial window of HTTP/2; a single larger message may pass alone."""


class Payload(Protocol):
    """A message of protobuf."""

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Return it as bytes."""
        ...


class Inbox:
    """What has arrived at one end, and how much the other end may have under way to it."""

    def __init__(self) -> None:
        self.payloads: deque[bytes] = deque()
        self.used_bytes = 0
        self._waiters: dict[asyncio.Future[None], None] = {}

    def has_room(self, num_bytes: int) -> bool:
        """Return whether the other end may send so much."""
        return self.used_bytes == 0 or self.used_bytes + num_bytes <= CAPACITY_BYTES

    def take(self) -> bytes:
        """Take the oldest payload."""
        payload = self.payloads.popleft()
        self.used_bytes -= len(payload)
        self.wake()
        return payload

    def wake(self) -> None:
        """Let both ends look again."""
        waiters, self._waiters = self._waiters, {}
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def changed(self) -> None:
        """Wait for the next `wake`."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters[waiter] = None
        try:
            await waiter
        finally:
            self._waiters.pop(waiter, None)


class Call:
    """What both ends share.

    Args:
        up: from the edge to the verifier.
        down: the other direction.
        places: names of edge and verifier, for the log.
        log: where to tell what happens, if anywhere.
        number: of this call, for the log.
        is_stream: it is one of messages both ways, and no single question.
    """

    def __init__(
        self,
        *,
        up: Wire,
        down: Wire,
        places: tuple[str, str],
        log: EventLog | None,
        number: int,
        is_stream: bool,
    ) -> None:
        self.is_stream = is_stream
        self.up = up
        self.down = down
        self.edge_place, self.verifier_place = places
        self.log = log
        self.number = number
        self.loop = asyncio.get_running_loop()
        self.at_verifier = Inbox()
        self.at_edge = Inbox()
        self.half_closed = False
        """The edge will send no more; known to the verifier."""
        self.status: tuple[grpc.StatusCode, str] | None = None
        """How it ended; known to the edge."""
        self.closed_by_edge = False
        self.gone = False
        """Nobody at the edge listens; known to the verifier."""
        self.handler: asyncio.Task[None] | None = None
        """What serves it at the verifier."""

    # --- what travels

    def send_up(self, payload: bytes, told: dict[str, Value] | None) -> None:
        """Send a message to the verifier."""
        self._travel(payload, self.up, self.at_verifier, told)

    def send_down(self, payload: bytes, told: dict[str, Value] | None) -> None:
        """Send a message to the edge."""
        self._travel(payload, self.down, self.at_edge, told)

    def _travel(
        self, payload: bytes, wire: Wire, inbox: Inbox, told: dict[str, Value] | None
    ) -> None:
        if wire.way.mangling:
            if wire.way.mangling.popleft() is Mangling.TRUNCATE:
                payload = payload[: len(payload) // 2]
            else:
                self._put(payload, wire, inbox, told)
        self._put(payload, wire, inbox, told)

    def _put(self, payload: bytes, wire: Wire, inbox: Inbox, told: dict[str, Value] | None) -> None:
        inbox.used_bytes += len(payload)
        is_up = wire is self.up
        if told is not None:
            sender = self.edge_place if is_up else self.verifier_place
            self._tell(sender, "sent", told, num_bytes=len(payload))

        def arrive() -> None:
            if told is not None:
                receiver = self.verifier_place if is_up else self.edge_place
                self._tell(receiver, "arrived", told, num_bytes=len(payload))
            inbox.payloads.append(payload)
            inbox.wake()

        wire.send(len(payload), arrive)

    def _tell(self, place: str, kind: str, told: dict[str, Value], *, num_bytes: int) -> None:
        assert self.log is not None
        self.log.record(self.loop.time(), place, kind, call=self.number, bytes=num_bytes, **told)

    # --- how it ends

    def end_edge(self, code: grpc.StatusCode, details: str) -> None:
        """The edge learns that it is over; the first status counts."""
        if self.status is None:
            self.status = (code, details)
            self.at_edge.wake()
            self.at_verifier.wake()

    def end_verifier(self) -> None:
        """The verifier learns that nobody is there any more: gRPC cancels what serves the call."""
        if not self.gone:
            self.gone = True
            self.at_edge.wake()
            if self.handler is not None:
                self.handler.cancel()

    def finished(self, code: grpc.StatusCode, details: str) -> None:
        """What serves it has come to its end; tell the edge behind all that was written."""
        self.gone = True
        self.down.send(0, lambda: self.end_edge(code, details))


class VirtualLink:
    """The edge's end; see `Link`.

    Args:
        call: of which it is an end.
        address: for messages.
        silence_s: see `paceline.client.settings.ConnectionSettings`.
        on_silence: is called when that time is up: the connection may be as dead as the stream.
    """

    def __init__(
        self,
        call: Call,
        *,
        address: Address,
        silence_s: float,
        on_silence: Callable[[], None] = lambda: None,
    ) -> None:
        self._call = call
        self._address = address
        self._silence_s = silence_s
        self._on_silence = on_silence
        self._up = self._down = 0

    @property
    def payload_bytes_up(self) -> int:
        """Bytes of serialised messages sent so far."""
        return self._up

    @property
    def payload_bytes_down(self) -> int:
        """Bytes of serialised messages received so far."""
        return self._down

    async def send(self, message: EdgeMessage) -> None:
        """See `Link`."""
        call = self._call
        payload = encode_edge(message).SerializeToString()
        if not call.at_verifier.has_room(len(payload)):
            try:
                async with asyncio.timeout(self._silence_s):
                    while call.status is None and not call.at_verifier.has_room(len(payload)):
                        await call.at_verifier.changed()
            except TimeoutError as error:
                raise self._silent("took") from error
        if call.status is not None:
            raise self._ended()
        call.send_up(payload, described(message) if call.log is not None else None)
        self._up += len(payload)

    async def receive(self) -> CloudMessage:
        """See `Link`."""
        inbox = self._call.at_edge
        if not inbox.payloads and self._call.status is None:
            await self._heard(inbox)
        if not inbox.payloads or self._call.closed_by_edge:
            raise self._ended()
        payload = inbox.take()
        self._down += len(payload)
        return parse_cloud(payload)

    async def _heard(self, inbox: Inbox) -> None:
        """Wait until there is something to receive. What `asyncio.timeout` does, for less: it is done for every message."""
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + self._silence_s
        timer = loop.call_at(deadline_s, inbox.wake)
        try:
            while not inbox.payloads and self._call.status is None:
                # A timer may go off so much early, and this one goes off once.
                if loop.time() + RESOLUTION_S > deadline_s:
                    raise self._silent("said")
                await inbox.changed()
        finally:
            timer.cancel()

    async def finish(self) -> None:
        """See `Link`."""
        call = self._call

        def half_close() -> None:
            call.half_closed = True
            call.at_verifier.wake()

        call.up.send(0, half_close)

    async def close(self) -> None:
        """See `Link`."""
        if self._call.status is None:
            self._call.closed_by_edge = True
            self._call.end_edge(grpc.StatusCode.CANCELLED, "the stream was closed on this side")
            self._call.up.send(0, self._call.end_verifier)

    def _ended(self) -> PacelineError:
        assert self._call.status is not None
        code, details = self._call.status
        if self._call.closed_by_edge:
            return LinkClosed(f"{self._address}: {details}")
        return error_of_status(code, f"{self._address}: {details or code.name}")

    def _silent(self, verb: str) -> LinkTimeout:
        self._call.closed_by_edge = True
        self._call.end_edge(grpc.StatusCode.CANCELLED, "it was silent for too long")
        self._call.up.send(0, self._call.end_verifier)
        self._on_silence()
        return LinkTimeout(f"{self._address}: {verb} nothing for {self._silence_s:g} s")


class VirtualContext:
    """The verifier's end; implements `cloud.service.Context`."""

    def __init__(self, call: Call) -> None:
        self._call = call

    async def read(self) -> object:
        """See `Context`."""
        call, inbox = self._call, self._call.at_verifier
        while not inbox.payloads:
            if call.half_closed:
                return grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs
            await inbox.changed()
        return read_edge(inbox.take())

    async def receive(self) -> EdgeMessage | None:
        """Return the next message, None after the last one."""
        request = await self.read()
        if request is grpc.aio.EOF:  # type: ignore[attr-defined]
            return None
        return decode_edge(request)  # type: ignore[arg-type]

    async def write(self, message: Payload, /) -> None:
        """See `Context`."""
        call = self._call
        payload = message.SerializeToString()
        while not call.gone and not call.at_edge.has_room(len(payload)):
            await call.at_edge.changed()
        if call.gone:
            raise grpc.aio.UsageError("the call is over")
        told: dict[str, Value] | None = None
        if call.log is not None:
            told = described(parse_cloud(payload)) if call.is_stream else {"message": "description"}
        call.send_down(payload, told)

    async def abort(self, code: grpc.StatusCode, details: str = "", /) -> NoReturn:
        """See `Context`."""
        self._call.finished(code, details)
        raise grpc.aio.AbortError(details)

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        """See `Context`."""
        return ()

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """See `Context`."""
        return {}
