"""What a stream may do wrong, and that nobody else notices."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import grpc
import pytest
from harness.event_loop import run_async
from harness.models import tiny_llama
from harness.raw_edge import (
    TINY_PROMPT,
    RawStream,
    dialled,
    edge,
    open_request,
    opened,
    serving,
    settled,
)

from cloud.admission import SessionSettings
from cloud.server import Verifier
from cloud.tenants import TenantSettings
from cloud.worker import WorkerSettings
from paceline.codec import encode_edge
from paceline.engine.engine import Engine
from paceline.engine.rows import EngineSettings
from paceline.messages import (
    Close,
    CloseReason,
    Commit,
    Opened,
    Proposal,
    Resume,
)
from paceline.tokens import Position, SessionId, TokenId
from paceline.v1 import verification_pb2 as pb
from paceline.v1 import verification_pb2_grpc as pb_grpc

TOKEN = "t" * 24


def with_verifier(
    body: Callable[[Verifier, Engine, grpc.aio.Channel], Awaitable[None]], **settings: Any
) -> None:
    """Run `body` against a verifier; afterwards nothing is left."""

    async def run() -> None:
        engine = tiny_llama()
        async with serving(engine, **settings) as verifier, dialled(verifier) as channel:
            await body(verifier, engine, channel)
            await settled(verifier, engine)
            verifier.registry.check_integrity(verifier.worker.keys)

    run_async(run())


async def ends_with(stream: RawStream, status: grpc.StatusCode, reason: str, *words: str) -> None:
    """Read to the end, which must be this."""
    failure = await stream.receive_failure()
    assert failure.reason == reason
    for word in words:
        assert word in failure.message
    assert await stream.receive() is None
    assert await stream.call.code() is status
    assert await stream.call.details() == failure.message


async def read_all(call: Any) -> None:
    """Read until the end, whatever it is: only then the status is known."""
    async for _ in call:
        pass


@pytest.mark.parametrize(
    ("proposal", "field"),
    [
        (Proposal(base_position=Position(99)), "proposal.base_position"),
        (Proposal(base_position=Position(0)), "proposal.base_position"),
        (Proposal(base_position=Position(3), tokens=(TokenId(260),)), "proposal.tokens"),
        (
            Proposal(base_position=Position(3), tokens=(TokenId(1),), parents=(1,)),
            "proposal.parents",
        ),
        (
            Proposal(base_position=Position(3), tokens=(TokenId(1),), parents=(0, 1)),
            "proposal.parents",
        ),
    ],
)
def test_a_rule_broken_ends_that_stream_and_names_the_field(proposal: Proposal, field: str) -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel)
        await opened(stream, engine)
        await stream.send(proposal)
        await ends_with(stream, grpc.StatusCode.INVALID_ARGUMENT, "PROTOCOL_VIOLATION", field)
        await settled(verifier, engine)

    with_verifier(body)


@pytest.mark.slow
def test_more_names_than_the_window() -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel)
        # Nothing is committed meanwhile: the target takes its time, so that all names stay in flight.
        await opened(stream, engine)
        tree = tuple(TokenId(token) for token in range(65))
        fan = Proposal(base_position=Position(3), tokens=tree, parents=(0,) * 65)
        await stream.send(fan)
        await ends_with(stream, grpc.StatusCode.INVALID_ARGUMENT, "PROTOCOL_VIOLATION", "window")

    with_verifier(body, sessions=SessionSettings(window=64), worker=WorkerSettings(min_step_s=0.5))


def test_the_others_do_not_notice() -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        alone = edge(open_request(engine, TINY_PROMPT, max_tokens=60))
        await alone.run(RawStream(channel))
        good = edge(open_request(engine, TINY_PROMPT, max_tokens=60))
        bad = RawStream(channel)
        await opened(bad, engine, max_tokens=400)
        async with asyncio.TaskGroup() as group:
            group.create_task(good.run(RawStream(channel)))
            await bad.send(Proposal(base_position=Position(400)))
            await bad.receive_failure()
        assert good.session.output == alone.session.output

    with_verifier(body)


@pytest.mark.parametrize(
    "payload",
    [b"\xff\xff\xff\xff", b"", b"\x0a\x05hello", bytes(range(256))],
    ids=["no protobuf", "empty", "broken open", "noise"],
)
@pytest.mark.parametrize("after_open", [False, True])
def test_garbage(payload: bytes, after_open: bool) -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        untyped: Any = channel
        call = untyped.stream_stream("/paceline.v1.VerificationService/Verify")()
        if after_open:
            await call.write(encode_edge(open_request(engine, TINY_PROMPT)).SerializeToString())
        await call.write(payload)
        with pytest.raises(grpc.aio.AioRpcError, match=r"message: got|open: got|open\.prompt: got"):
            await read_all(call)
        assert await call.code() is grpc.StatusCode.INVALID_ARGUMENT

    with_verifier(body)


@pytest.mark.slow
def test_a_message_that_is_too_large() -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel)
        await opened(stream, engine, max_tokens=5)
        # 5 MiB of an unknown field.
        huge = pb.VerifyRequest()
        huge.ParseFromString(b"\x7a" + b"\x80\x80\xc0\x02" + bytes(5 << 20))
        await stream.call.write(huge)
        while await stream.receive() is not None:
            pass
        assert await stream.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(4 << 20) in await stream.call.details()

    with_verifier(body, sessions=SessionSettings(lease_s=0.05))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Close(reason=CloseReason.DONE), "open or resume"),
        (Proposal(base_position=Position(0)), "open or resume"),
        (None, "open or resume"),
    ],
)
def test_a_stream_begins_with_open_or_resume(message: Any, words: str) -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel)
        if message is not None:
            await stream.send(message)
        await stream.call.done_writing()
        await ends_with(stream, grpc.StatusCode.INVALID_ARGUMENT, "PROTOCOL_VIOLATION", words)

    with_verifier(body)


def test_open_comes_only_once() -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel)
        await opened(stream, engine)
        await stream.send(open_request(engine, TINY_PROMPT))
        await ends_with(stream, grpc.StatusCode.INVALID_ARGUMENT, "PROTOCOL_VIOLATION", "once")

    with_verifier(body)


@pytest.mark.parametrize(
    ("changes", "status", "reason", "words"),
    [
        (
            {"tokenizer_fingerprint": bytes([7]) * 32},
            grpc.StatusCode.FAILED_PRECONDITION,
            "INCOMPATIBLE",
            ["07" * 32, "00" * 32],
        ),
        (
            {"prompt": (TokenId(1),) * 512},
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            ["open.prompt", "512", "511"],
        ),
        (
            {"prompt": ()},
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
            ["open.prompt"],
        ),
    ],
)
def test_a_request_that_cannot_be_served(
    changes: dict[str, Any], status: grpc.StatusCode, reason: str, words: list[str]
) -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel)
        await stream.send(replace(open_request(engine, TINY_PROMPT), **changes))
        await ends_with(stream, status, reason, *words)

    with_verifier(body)


def test_no_memory_is_told_with_a_time_to_retry() -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel)
        await opened(stream, engine, max_tokens=400)
        late = RawStream(channel)
        await late.send(open_request(engine, TINY_PROMPT, max_tokens=400))
        failure = await late.receive_failure()
        assert (failure.reason, failure.retryable) == ("OVERLOADED", True)
        assert failure.retry_after_ms > 0
        assert await late.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        await stream.send(Close(reason=CloseReason.CANCELLED))

    # Room for one such session, not for two.
    row_bytes = tiny_llama().row_bytes
    memory_bytes = int(1.5 * (403 + 64) * row_bytes)

    async def run() -> None:
        engine = tiny_llama(settings=EngineSettings(memory_bytes=memory_bytes))
        worker = WorkerSettings(min_step_s=0.01)
        async with serving(engine, worker=worker) as verifier, dialled(verifier) as channel:
            await body(verifier, engine, channel)
            await settled(verifier, engine)

    run_async(run())


def test_too_many_sessions() -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        first = RawStream(channel)
        await opened(first, engine, max_tokens=400)
        late = RawStream(channel)
        await late.send(open_request(engine, TINY_PROMPT))
        await ends_with(late, grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED", "max_sessions is 1")
        await first.send(Close(reason=CloseReason.CANCELLED))
        await settled(verifier, engine)
        again = edge(open_request(engine, TINY_PROMPT))
        await again.run(RawStream(channel))

    with_verifier(body, sessions=SessionSettings(max_sessions=1))


@pytest.mark.parametrize("token", [None, "x" * 24])
def test_strangers_stay_out(token: str | None) -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel, token=token)
        await ends_with(stream, grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED", "authorization")
        stub: Any = pb_grpc.VerificationServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Describe(pb.DescribeRequest())
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    with_verifier(body, tenants=TenantSettings(tokens={TOKEN: "alice"}))


def test_a_session_belongs_to_its_tenant() -> None:
    other = "o" * 24

    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        mine = RawStream(channel, token=TOKEN)
        session_id = (await opened(mine, engine, max_tokens=400)).session_id
        assert len(session_id) == 16
        resume = Resume(session_id=session_id, length=Position(3))
        thief = RawStream(channel, token=other)
        await thief.send(resume)
        await ends_with(thief, grpc.StatusCode.ABORTED, "SESSION_LOST")
        unknown = RawStream(channel, token=TOKEN)
        await unknown.send(Resume(session_id=SessionId(bytes(16)), length=Position(3)))
        await ends_with(unknown, grpc.StatusCode.ABORTED, "SESSION_LOST")
        again = RawStream(channel, token=TOKEN)
        await again.send(resume)
        assert isinstance(await again.receive(), Opened)
        await again.send(Close(reason=CloseReason.CANCELLED))

    with_verifier(body, tenants=TenantSettings(tokens={TOKEN: "alice", other: "bob"}))


def test_describe() -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stub: Any = pb_grpc.VerificationServiceStub(channel)
        answer = await stub.Describe(pb.DescribeRequest())
        assert answer.protocol_version == 1
        assert answer.target.name == engine.identity.name
        assert answer.limits.window == 128

    with_verifier(body, sessions=SessionSettings(window=128))


def test_close_frees_within_one_step() -> None:
    async def body(verifier: Verifier, engine: Engine, channel: grpc.aio.Channel) -> None:
        stream = RawStream(channel)
        await opened(stream, engine, max_tokens=400)
        while not isinstance(await stream.receive(), Commit):
            pass
        await stream.send(Close(reason=CloseReason.CANCELLED))
        while await stream.receive() is not None:
            pass
        assert not verifier.registry.entries
        steps = verifier.worker.times.num_steps
        await settled(verifier, engine)
        # One may have been under way when the close came.
        assert verifier.worker.times.num_steps <= steps + 1

    with_verifier(body, worker=WorkerSettings(min_step_s=0.02))
