"""A TCP relay that behaves like a wide-area link: all of simulator.network, idle flows forgotten, cuts. No root rights needed.

    async with Relay(to=parse_address("127.0.0.1:7700"), network=parse_network("lte"), seed=7) as relay:
        ...                         # connect to relay.address
        relay.set_delay(0.1)
        relay.cut()                 # connections reset, new ones refused
        await relay.heal()

All connections share the link (see simulator.link). Exact times depend on the event loop: asyncio's default selector
on Linux rounds timers up to whole milliseconds; `precise_loop` makes one that does not. docs/link.md has measurements.
"""

import asyncio
import contextlib
import dataclasses
import selectors
import socket
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from paceline.errors import ConfigError
from paceline.settings import Address
from simulator.flow import Direction, Flow
from simulator.link import LinkSettings
from simulator.network import Network, NetworkSettings

MAX_FLOWS = 400
"""Most connections at a time; more are closed at once. Two sockets each must stay below the 1024 that select() can wait for."""

_CHANGED = ", changed"

ANY_LOOPBACK_PORT = Address(host="127.0.0.1", port=0)


class CutMode(StrEnum):
    """How a link fails."""

    RESET = "reset"
    """Connections are reset and new ones refused."""

    BLACK_HOLE = "black-hole"
    """Nothing passes and nobody is told. Like TCP's, bytes on their way arrive after the link has healed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RelayStatistics:
    """What a relay has carried so far."""

    up_bytes: int
    """Payload bytes from clients that entered the link."""

    down_bytes: int
    """Payload bytes from the server that entered the link."""

    forgotten_bytes: int
    """Bytes that vanished on flows the link had forgotten."""

    num_connections: int
    """Connections accepted since the start."""

    num_open: int
    """Connections open now."""

    num_lost: int = 0
    """Segments that the link has lost, and sent again as TCP would."""


class Relay:
    """Listens, and carries every connection to `to` over one shared link."""

    def __init__(
        self,
        *,
        to: Address,
        listen: Address = ANY_LOOPBACK_PORT,
        settings: LinkSettings | None = None,
        network: NetworkSettings | None = None,
        seed: int = 0,
    ) -> None:
        """Prepare a relay; `async with` starts it.

        Args:
            to: the server.
            listen: where clients connect; port 0 lets the system choose.
            settings: of the link, each way; none is a link without delay.
            network: of both ways, instead of `settings`.
            seed: of the weather, counted from when the relay starts, and of losses.
        """
        both = settings or LinkSettings()
        self._to = to
        self._listen = listen
        self._passable = asyncio.Event()
        self._passable.set()
        self._is_cut = False
        self._network = Network(network or NetworkSettings(up=both, down=both), seed=seed)
        self._origin_s = 0.0
        self._up, self._down = self._directions()
        self._flows: dict[asyncio.Task[None], Flow] = {}
        self._num_connections = 0
        self._past_forgotten_bytes = 0
        self._past_lost = 0
        self._tasks = asyncio.TaskGroup()
        self._server: asyncio.Server | None = None
        self._reserved: socket.socket | None = None

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        return self._listen.port

    @property
    def address(self) -> Address:
        """Where clients connect."""
        return self._listen

    async def __aenter__(self) -> Self:
        """Start to listen.

        Raises:
            ConfigError: the address cannot be listened at.
        """
        self._reserved = _bind(self._listen)
        self._listen = dataclasses.replace(self._listen, port=self._reserved.getsockname()[1])
        self._origin_s = asyncio.get_running_loop().time()
        self._up, self._down = self._directions()
        await self._tasks.__aenter__()
        try:
            await self._start_listening()
        except OSError:
            self._stop_listening()
            await self._tasks.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening and reset what is open."""
        self._stop_listening()
        self._reset_flows()
        await self._tasks.__aexit__(error_type, error, traceback)

    @property
    def network(self) -> NetworkSettings:
        """The settings of both ways, now."""
        return self._network.settings

    @property
    def origin_s(self) -> float:
        """The time of the loop, the system's monotonic clock, at which the weather was at 0.

        With it, the seed and the times of messages, simulator.network tells what this relay does with them.
        """
        return self._origin_s

    @property
    def state(self) -> str:
        """The name of the cut that holds now, or "open"."""
        if self._is_cut:
            return CutMode.RESET.value
        return "open" if self._passable.is_set() else CutMode.BLACK_HOLE.value

    def round_trip_s(self) -> float:
        """Return what a packet without size would take there and back now, if nothing is lost."""
        return self._network.round_trip_s(self._up.now_s())

    def statistics(self) -> RelayStatistics:
        """Return what was carried so far."""
        flows = self._flows.values()
        return RelayStatistics(
            up_bytes=self._up.carried_bytes,
            down_bytes=self._down.carried_bytes,
            forgotten_bytes=self._past_forgotten_bytes + sum(f.forgotten_bytes for f in flows),
            num_connections=self._num_connections,
            num_open=len(flows),
            num_lost=self._past_lost + sum(f.connection.num_lost for f in flows),
        )

    def change_network(self, network: NetworkSettings) -> None:
        """Replace the settings of both ways; what is in the queue or on its way keeps its times."""
        self._network.settings = network

    def change(self, settings: LinkSettings, *, down: LinkSettings | None = None) -> None:
        """Do the same with the settings of each way, or of the way up and the way down."""
        self.change_network(NetworkSettings(up=settings, down=down or settings))

    def set_delay(self, delay_s: float) -> None:
        """Set the delay of each way: half the shortest round trip time. It ends a recorded series of round trips."""
        self._replace(delay_s=delay_s, series=None)

    def set_bandwidth(self, bandwidth_bps: float | None) -> None:
        """Set the bandwidth of each way in bits per second; none is unlimited. It ends a recorded trace."""
        self._replace(bandwidth_bps=bandwidth_bps, bandwidth_spread=0.0, trace=None)

    def cut(self, mode: CutMode = CutMode.RESET) -> None:
        """Let the link fail until `heal`, which listens at the same port."""
        if mode is CutMode.BLACK_HOLE:
            self._passable.clear()
            return
        self._is_cut = True
        self._stop_listening()
        # Bound but not listening: connections are refused, and the system hands the port to nobody else.
        self._reserved = _bind(self._listen)
        self._reset_flows()

    async def heal(self) -> None:
        """Let the link work again after `cut`; harmless if it does.

        Raises:
            OSError: somebody who insisted listens at the port now.
        """
        self._passable.set()
        if self._server is None:
            await self._start_listening()
        self._is_cut = False

    def _directions(self) -> tuple[Direction, Direction]:
        up, down = (
            Direction(link, passable=self._passable, origin_s=self._origin_s)
            for link in (self._network.up, self._network.down)
        )
        return up, down

    def _replace(self, **fields: Any) -> None:
        now = self._network.settings
        up, down = (dataclasses.replace(way, **fields) for way in (now.up, now.down))
        name = f"{now.name.removesuffix(_CHANGED)}{_CHANGED}"
        self.change_network(NetworkSettings(up=up, down=down, name=name))

    async def _start_listening(self) -> None:
        self._server = await asyncio.start_server(self._accept, sock=self._reserved)
        self._reserved = None  # the server owns it now

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._reserved is not None:
            self._reserved.close()
            self._reserved = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._server is None or len(self._flows) >= MAX_FLOWS:
            writer.transport.abort()
            return
        self._num_connections += 1
        flow = Flow(
            up=self._up,
            down=self._down,
            connection=self._network.connect(),
            client=(reader, writer),
        )
        task = self._tasks.create_task(flow.run(self._to.host, self._to.port))
        self._flows[task] = flow
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[None]) -> None:
        flow = self._flows.pop(task)
        self._past_forgotten_bytes += flow.forgotten_bytes
        self._past_lost += flow.connection.num_lost
        if not flow.client[1].is_closing():
            flow.client[1].transport.abort()  # cancelled before it could start

    def _reset_flows(self) -> None:
        for task in self._flows:
            task.cancel()


def precise_loop() -> asyncio.AbstractEventLoop:
    """Return an event loop whose timers are good to some 0.1 ms, for a process that is only a relay.

    select() takes microseconds where epoll takes whole milliseconds, rounded up. It can wait for 1024 files at most.
    """
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def _bind(address: Address) -> socket.socket:
    """Return a socket bound to the address, not yet listening.

    Raises:
        ConfigError: it cannot be had.
    """
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with contextlib.ExitStack() as stack:
            bound = stack.enter_context(socket.socket(family, kind, protocol))
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            bound.settimeout(0.0)
            bound.bind(target)
            stack.pop_all()
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {address}: {error.strerror}; choose another address, or port 0 for any"
        ) from error
    return bound
