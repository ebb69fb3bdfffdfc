"""Links over gRPC.

What gRPC raises is translated here, by the table in `paceline.client.status`, and nowhere else.
"""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any

import grpc

from paceline.client.channel import open_channel, read_credentials
from paceline.client.link import VerifierInfo
from paceline.client.settings import ConnectionSettings
from paceline.client.status import error_of_status
from paceline.clock import Clock, MonotonicClock
from paceline.codec import decode_cloud, decode_identity, decode_limits, encode_edge
from paceline.errors import LinkClosed, LinkTimeout, PacelineError, TransportError
from paceline.messages import CloudMessage, EdgeMessage
from paceline.settings import Address, parse_address
from paceline.v1 import verification_pb2 as pb
from paceline.v1 import verification_pb2_grpc as services


class GrpcLink:
    """A stream over gRPC.

    Args:
        call: the bidirectional stream.
        address: for messages.
        silence_s: see `ConnectionSettings`.
        on_silence: is called when that time is up: the connection may be as dead as the stream.
    """

    def __init__(
        self, call: Any, *, address: Address, silence_s: float, on_silence: Callable[[], None]
    ) -> None:
        self._call = call
        self._on_silence = on_silence
        self._address = address
        self._silence_s = silence_s
        self._up = self._down = 0
        self._is_closed = False
        self._write_failed = False

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
        request = encode_edge(message)
        try:
            async with asyncio.timeout(self._silence_s):
                await self._call.write(request)
        except TimeoutError as error:
            raise self._silent("took") from error
        except asyncio.InvalidStateError as error:  # the stream is over; its status says why
            raise await self._ended() from error
        except grpc.aio.AioRpcError as error:
            self._write_failed = True
            raise self._error(error.code(), error.details()) from error
        except asyncio.CancelledError as error:
            self._raise_if_closed(error)
            raise
        self._up += request.ByteSize()

    async def receive(self) -> CloudMessage:
        """See `Link`."""
        try:
            async with asyncio.timeout(self._silence_s):
                response = await self._read()
        except TimeoutError as error:
            raise self._silent("said") from error
        except asyncio.InvalidStateError as error:
            raise await self._ended() from error
        except grpc.aio.AioRpcError as error:
            raise self._error(error.code(), error.details()) from error
        except asyncio.CancelledError as error:
            self._raise_if_closed(error)
            raise
        if response is grpc.aio.EOF:  # type: ignore[attr-defined]  # missing in the stubs
            raise await self._ended()
        self._down += response.ByteSize()
        return decode_cloud(response)

    async def finish(self) -> None:
        """See `Link`."""
        try:
            async with asyncio.timeout(self._silence_s):
                await self._call.done_writing()
        except (TimeoutError, asyncio.InvalidStateError, grpc.aio.AioRpcError):
            await self.close()  # over already, or as good as

    async def close(self) -> None:
        """See `Link`."""
        self._is_closed = True
        self._call.cancel()
        if self._write_failed:
            # To gRPC the call is over already, and it cancels nothing; its task would wait for ever for a status that
            # comes after messages that nobody reads.
            self._call._cython_call.cancel("closed")  # noqa: SLF001

    async def _read(self) -> Any:
        if not self._write_failed:
            return await self._call.read()
        # The write met a stream that the verifier had ended. gRPC calls that INTERNAL and reads no further, though the
        # reason lies in messages that have arrived: below its public interface they can still be read.
        payload = await self._call._cython_call.receive_serialized_message()  # noqa: SLF001
        is_end = payload is grpc.aio.EOF  # type: ignore[attr-defined]  # missing in the stubs
        return payload if is_end else pb.VerifyResponse.FromString(payload)

    def _raise_if_closed(self, error: asyncio.CancelledError) -> None:
        """Tell apart the two reasons for a cancelled call: `close`, and that this very task is cancelled."""
        task = asyncio.current_task()
        if self._is_closed and task is not None and not task.cancelling():
            raise LinkClosed(f"{self._address}: the stream was closed on this side") from error

    async def _ended(self) -> PacelineError:
        """Return why a stream that is over is over."""
        if self._is_closed or self._call.cancelled():
            return LinkClosed(f"{self._address}: the stream was closed on this side")
        # The status is there already, or comes at once: whoever asks knows that the call is over.
        try:
            async with asyncio.timeout(self._silence_s):
                return self._error(await self._call.code(), await self._call.details())
        except TimeoutError:
            return self._silent("said")

    def _error(self, code: grpc.StatusCode, details: str | None) -> PacelineError:
        return error_of_status(code, f"{self._address}: {details or code.name}")

    def _silent(self, verb: str) -> LinkTimeout:
        self._is_closed = True  # gRPC has cancelled the call together with the wait
        self._on_silence()
        return LinkTimeout(f"{self._address}: {verb} nothing for {self._silence_s:g} s")


@dataclass(slots=True, kw_only=True)
class _Connection:
    """One channel and the calls on it."""

    channel: grpc.aio.Channel
    calls: list[Any] = field(default_factory=list)
    is_suspect: bool = False

    def suspect(self) -> None:
        """Make no further stream on it: a flow that a NAT has forgotten looks alive until pings fail."""
        self.is_suspect = True

    @property
    def is_ready(self) -> bool:
        return not self.is_suspect and self.channel.get_state() is grpc.ChannelConnectivity.READY

    @property
    def open_calls(self) -> list[Any]:
        return [call for call in self.calls if not call.done()]


