"""The way between one edge and one verifier, and the connections that follow one another on it."""

import asyncio
from collections.abc import Callable, Iterator
from enum import Enum, auto
from typing import Protocol

import grpc

from paceline.client.settings import ConnectionSettings
from paceline.errors import LinkClosed, LinkTimeout
from paceline.settings import Address
from simulator.network import Network, NetworkSettings
from simulator.virtual.call import Call
from simulator.virtual.events import EventLog, Value
from simulator.virtual.wire import Mangling, Way, Wire

PING_TIMEOUT_S = 10.0
"""How long an answer to a ping of gRPC may take."""

VERIFIER_PING_S = 20.0
"""How often a verifier pings."""


class PathState(Enum):
    """How a way is."""

    OPEN = auto()
    CUT = auto()
    """Connections are refused."""
    BLACK_HOLE = auto()
    """Nothing passes."""


class Server(Protocol):
    """What listens at an address."""

    @property
    def is_listening(self) -> bool:
        """New connections are taken."""
        ...

    def serve(self, call: Call, method: str) -> None:
        """Begin to serve a call, in a task that becomes its `handler`."""
        ...


class Channel:
    """One connection: what gRPC keeps to one address, shared by all calls.

    Args:
        path: where it is.
    """

    def __init__(self, path: "Path") -> None:
        connection = path.network.connect()
        self.connection = connection
        self.up = Wire(path.up, connection.up)
        self.down = Wire(path.down, connection.down)
        self.calls: dict[int, Call] = {}
        self.is_broken = False
        """The edge makes no further call on it."""
        self._path = path

    def call(self, method: str) -> Call:
        """Return a new call; the verifier hears of it after the way there."""
        path = self._path
        number = next(path.numbers)
        call = Call(
            up=self.up,
            down=self.down,
            places=path.places,
            log=path.log,
            number=number,
            is_stream=method == "Verify",
        )
        self.calls = {
            key: one for key, one in self.calls.items() if one.status is None or not one.gone
        }
        self.calls[number] = call

        def begin() -> None:
            if path.server.is_listening:
                path.server.serve(call, method)
            else:
                call.finished(grpc.StatusCode.UNAVAILABLE, "the verifier is going away")

        self.up.send(0, begin)
        return call

    @property
    def is_over(self) -> bool:
        """Both ends of all calls know that they have ended."""
        return all(call.status is not None and call.gone for call in self.calls.values())

    def suspect(self) -> None:
        """Make no further call on it: a call was silent for too long."""
        self.is_broken = True

    def break_edge(self) -> None:
        """The edge's end is reset."""
        self.is_broken = True
        for call in self.calls.values():
            call.end_edge(grpc.StatusCode.UNAVAILABLE, "the connection was reset")

    def break_verifier(self) -> None:
        """The verifier's end is reset; the edge hears of it when something passes."""
        for call in self.calls.values():
            call.end_verifier()
        self.up.cut()
        self.down.send(0, self.break_edge)

    def cut(self) -> None:
        """Both ends are reset, and what is on its way is lost."""
        self.down.cut()
        self.break_edge()
        self.break_verifier()


