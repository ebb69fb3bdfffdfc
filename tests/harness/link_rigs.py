"""A link and the verifier's bare end of it, in memory and over gRPC, for the tests that both kinds must pass."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import grpc
from harness.relay import threaded_relay
from harness.toy_verifier import SMALL_LIMITS, toy_identity

from paceline.client.grpc_link import GrpcConnector
from paceline.client.link import Link
from paceline.client.memory import memory_link
from paceline.client.settings import ConnectionSettings
from paceline.codec import decode_edge, encode_cloud, encode_identity, encode_limits
from paceline.errors import PacelineError
from paceline.messages import CloudMessage, EdgeMessage
from paceline.settings import Address
from paceline.v1 import verification_pb2 as pb
from paceline.v1 import verification_pb2_grpc as services
from simulator.network import NetworkSettings

STATUS_OF_REASON = {
    "OVERLOADED": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "UNAUTHENTICATED": grpc.StatusCode.UNAUTHENTICATED,
}


class Peer(Protocol):
    """The verifier's end."""

    async def receive(self) -> EdgeMessage | None: ...

    async def send(self, message: CloudMessage) -> None: ...

    def end(self, error: PacelineError | None = None) -> None: ...

    def vanish(self) -> None: ...


class Rig(Protocol):
    """Makes a link and its peer."""

    def __call__(
        self, *, silence_s: float = 10.0
    ) -> AbstractAsyncContextManager[tuple[Link, Peer]]: ...


@asynccontextmanager
async def memory_rig(*, silence_s: float = 10.0) -> AsyncIterator[tuple[Link, Peer]]:
    link, peer = memory_link(silence_s=silence_s)
    try:
        yield link, peer
    finally:
        await link.close()


class _GrpcPeer:
    """One stream of a server; `ended` is set when the test is done with it."""

    def __init__(self, context: Any, server: Any) -> None:
        self._context = context
        self._server = server
        self.ended = asyncio.Event()
        self.error: PacelineError | None = None

    async def receive(self) -> EdgeMessage | None:
        request = await self._context.read()
        return decode_edge(request) if isinstance(request, pb.VerifyRequest) else None

    async def send(self, message: CloudMessage) -> None:
        await self._context.write(encode_cloud(message))

    def end(self, error: PacelineError | None = None) -> None:
        self.error = error
        self.ended.set()

    def vanish(self) -> None:
        self._server.vanishing.set()


class PeerService(services.VerificationServiceServicer):
    """Hands every stream to the test."""

    def __init__(self) -> None:
        self.peers: asyncio.Queue[_GrpcPeer] = asyncio.Queue(maxsize=16)
        self.vanishing = asyncio.Event()
        self.metadata: list[dict[str, str]] = []

    async def Describe(self, request: Any, context: Any) -> pb.DescribeResponse:  # noqa: N802
        self.metadata.append(dict(context.invocation_metadata()))
        return pb.DescribeResponse(
            protocol_version=7,
            target=encode_identity(toy_identity(24)),
            limits=encode_limits(SMALL_LIMITS),
        )

    async def Verify(  # type: ignore[override]  # noqa: N802 - the stub knows iterators only
        self, request_iterator: Any, context: Any
    ) -> None:
        self.metadata.append(dict(context.invocation_metadata()))
        peer = _GrpcPeer(context, self)
        self.peers.put_nowait(peer)
        await peer.ended.wait()
        if peer.error is not None:
            await context.abort(STATUS_OF_REASON[peer.error.reason], str(peer.error))


@asynccontextmanager
async def serving(
    service: PeerService, *, credentials: grpc.ServerCredentials | None = None
) -> AsyncIterator[Address]:
    """Run a gRPC server; it stops hard, at the end or when a peer vanishes."""
    server = grpc.aio.server()
    services.add_VerificationServiceServicer_to_server(service, server)
    if credentials is None:
        port = server.add_insecure_port("127.0.0.1:0")
    else:
        port = server.add_secure_port("127.0.0.1:0", credentials)
    await server.start()

    async def vanish() -> None:
        await service.vanishing.wait()
        await server.stop(grace=None)

    # No task group: it would wrap what the tests raise and expect.
    stopping = asyncio.get_running_loop().create_task(vanish())
    try:
        yield Address(host="127.0.0.1", port=port)
    finally:
        service.vanishing.set()
        await stopping


@asynccontextmanager
async def grpc_rig(
    *, silence_s: float = 10.0, network: NetworkSettings | None = None
) -> AsyncIterator[tuple[Link, Peer]]:
    """A real connection; over a relay if there is a network to emulate."""
    service = PeerService()
    async with AsyncExitStack() as stack:
        address = await stack.enter_async_context(serving(service))
        if network is not None:
            address = stack.enter_context(threaded_relay(address, network=network)).address
        connector = GrpcConnector(ConnectionSettings(silence_s=silence_s))
        try:
            link = await connector.connect(address)
            try:
                async with asyncio.timeout(10):
                    yield link, await service.peers.get()
            finally:
                await link.close()
        finally:
            await connector.close()
