"""The gRPC face of the verifier: one reader and one writer per stream, nothing in between.

The reader hands every message to the session. The writer asks the session what this stream has not been sent yet: a
cursor into the log, never a queue, so that an edge which does not read costs nothing but the tokens it is behind.
Whatever ends a stream ends up in `Stream.end`; the writer then says goodbye, with a Failure and a status if it is an
error.
"""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import NoReturn, Protocol

import grpc
from google.protobuf.message import DecodeError

from cloud import journal
from cloud.account import Account
from cloud.entry import Entry
from cloud.sessions import Registry
from cloud.stream import Stream
from cloud.tenants import Doorkeeper, Peer
from paceline import codec
from paceline.clock import Clock
from paceline.errors import (
    ConfigError,
    ConnectionGivenUpError,
    DrainingError,
    FencedError,
    IncompatibleError,
    InvalidRequestError,
    LinkClosed,
    LinkTimeout,
    LocalProtocolError,
    ModelError,
    OverloadedError,
    PacelineError,
    RemoteProtocolError,
    SessionLostError,
    TransportError,
    UnauthenticatedError,
)
from paceline.errors import ProtocolError as AnyProtocolError
from paceline.messages import (
    PROTOCOL_VERSION,
    Close,
    CloudMessage,
    Drain,
    EdgeMessage,
    Failure,
    Open,
    Opened,
    Proposal,
    Resume,
)
from paceline.v1 import verification_pb2 as pb
from paceline.v1 import verification_pb2_grpc as pb_grpc

FIRST_MESSAGE_S = 10.0
"""How long a new stream may say nothing."""
GOODBYE_S = 2.0
"""How long the last message of a stream may take to leave."""
MAX_FAILURE_BYTES = 1024
"""Of `Failure.message`, as the protocol says."""

STATUS: dict[type[PacelineError], grpc.StatusCode] = {
    PacelineError: grpc.StatusCode.INTERNAL,
    ConfigError: grpc.StatusCode.FAILED_PRECONDITION,
    AnyProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    LocalProtocolError: grpc.StatusCode.INTERNAL,
    RemoteProtocolError: grpc.StatusCode.INVALID_ARGUMENT,
    TransportError: grpc.StatusCode.UNAVAILABLE,
    LinkClosed: grpc.StatusCode.UNAVAILABLE,
    LinkTimeout: grpc.StatusCode.DEADLINE_EXCEEDED,
    UnauthenticatedError: grpc.StatusCode.UNAUTHENTICATED,
    IncompatibleError: grpc.StatusCode.FAILED_PRECONDITION,
    InvalidRequestError: grpc.StatusCode.INVALID_ARGUMENT,
    OverloadedError: grpc.StatusCode.RESOURCE_EXHAUSTED,
    SessionLostError: grpc.StatusCode.ABORTED,
    FencedError: grpc.StatusCode.ABORTED,
    DrainingError: grpc.StatusCode.UNAVAILABLE,
    ConnectionGivenUpError: grpc.StatusCode.UNAVAILABLE,
    ModelError: grpc.StatusCode.INTERNAL,
}
"""What every error is on the wire; a test proves it complete."""


class Context(Protocol):
    """A call, as far as the service needs it: gRPC's own context, or what stands for it behind Ray Serve."""

    async def read(self) -> object:
        """Return the next request; anything that is none means that the edge will send no more."""
        ...

    async def write(self, message: pb.VerifyResponse, /) -> None:
        """Send a response; returns when there is room for the next one."""
        ...

    async def abort(self, code: grpc.StatusCode, details: str = "", /) -> NoReturn:
        """End the call with this status."""
        ...

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None:
        """Return what the edge sent along with the call."""
        ...

    def auth_context(self) -> Mapping[str, Iterable[bytes]]:
        """Return what TLS knows of the edge."""
        ...


