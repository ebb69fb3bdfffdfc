"""Changes an emulated link while it runs, over a socket of this machine.

One JSON object a line, each answered by one line:

    {"do": "rtt", "value": "200ms"}   ->  {"ok": true, "state": "open", "network": "lte, changed", ...}
    {"do": "fly"}                     ->  {"ok": false, "error": "do 'fly' is not known; ..."}

Whoever can connect can control the link, hence loopback only. Everything is bounded: the length of a line, the number
of connections, how long one may be silent. What is no JSON object ends the connection, so that a web page, which can
make a browser send a request here, cannot smuggle a command in behind the header.
"""

import asyncio
import dataclasses
import json
import socket
from dataclasses import dataclass
from enum import StrEnum
from types import TracebackType
from typing import Any, Self

from paceline.errors import ConfigError, LinkClosed, PacelineError, RemoteProtocolError
from paceline.settings import Address, parse_duration, unknown_name
from simulator.notation import parse_network, refuse_recordings
from simulator.relay import CutMode, Relay

MAX_LINE_BYTES = 4096
MAX_ANSWER_BYTES = 64 * 1024
MAX_CONNECTIONS = 8
"""More are closed at once."""

SILENCE_S = 30.0
"""A connection that sends no whole line for so long is closed."""

ASK_TIMEOUT_S = 5.0


class Action(StrEnum):
    """What can be done to a link."""

    STATUS = "status"
    CUT = "cut"
    BLACK_HOLE = "black-hole"
    HEAL = "heal"
    RTT = "rtt"
    NETWORK = "network"


WITH_VALUE = (Action.RTT, Action.NETWORK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One thing to do."""

    action: Action
    value: str = ""
    """A duration for RTT; for NETWORK what simulator.notation reads."""

    def __post_init__(self) -> None:
        """Check that there is a value where one is needed, and none elsewhere."""
        if (self.action in WITH_VALUE) != bool(self.value):
            expected = "a value" if self.action in WITH_VALUE else "none"
            raise ConfigError(f"value: got {self.value!r} for {self.action}, expected {expected}")


def parse_request(line: bytes) -> Request:
    """Return what a line asks for.

    Raises:
        RemoteProtocolError: it is no JSON object; nothing behind it can be trusted to be one.
        ConfigError: it is one, with an unknown or missing key or a wrong value.
    """
    try:
        wanted = json.loads(line)
    except (ValueError, RecursionError):
        wanted = None
    if not isinstance(wanted, dict):
        raise RemoteProtocolError("got a line that is no JSON object, expected one")
    for key, value in wanted.items():
        if key not in ("do", "value"):
            raise unknown_name(key, ("do", "value"), what="key")
        if not isinstance(value, str):
            raise ConfigError(f"{key}: got a {type(value).__name__}, expected text")
    name = wanted.get("do", "")
    if name not in list(Action):
        raise unknown_name(name, list(Action), what="do")
    return Request(action=Action(name), value=wanted.get("value", ""))


async def perform(request: Request, relay: Relay) -> None:
    """Do it.

    Raises:
        ConfigError: the value is wrong; nothing has changed.
        OSError: the link cannot listen again.
    """
    match request.action:
        case Action.CUT:
            relay.cut()
        case Action.BLACK_HOLE:
            relay.cut(CutMode.BLACK_HOLE)
        case Action.HEAL:
            await relay.heal()
        case Action.RTT:
            relay.set_delay(parse_duration(request.value) / 2.0)
        case Action.NETWORK:
            relay.change_network(parse_network(request.value, read=refuse_recordings))
        case Action.STATUS:
            pass


class ControlSocket:
    """Listens, and lets programs of this machine control a relay."""

    def __init__(self, relay: Relay, *, listen: Address) -> None:
        """Prepare it; `async with` starts it.

        Raises:
            ConfigError: other machines could reach the address.
        """
        if not listen.is_loopback:
            raise ConfigError(
                f"control: got {listen}, expected an address of this machine only, 127.0.0.1:0 for example: "
                "whoever reaches it controls the link"
            )
        self._relay = relay
        self._listen = listen
        self._tasks = asyncio.TaskGroup()
        self._open: set[asyncio.Task[None]] = set()
        self._turn = asyncio.Lock()
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> Address:
        """Where it listens."""
        return self._listen

    async def __aenter__(self) -> Self:
        """Start to listen.

        Raises:
            ConfigError: the address cannot be listened at.
        """
        try:
            self._server = await asyncio.start_server(
                self._accept, self._listen.host, self._listen.port, limit=MAX_LINE_BYTES
            )
        except OSError as error:
            raise ConfigError(
                f"control: cannot listen at {self._listen}: {error.strerror}; choose another port, or 0 for any"
            ) from error
        port = self._server.sockets[0].getsockname()[1]
        self._listen = dataclasses.replace(self._listen, port=port)
        await self._tasks.__aenter__()
        return self

    async def __aexit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop listening and close what is open."""
        assert self._server is not None
        self._server.close()
        for task in self._open:
            task.cancel()
        await self._tasks.__aexit__(error_type, error, traceback)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MAX_CONNECTIONS:
            writer.transport.abort()
            return
        task = self._tasks.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer line after line until the client goes, is silent for too long, or talks nonsense."""
        try:
            goes_on = True
            while goes_on:
                async with asyncio.timeout(SILENCE_S):
                    line = await reader.readline()
                if not line.endswith(b"\n"):
                    break
                answer, goes_on = await self._answer(line)
                writer.write(json.dumps(answer).encode() + b"\n")
                async with asyncio.timeout(SILENCE_S):
                    await writer.drain()
        except (OSError, TimeoutError, ValueError):  # ValueError: a line above the limit
            pass
        finally:
            writer.close()

    async def _answer(self, line: bytes) -> tuple[dict[str, Any], bool]:
        """Return the answer to a line and whether another one may follow."""
        try:
            request = parse_request(line)
            async with self._turn:
                await perform(request, self._relay)
        except RemoteProtocolError as error:
            return {"ok": False, "error": str(error)}, False
        except (PacelineError, OSError) as error:
            return {"ok": False, "error": str(error)}, True
        return {"ok": True, **self._status()}, True

    def _status(self) -> dict[str, Any]:
        relay = self._relay
        return {
            "state": relay.state,
            "network": relay.network.name,
            "rtt_s": relay.round_trip_s(),
            **dataclasses.asdict(relay.statistics()),
        }


def ask(address: Address, request: Request) -> dict[str, Any]:
    """Ask a control socket and return its answer.

    Raises:
        LinkClosed: nothing answers there.
        RemoteProtocolError: what answers is no control socket.
        ConfigError: it refused; the message is its own.
    """
    line = json.dumps({"do": request.action, "value": request.value}).encode() + b"\n"
    try:
        with socket.create_connection((address.host, address.port), ASK_TIMEOUT_S) as asking:
            asking.sendall(line)
            with asking.makefile("rb") as answers:
                answer_line = answers.readline(MAX_ANSWER_BYTES)
    except OSError as error:
        raise LinkClosed(
            f"control: nothing answers at {address}: {error}; start the link with --control {address}"
        ) from error
    try:
        answer = json.loads(answer_line)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict) or not isinstance(answer.get("ok"), bool):
        raise RemoteProtocolError(
            f"control: {address} is no control socket of a link; check what --control was given there"
        )
    if not answer["ok"]:
        raise ConfigError(f"control: {answer.get('error')}")
    return answer
