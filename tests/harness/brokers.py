"""Brokers for tests: the embedded one, and mosquitto as a child process."""

import asyncio
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Protocol

from harness.certificates import Certificates
from harness.processes import Child, free_port

from orchestrator.embedded import embedded_broker
from paceline.settings import Address

# Debian puts it where only root's PATH looks.
MOSQUITTO = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
READY_TIMEOUT_S = 10.0


class BrokerRig(Protocol):
    """A broker that can be stopped and started again at the same address."""

    address: Address

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Without a farewell to its clients, and with all it retained forgotten."""
        ...


class EmbeddedRig:
    """Ours, in this process."""

    def __init__(self) -> None:
        self.address = Address(host="127.0.0.1", port=0)
        self._running = AsyncExitStack()

    async def start(self) -> None:
        self.address = await self._running.enter_async_context(embedded_broker(self.address))

    async def stop(self) -> None:
        await self._running.aclose()


class MosquittoRig:
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
