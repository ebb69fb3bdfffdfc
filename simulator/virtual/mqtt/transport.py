"""A program's way to a simulated broker; see `paceline.mqtt.transport.Transport`. The link above it is the real one."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import grpc

from paceline.beside import running_beside
from paceline.errors import LinkClosed, LinkTimeout, RemoteProtocolError, UnauthenticatedError
from paceline.mqtt.lanes import Letter
from paceline.mqtt.settings import BrokerSettings
from paceline.mqtt.transport import QOS, Deliver
from simulator.virtual.call import Call
from simulator.virtual.channel import Path
from simulator.virtual.mqtt.broker import METHOD, told
from simulator.virtual.mqtt.house import MAX_NUMBER
from simulator.virtual.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Publish,
    Suback,
    Subscribe,
    decode,
    encode,
)

_REFUSED = 0x80


class VirtualTransport:
    """Makes connections over one way. For one life of a program: `kill` ends it.

    Args:
        path: to the broker.
        settings: where it is, and how long to wait for it.
    """

    def __init__(self, path: Path, settings: BrokerSettings) -> None:
        self._path = path
        self._settings = settings
        self._open: set[VirtualConversation] = set()
        self._is_dead = False

    def kill(self) -> None:
        """The program dies: it says and hears nothing more. The way tells the broker."""
        self._is_dead = True
        for conversation in self._open:
            conversation.lose(LinkClosed("the program is dead"))

    @contextlib.asynccontextmanager
    async def connect(
        self, *, identifier: str, will: Letter | None, deliver: Deliver
    ) -> AsyncIterator["VirtualConversation"]:
        """See `Transport`."""
        if self._is_dead:
            raise LinkClosed("the program is dead")
        settings = self._settings
        channel = await self._path.connected_apart(settings.address, within_s=settings.timeout_s)
        if self._is_dead:
            raise LinkClosed("the program is dead")
        call = channel.call(METHOD)
        conversation = VirtualConversation(call, deliver=deliver, timeout_s=settings.timeout_s)
        self._open.add(conversation)
        try:
            async with running_beside(conversation.listen):
                await conversation.enter(
                    Connect(identifier=identifier, will=will, keepalive_s=settings.keepalive_s)
                )
                yield conversation
                conversation.send(Disconnect())
        finally:
            self._open.discard(conversation)
            conversation.close()


class VirtualConversation:
    """One connection; implements `Conversation`.

    Args:
        call: that carries it.
        deliver: is given what comes.
        timeout_s: longest wait for an answer.
    """

    def __init__(self, call: Call, *, deliver: Deliver, timeout_s: float) -> None:
        self._call = call
        self._deliver = deliver
        self._timeout_s = timeout_s
        self._answers: dict[int, asyncio.Future[Packet]] = {}
        """Awaited, by number of the packet; CONNACK has the number 0."""
        self._number = 0
        self._lost = asyncio.Event()
        self._error: LinkClosed | None = None

    async def enter(self, packet: Connect) -> None:
        """Log in.

        Raises:
            LinkClosed: the broker refuses, or the connection broke.
            LinkTimeout: it does not answer.
        """
        answer = await self._ask(packet, number=0)
        if not isinstance(answer, Connack) or answer.code:
            raise LinkClosed(f"the broker refuses the connection: {answer}")

    async def subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        """See `Conversation`."""
        if not filters:
            return
        number = self._next_number()
        answer = await self._ask(Subscribe(number=number, filters=filters), number=number)
        if not isinstance(answer, Suback) or any(code >= _REFUSED for code in answer.codes):
            raise UnauthenticatedError(f"subscription: the broker refuses one of {filters}")

    async def publish(self, letter: Letter) -> None:
        """See `Conversation`."""
        number = self._next_number()
        packet = Publish(
            name=letter.name, payload=letter.payload, qos=QOS, retain=letter.retain, number=number
        )
        await self._ask(packet, number=number)

    async def until_lost(self) -> None:
        """See `Conversation`."""
        await self._lost.wait()
        assert self._error is not None
        raise self._error

    async def listen(self) -> None:
        """Take what the broker says until the connection is over."""
        call, inbox = self._call, self._call.at_edge
        while True:
            while not inbox.payloads:
                if call.status is not None:
                    self.lose(LinkClosed(f"the connection to the broker broke: {call.status[1]}"))
                    return
                await inbox.changed()
            try:
                packet = decode(inbox.take())
            except RemoteProtocolError as error:
                self.lose(LinkClosed(f"the connection to the broker broke: {error}"))
                return
            self._take(packet)

    def send(self, packet: Packet) -> None:
        """Send a packet; nothing if the connection is over."""
        if self._error is None and self._call.status is None:
            log = self._call.log
            self._call.send_up(encode(packet), told(packet) if log is not None else None)

    def lose(self, error: LinkClosed) -> None:
        """End it on this side: nothing is said or heard any more."""
        if self._error is not None:
            return
        self._error = error
        self._lost.set()
        for future in self._answers.values():
            if not future.done():
                future.set_exception(error)

    def close(self) -> None:
        """Close the connection; the broker reads what was sent before, then its end."""
        call = self._call
        self.lose(LinkClosed("the connection was closed on this side"))
        if call.status is None:
            call.end_edge(grpc.StatusCode.CANCELLED, "the connection was closed on this side")

            def half_close() -> None:
                call.half_closed = True
                call.at_verifier.wake()

            call.up.send(0, half_close)

    def _take(self, packet: Packet) -> None:
        match packet:
            case Publish():
                self._deliver(packet.name, packet.payload)
                if packet.qos:
                    self.send(Puback(number=packet.number))
            case Puback() | Suback():
                self._answered(packet.number, packet)
            case Connack():
                self._answered(0, packet)
            case _:
                self.lose(LinkClosed(f"the broker sent {type(packet).__name__}"))

    def _answered(self, number: int, packet: Packet) -> None:
        future = self._answers.get(number)
        if future is not None and not future.done():
            future.set_result(packet)

    async def _ask(self, packet: Packet, *, number: int) -> Packet:
        """Send a packet before anything else is sent; return the answer."""
        if self._error is not None:
            raise self._error
        future: asyncio.Future[Packet] = asyncio.get_running_loop().create_future()
        self._answers[number] = future
        self.send(packet)
        try:
            async with asyncio.timeout(self._timeout_s):
                return await future
        except TimeoutError as error:
            raise LinkTimeout("the broker does not answer") from error
        finally:
            del self._answers[number]
            if future.done() and not future.cancelled():
                future.exception()  # seen, also when it came too late

    def _next_number(self) -> int:
        self._number = self._number % MAX_NUMBER + 1
        return self._number
