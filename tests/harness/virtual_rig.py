"""A link over a simulated network and the verifier's bare end of it, for the tests that every link must pass."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import grpc
from harness.link_rigs import STATUS_OF_REASON, Peer

from paceline.client.link import Link
from paceline.client.settings import ConnectionSettings
from paceline.codec import encode_cloud
from paceline.errors import PacelineError
from paceline.messages import CloudMessage, EdgeMessage
from paceline.settings import Address
from simulator.network import NetworkSettings
from simulator.virtual.call import Call, VirtualContext
from simulator.virtual.channel import Path
from simulator.virtual.connector import VirtualConnector
from simulator.virtual.machine import MachineClock

ADDRESS = Address(host="10.0.0.1", port=1)


class BareServer:
    """Hands every call to the test."""

    is_listening = True

    def __init__(self) -> None:
        self.calls: asyncio.Queue[Call] = asyncio.Queue()

    def serve(self, call: Call, method: str) -> None:
        del method
        self.calls.put_nowait(call)


class _Peer:
    def __init__(self, call: Call, path: Path) -> None:
        self._call = call
        self._context = VirtualContext(call)
        self._path = path

    async def receive(self) -> EdgeMessage | None:
        return await self._context.receive()

    async def send(self, message: CloudMessage) -> None:
        await self._context.write(encode_cloud(message))

    def end(self, error: PacelineError | None = None) -> None:
        code = STATUS_OF_REASON[error.reason] if error else grpc.StatusCode.OK
        self._call.finished(code, str(error or ""))

    def vanish(self) -> None:
        self._path.cut()


def bare_path(server: BareServer, settings: NetworkSettings | None = None) -> Path:
    return Path(
        places=("edge", "verifier"),
        server=server,
        settings=settings or NetworkSettings(),
        seed=0,
        log=None,
        numbers=itertools.count(1),
    )


@asynccontextmanager
async def virtual_rig(
    *, silence_s: float = 10.0, network: NetworkSettings | None = None
) -> AsyncIterator[tuple[Link, Peer]]:
    server = BareServer()
    path = bare_path(server, network)
    connector = VirtualConnector(
        {ADDRESS: path}, settings=ConnectionSettings(silence_s=silence_s), clock=MachineClock()
    )
    link = await connector.connect(ADDRESS)
    try:
        yield link, _Peer(await server.calls.get(), path)
    finally:
        await link.close()
        await connector.close()
