"""Brokers for tests: the embedded one, mosquitto as a child process, and the simulated one, which needs virtual time."""

import asyncio
import itertools
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import aiomqtt
from harness.certificates import Certificates
from harness.control import quick
from harness.processes import Child, free_port

from orchestrator.embedded import embedded_broker
from paceline.errors import LinkClosed
from paceline.mqtt.connection import SocketTransport
from paceline.mqtt.lanes import Letter
from paceline.mqtt.link import ControlLink, Will, control_link
from paceline.mqtt.transport import QOS, Conversation, Transport
from paceline.settings import Address
from paceline.topics import Topic
from simulator.link import LinkSettings
from simulator.network import NetworkSettings
from simulator.relay import CutMode, Relay
from simulator.virtual import channel
from simulator.virtual.mqtt.broker import PATIENCE_S, SimulatedBroker
from simulator.virtual.mqtt.house import BrokerSettings
from simulator.virtual.mqtt.transport import VirtualTransport

# Debian puts it where only root's PATH looks.
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
READY_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way to a broker that can be cut."""

    transport: Transport
    cut: Callable[[], None]
    heal: Callable[[], Awaitable[None]]


class RawClient(Protocol):
    """A client that is no link of ours."""

    async def publish(self, name: str, payload: bytes, *, qos: int, retain: bool) -> None: ...

    async def until_lost(self) -> None: ...


class BrokerRig(Protocol):
    """A broker that can be stopped and started again at the same address."""

    address: Address

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Without a farewell to its clients, and with all it retained forgotten."""
        ...

    def transport(self) -> Transport:
        """Return a new way to it, for one link."""
        ...

    def way(self) -> AbstractAsyncContextManager[Way]:
        """Give one that can be cut."""
        ...

    def raw(
        self, identifier: str, *, will: Letter | None = None
    ) -> AbstractAsyncContextManager[RawClient]:
        """Give a client that does as the test says."""
        ...


def rig_link(
    rig: BrokerRig,
    *,
    name: str,
    will: Will | None = None,
    subscriptions: tuple[Topic, ...] = (),
    transport: Transport | None = None,
) -> AbstractAsyncContextManager[ControlLink]:
    """Return a real link to a rig's broker, whatever that is."""
    return control_link(
        quick(rig.address),
        name=name,
        will=will,
        subscriptions=subscriptions,
        generator=random.Random(name),
        transport=transport or rig.transport(),
    )


class _SocketRig:
    """What rigs with an address have in common."""

    address: Address

    def transport(self) -> Transport:
        return SocketTransport(quick(self.address))

    @asynccontextmanager
    async def way(self) -> AsyncIterator[Way]:
        async with Relay(to=self.address, settings=LinkSettings()) as relay:
            yield Way(
                transport=SocketTransport(quick(relay.address)),
                cut=lambda: relay.cut(CutMode.RESET),
                heal=relay.heal,
            )

    @asynccontextmanager
    async def raw(self, identifier: str, *, will: Letter | None = None) -> AsyncIterator[RawClient]:
        async with aiomqtt.Client(
            self.address.host,
            self.address.port,
            identifier=identifier,
            will=None
            if will is None
            else aiomqtt.Will(will.name, will.payload, qos=QOS, retain=will.retain),
        ) as client:
            yield _RawSocket(client)


class _RawSocket:
    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def publish(self, name: str, payload: bytes, *, qos: int, retain: bool) -> None:
        await self._client.publish(name, payload, qos=qos, retain=retain)

    async def until_lost(self) -> None:
        with suppress(aiomqtt.MqttError):
            await anext(self._client.messages)


class EmbeddedRig(_SocketRig):
    """Ours, in this process."""

    def __init__(self) -> None:
        self.address = Address(host="127.0.0.1", port=0)
        self._running = AsyncExitStack()

    async def start(self) -> None:
        self.address = await self._running.enter_async_context(embedded_broker(self.address))

    async def stop(self) -> None:
        await self._running.aclose()