class GrpcConnector:
    """Makes links over gRPC: one connection per verifier, shared by all streams to it, replaced when it breaks.

    Raises:
        ConfigError: a certificate cannot be read.
    """

    def __init__(self, settings: ConnectionSettings, *, clock: Clock | None = None) -> None:
        self._settings = settings
        self._credentials = read_credentials(settings)
        self._clock = clock or MonotonicClock()
        self._current: dict[Address, _Connection] = {}
        self._retired: list[_Connection] = []
        token = settings.token
        self._metadata = (("authorization", f"Bearer {token}"),) if token else ()

    async def connect(self, address: Address) -> GrpcLink:
        """See `Connector`."""
        connection = await self._ready(address)
        stub: Any = services.VerificationServiceStub(connection.channel)
        call = stub.Verify(metadata=self._metadata)
        connection.calls = [*connection.open_calls, call]
        return GrpcLink(
            call,
            address=address,
            silence_s=self._settings.silence_s,
            on_silence=connection.suspect,
        )

    async def describe(self, address: Address) -> VerifierInfo:
        """See `Connector`."""
        connection = await self._ready(address)
        stub: Any = services.VerificationServiceStub(connection.channel)
        started_s = self._clock.now_s()
        call = stub.Describe(pb.DescribeRequest(), metadata=self._metadata)
        # Counted like a stream: a channel that is closed under a call cancels the task that waits for it.
        connection.calls = [*connection.open_calls, call]
        try:
            async with asyncio.timeout(self._settings.connect_s):
                answer = await call
        except TimeoutError as error:
            connection.suspect()
            raise LinkTimeout(
                f"{address}: no answer within {self._settings.connect_s:g} s"
            ) from error
        except grpc.aio.AioRpcError as error:
            details = error.details() or error.code().name
            raise error_of_status(error.code(), f"{address}: {details}") from error
        return VerifierInfo(
            address=address,
            target=decode_identity(answer.target),
            limits=decode_limits(answer.limits),
            protocol_version=answer.protocol_version,
            rtt_s=self._clock.now_s() - started_s,
        )

    async def keep_only(self, addresses: Collection[Address]) -> None:
        """See `Connector`."""
        for address in set(self._current).difference(addresses):
            self._retired.append(self._current.pop(address))
        await self._sweep()

    async def close(self) -> None:
        """See `Connector`."""
        connections = [*self._current.values(), *self._retired]
        self._current, self._retired = {}, []
        for connection in connections:
            await connection.channel.close(grace=None)

    async def _ready(self, address: Address) -> "_Connection":
        """Return what is connected: what there is, or a new one.

        One that is not ready is not used again: it would wait by its own rules before it tries again, and how long to
        wait is `paceline.client.backoff`'s business. It may still carry streams of a verifier that is going away.
        """
        connection = self._current.get(address)
        if connection is not None and connection.is_ready:
            return connection
        if connection is not None:
            self._retired.append(self._current.pop(address))
        await self._sweep()
        fresh = _Connection(channel=open_channel(address, self._settings, self._credentials))
        try:
            await self._wait_until_ready(fresh.channel, address)
        except BaseException:
            await fresh.channel.close(grace=None)
            raise
        # Another task may have been faster; its connection serves as well as ours.
        connection = self._current.setdefault(address, fresh)
        if connection is not fresh:
            # Closed with the next sweep: while we waited for that, the other one might be retired and closed.
            self._retired.append(fresh)
        return connection

    async def _sweep(self) -> None:
        """Close what is retired and carries no call any more."""
        unused = [connection for connection in self._retired if not connection.open_calls]
        self._retired = [connection for connection in self._retired if connection.open_calls]
        for connection in unused:
            await connection.channel.close(grace=None)

    async def _wait_until_ready(self, channel: grpc.aio.Channel, address: Address) -> None:
        state = channel.get_state(try_to_connect=True)
        failed = {
            grpc.ChannelConnectivity.TRANSIENT_FAILURE,
            grpc.ChannelConnectivity.SHUTDOWN,
        }
        try:
            async with asyncio.timeout(self._settings.connect_s):
                while state is not grpc.ChannelConnectivity.READY:
                    if state in failed:
                        raise _unreachable(address)
                    await channel.wait_for_state_change(state)
                    state = channel.get_state(try_to_connect=True)
        except TimeoutError as error:
            raise LinkTimeout(
                f"{address}: no connection within {self._settings.connect_s:g} s; check the address and the network"
            ) from error


def _unreachable(address: Address) -> TransportError:
    return LinkClosed(
        f"{address}: no connection; is a verifier listening there (`paceline cloud`), and do both sides agree on TLS?"
    )


async def describe(
    address: str | Address, *, connection: ConnectionSettings | None = None
) -> VerifierInfo:
    """Ask one verifier what it serves, over a connection of its own.

    Raises:
        ConfigError: the address or a certificate is wrong.
        TransportError: it cannot be reached.
        PacelineError: it refuses, and says why.
    """
    place = parse_address(address) if isinstance(address, str) else address
    connector = GrpcConnector(connection or ConnectionSettings())
    try:
        return await connector.describe(place)
    finally:
        await connector.close()