class VerificationService(pb_grpc.VerificationServiceServicer):
    """Implements paceline.v1.VerificationService on a registry.

    Args:
        registry: of all sessions.
        doorkeeper: knows who may come in.
        clock: the time.
        address: HOST:PORT where edges come back to a session; empty for the address they dialled.
    """

    def __init__(
        self, *, registry: Registry, doorkeeper: Doorkeeper, clock: Clock, address: str = ""
    ) -> None:
        self._registry = registry
        self._account = registry.account
        self._address = address
        self._doorkeeper = doorkeeper
        self._clock = clock
        self._numbers = itertools.count(1)

    async def Describe(  # type: ignore[override]  # noqa: N802 - gRPC's name
        self, request: object, context: Context
    ) -> pb.DescribeResponse:
        """See the schema."""
        del request
        try:
            self._admit(context)
        except UnauthenticatedError as error:
            self._refused(error)
            await context.abort(STATUS[type(error)], str(error))
        return pb.DescribeResponse(
            target=codec.encode_identity(self._registry.target),
            limits=codec.encode_limits(self._registry.limits),
            protocol_version=PROTOCOL_VERSION,
        )

    async def Verify(  # type: ignore[override]  # noqa: N802 - gRPC takes a coroutine that uses context.write as well
        self, request_iterator: object, context: Context
    ) -> None:
        """See the schema. Reads by `context.read`, so that each read can have a deadline."""
        del request_iterator
        try:
            peer = self._admit(context)
            first = await self._first_message(context)
            # Numbered by what arrived first, not by who called first: a session's streams must come in order.
            stream = Stream(number=next(self._numbers), peer=peer)
            async with self._session(first, stream) as entry, asyncio.TaskGroup() as group:
                reader = group.create_task(self._read(context, entry, stream))
                writer = group.create_task(self._write(context, entry, stream))
                await stream.over.wait()
                reader.cancel()
                # The writer comes to its end by itself, unless its edge does not read what it sends.
                _, stuck = await asyncio.wait([writer], timeout=GOODBYE_S)
                writer.cancel()
        except PacelineError as error:
            # Before there was a session: nothing to clean up.
            self._refused(error)
            await self._goodbye(context, error, length=0)
            return
        if stream.error is not None:
            await self._goodbye(
                context, stream.error, length=entry.session.length, only_status=bool(stuck)
            )

    def _refused(self, error: PacelineError) -> None:
        """Count and tell that a call ends before it had a session."""
        self._account.refused[error.reason] += 1
        journal.refused(error)

    def _admit(self, context: Context) -> Peer:
        """Return who is calling.

        Raises:
            UnauthenticatedError: the credentials are missing or wrong.
        """
        metadata = dict(context.invocation_metadata() or ())
        authorization = metadata.get("authorization")
        names = context.auth_context().get("x509_common_name", ())
        return self._doorkeeper.admit(
            authorization=authorization if isinstance(authorization, str) else None,
            certificate_name=next((name.decode(errors="replace") for name in names), None),
        )

    async def _first_message(self, context: Context) -> Open | Resume:
        """Return how the stream begins.

        Raises:
            RemoteProtocolError: not as it should.
            LinkTimeout: not at all.
        """
        try:
            async with asyncio.timeout(FIRST_MESSAGE_S):
                message = await _receive(context, self._account)
        except TimeoutError as error:
            raise LinkTimeout(
                f"stream: got no message for {FIRST_MESSAGE_S} s, expected open or resume"
            ) from error
        match message:
            case Open() | Resume():
                return message
            case None:
                raise RemoteProtocolError("message: got none, expected open or resume first")
            case _:
                name = type(message).__name__.lower()
                raise RemoteProtocolError(f"message: got {name}, expected open or resume first")

    @asynccontextmanager
    async def _session(self, first: Open | Resume, stream: Stream) -> AsyncIterator[Entry]:
        """Attach the stream to its session; detach it whatever happens."""
        match first:
            case Open():
                entry = self._registry.open(first, stream)
            case Resume():
                entry = self._registry.resume(first, stream)
        journal.attached(entry, stream)
        try:
            yield entry
        finally:
            self._registry.detach(entry, stream)
            journal.detached(entry, stream)

    async def _read(self, context: Context, entry: Entry, stream: Stream) -> None:
        """Hand messages to the session until the edge has no more, or breaks the rules."""
        try:
            while (message := await _receive(context, self._account)) is not None:
                match message:
                    case Proposal() | Close():
                        self._registry.deliver(entry, stream, message)
                    case Open() | Resume():
                        name = type(message).__name__.lower()
                        raise RemoteProtocolError(
                            f"message: got {name}, expected it only once, as the first of a stream"
                        )
        except PacelineError as error:
            # A stream that was fenced has no say in the session any more.
            if entry.stream is stream:
                self._registry.fail(entry, error)
            stream.end(error)
        else:
            stream.end()

    async def _write(self, context: Context, entry: Entry, stream: Stream) -> None:
        """Send what there is to send until the stream is over."""
        try:
            await self._write_on(context, entry, stream)
        except grpc.aio.BaseError:
            stream.end()  # the link broke while we wrote; gRPC cancels us for it in a moment

    async def _write_on(self, context: Context, entry: Entry, stream: Stream) -> None:
        while not (entry.is_admitted or stream.is_over):
            await stream.wait()
        if not stream.is_over:
            await _send(context, self._opened(entry), self._account)
        told_to_move = False
        while not stream.is_over:
            if stream.drain_deadline_s is not None and not told_to_move:
                told_to_move = True
                left_s = max(0.0, stream.drain_deadline_s - self._clock.now_s())
                await _send(context, Drain(deadline_ms=int(left_s * 1000)), self._account)
            commit = entry.session.next_commit(stream=stream.number)
            if commit is None:
                await stream.wait()
            else:
                await _send(context, commit, self._account)

    def _opened(self, entry: Entry) -> Opened:
        return Opened(
            session_id=entry.session_id,
            limits=self._registry.limits,
            target=self._registry.target,
            length=entry.session.length,
            step_ns=self._registry.step_ns,
            address=self._address,
        )

    async def _goodbye(
        self, context: Context, error: PacelineError, *, length: int, only_status: bool = False
    ) -> None:
        """Send what went wrong as the last message, then as the status."""
        retry_after_s = error.retry_after_s if isinstance(error, OverloadedError) else 0.0
        text = str(error).encode()[:MAX_FAILURE_BYTES].decode(errors="ignore")
        failure = Failure(
            reason=error.reason,
            message=text,
            retryable=error.retryable,
            retry_after_ms=int(retry_after_s * 1000),
            length=length,
        )
        with suppress(TimeoutError, grpc.aio.BaseError):
            # An edge that does not read gets the status only, when it reads on.
            async with asyncio.timeout(GOODBYE_S):
                if not only_status:
                    await _send(context, failure, self._account)
        await context.abort(STATUS[type(error)], text)


async def _receive(context: Context, account: Account) -> EdgeMessage | None:
    """Return the next message, or None when the edge will send no more.

    Raises:
        RemoteProtocolError: it is no message, or one that breaks a bound.
        InvalidRequestError: it asks for what cannot be served.
    """
    try:
        request = await context.read()
    except DecodeError as error:
        raise RemoteProtocolError(
            "message: got bytes that are no paceline.v1.VerifyRequest; check that the peer speaks this protocol"
        ) from error
    if not isinstance(request, pb.VerifyRequest):
        return None  # grpc.aio.EOF
    account.payload_bytes_up += request.ByteSize()
    return codec.decode_edge(request)


async def _send(context: Context, message: CloudMessage, account: Account) -> None:
    response = codec.encode_cloud(message)
    account.payload_bytes_down += response.ByteSize()
    await context.write(response)