class MosquittoRig(_SocketRig):
    """mosquitto, killed when it is stopped.

    Args:
        folder: where its configuration is written.
        more: lines of its configuration.
    """

    def __init__(self, folder: Path, *more: str) -> None:
        self.address = Address(host="127.0.0.1", port=free_port())
        self._file = folder / "mosquitto.conf"
        has_users = any(line.startswith("password_file") for line in more)
        lines = (
            f"listener {self.address.port} {self.address.host}",
            f"allow_anonymous {str(not has_users).lower()}",
            "user root",
            "persistence false",
            "log_dest stderr",
            "log_type information",
            "log_type error",
            *more,
        )
        self._file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        self._child: Child | None = None

    async def start(self) -> None:
        assert MOSQUITTO is not None
        process = subprocess.Popen(  # noqa: ASYNC220 - its start takes milliseconds
            [MOSQUITTO, "-c", str(self._file)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._child = Child(process)
        self._child.wait_for_stderr("running", timeout_s=READY_TIMEOUT_S)

    async def stop(self) -> None:
        if self._child is not None:
            self._child.kill()
            self._child = None


class VirtualRig:
    """The simulated broker; the ways to it take no time. For a test that runs in virtual time."""

    def __init__(self, group: asyncio.TaskGroup, *, settings: BrokerSettings | None = None) -> None:
        self.address = Address(host="10.0.2.1", port=1883)
        self.broker = SimulatedBroker(
            address=self.address, settings=settings or BrokerSettings(), tell=None
        )
        self._group = group
        self._numbers = itertools.count(1)

    async def start(self) -> None:
        self.broker.start(self._group)

    async def stop(self) -> None:
        self.broker.kill()

    def path(self, network: NetworkSettings | None = None) -> channel.Path:
        path = channel.Path(
            places=("program", "broker"),
            server=self.broker,
            settings=network or NetworkSettings(),
            seed=next(self._numbers),
            log=None,
            numbers=self._numbers,
            patience_s=PATIENCE_S,
        )
        self.broker.paths.append(path)
        return path

    def over(self, path: channel.Path) -> Transport:
        return VirtualTransport(path, quick(self.address))

    def transport(self) -> Transport:
        return self.over(self.path())

    @asynccontextmanager
    async def way(self) -> AsyncIterator[Way]:
        path = self.path()

        async def heal() -> None:
            path.heal()

        yield Way(transport=VirtualTransport(path, quick(self.address)), cut=path.cut, heal=heal)

    @asynccontextmanager
    async def raw(self, identifier: str, *, will: Letter | None = None) -> AsyncIterator[RawClient]:
        transport = VirtualTransport(self.path(), quick(self.address))
        with suppress(LinkClosed):  # it may have been put out
            async with transport.connect(
                identifier=identifier, will=will, deliver=lambda _name, _payload: None
            ) as conversation:
                yield _RawVirtual(conversation)


class _RawVirtual:
    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation

    async def publish(self, name: str, payload: bytes, *, qos: int, retain: bool) -> None:
        del qos  # its clients say everything with 1
        await self._conversation.publish(Letter(name=name, payload=payload, retain=retain))

    async def until_lost(self) -> None:
        with suppress(LinkClosed):
            await self._conversation.until_lost()


@asynccontextmanager
async def running_rig(rig: BrokerRig) -> AsyncIterator[BrokerRig]:
    """Start it; stop it when left, whatever happens."""
    try:
        await rig.start()
        yield rig
    finally:
        await rig.stop()


def tls_lines(certificates: Certificates) -> tuple[str, ...]:
    """Return the lines with which mosquitto speaks TLS and asks for a client's certificate."""
    return (
        f"cafile {certificates.authority}",
        f"certfile {certificates.server}",
        f"keyfile {certificates.server_key}",
        "require_certificate true",
        "use_identity_as_username true",
    )


def password_lines(folder: Path, *, user: str, password: str) -> tuple[str, ...]:
    """Return the lines with which mosquitto asks for a password."""
    file = folder / "passwords"
    program = shutil.which("mosquitto_passwd", path="/usr/bin:/usr/local/bin")
    assert program is not None
    subprocess.run([program, "-b", "-c", str(file), user, password], check=True)
    return (f"password_file {file}",)


class StuckBroker:
    """Takes connections and lets clients in, or not even that; never answers again.

    Args:
        lets_in: it does.
        refuses: it answers one thing more: that a subscription is refused.
    """

    def __init__(self, *, lets_in: bool, refuses: bool = False) -> None:
        self._lets_in = lets_in
        self._refuses = refuses
        self.num_connections = 0
        self.num_open = 0

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Address]:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self.num_connections += 1
            self.num_open += 1
            await reader.read(1)
            if self._lets_in:
                writer.write(b"\x20\x02\x00\x00")  # CONNACK: accepted
            while data := await reader.read(4096):
                at = data.find(b"\x82")
                if self._refuses and at >= 0:
                    writer.write(b"\x90\x03" + data[at + 2 : at + 4] + b"\x80")
            writer.close()
            self.num_open -= 1

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            yield Address(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