class Path:
    """See the module.

    Args:
        places: names of edge and verifier.
        server: at the far end.
        settings: of the link; may change.
        seed: of its weather.
        log: where to tell what happens, if anywhere.
        numbers: gives calls their numbers.
        patience_s: when the server's end gives up a connection that has become silent.
    """

    def __init__(  # noqa: PLR0913 - what a way is made of, each under its name
        self,
        *,
        places: tuple[str, str],
        server: Server,
        settings: NetworkSettings,
        seed: int,
        log: EventLog | None,
        numbers: Iterator[int],
        patience_s: float = VERIFIER_PING_S + PING_TIMEOUT_S,
    ) -> None:
        self.places = places
        self._patience_s = patience_s
        self.numbers = numbers
        self.server = server
        self.network = Network(settings, seed=seed)
        self.up = Way()
        self.down = Way()
        self.log = log
        self.state = PathState.OPEN
        self.channels: list[Channel] = []
        """The newest last; older ones may still have something on its way."""
        self._settings = settings
        self._healed = asyncio.Event()
        self._num_holes = 0

    # --- the edge's side

    @property
    def channel(self) -> Channel | None:
        """The connection in use."""
        channel = self.channels[-1] if self.channels else None
        return None if channel is None or channel.is_broken else channel

    async def connected(self, address: Address, settings: ConnectionSettings) -> Channel:
        """Return the connection; make one if there is none.

        Raises:
            LinkClosed: nobody listens, or the way is cut.
            LinkTimeout: no answer comes.
        """
        if self.channel is not None:
            return self.channel
        fresh = await self._opened(address, within_s=settings.connect_s)
        # Another task may have been faster; its connection serves as well as ours.
        if self.channel is None:
            self.channels = [*self.channels[-3:], fresh]
            self._tell("connected")
        assert self.channel is not None
        return self.channel

    async def connected_apart(self, address: Address, *, within_s: float) -> Channel:
        """Return a connection of the caller's own, beside those there are.

        Raises:
            LinkClosed: nobody listens, or the way is cut.
            LinkTimeout: no answer comes.
        """
        fresh = await self._opened(address, within_s=within_s)
        self.channels = [*(one for one in self.channels if not one.is_over), fresh]
        self._tell("connected")
        return fresh

    async def _opened(self, address: Address, *, within_s: float) -> Channel:
        try:
            async with asyncio.timeout(within_s):
                return await self._open(address)
        except TimeoutError as error:
            raise LinkTimeout(f"{address}: no connection within {within_s:g} s") from error

    async def _open(self, address: Address) -> Channel:
        loop = asyncio.get_running_loop()
        channel = Channel(self)
        await self._healed_from_hole()
        started_s = loop.time()
        opens_s = channel.connection.opens_at(started_s)
        await asyncio.sleep(opens_s - started_s)
        await self._healed_from_hole()
        if self.state is PathState.CUT or not self.server.is_listening:
            raise LinkClosed(f"{address}: connection refused")
        return channel

    async def _healed_from_hole(self) -> None:
        while self.state is PathState.BLACK_HOLE:
            await self._healed.wait()

    # --- what a fault does to it

    def cut(self) -> None:
        """Reset every connection and refuse new ones."""
        self._change(PathState.CUT)
        for channel in self.channels:
            channel.cut()
        self.channels = []

    def black_hole(self, *, keepalive_s: float) -> None:
        """Let nothing pass and tell nobody. Pings that are not answered end connections after a while.

        Args:
            keepalive_s: how often the edge pings.
        """
        self._change(PathState.BLACK_HOLE)
        self._num_holes += 1
        hole = self._num_holes
        channels = list(self.channels)

        def later(action: Callable[[Channel], None]) -> Callable[[], None]:
            def give_up() -> None:
                if self.state is PathState.BLACK_HOLE and self._num_holes == hole:
                    for channel in channels:
                        action(channel)

            return give_up

        loop = asyncio.get_running_loop()
        loop.call_later(keepalive_s + PING_TIMEOUT_S, later(Channel.break_edge))
        loop.call_later(self._patience_s, later(Channel.break_verifier))

    def lose_edge(self) -> None:
        """Break the connection at the edge's end; the verifier does not hear of it until its pings fail."""
        self._tell("half open")
        channels, self.channels = self.channels, []
        loop = asyncio.get_running_loop()
        for channel in channels:
            channel.break_edge()
            channel.up.cut()
            channel.down.cut()
            loop.call_later(self._patience_s, channel.break_verifier)

    def heal(self) -> None:
        """Let everything pass as at first."""
        self._change(PathState.OPEN)
        self.network.settings = self._settings
        for channel in self.channels:
            channel.up.healed()
            channel.down.healed()

    def change(self, settings: NetworkSettings) -> None:
        """Give the link other settings until it heals."""
        self._tell("changed", network=settings.name)
        self.network.settings = settings

    def mangle(self, mangling: Mangling, *, is_up: bool) -> None:
        """Do this to the next message in a direction."""
        self._tell("mangles", how=mangling.name.lower(), up=is_up)
        (self.up if is_up else self.down).mangling.append(mangling)

    # --- a program dies

    def edge_died(self) -> None:
        """The edge's machine ends its connections, as it does when a program dies."""
        for channel in self.channels:
            channel.is_broken = True
            channel.up.send(0, channel.break_verifier)
            channel.up.shut()

    def verifier_died(self) -> None:
        """The same at the other end."""
        for channel in self.channels:
            channel.down.send(0, channel.break_edge)
            channel.down.shut()

    def _change(self, state: PathState) -> None:
        self.state = state
        is_passable = state is not PathState.BLACK_HOLE
        self.up.is_passable = self.down.is_passable = is_passable
        if is_passable:
            self._healed.set()
            self._healed = asyncio.Event()
        self._tell(state.name.lower().replace("_", " "))

    def _tell(self, kind: str, **fields: Value) -> None:
        if self.log is not None:
            edge, verifier = self.places
            self.log.record(asyncio.get_running_loop().time(), f"{edge}-{verifier}", kind, **fields)
