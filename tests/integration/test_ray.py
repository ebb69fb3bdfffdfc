"""The verifier behind Ray Serve, on a real local Ray: what edges see is what a verifier of its own would show them."""

import asyncio
import os
import re
import signal
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness.event_loop import run_async
from harness.models import save_tiny
from harness.raw_edge import (
    TINY_PROMPT,
    RawStream,
    edge,
    open_request,
    serving,
)

from cloud.server import SERVICE_NAME
from cloud.tenants import TenantSettings
from paceline import Client
from paceline.client import ConnectionSettings, GenerationResult
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.messages import (
    Close,
    CloseReason,
    Commit,
    Drain,
    Opened,
    Proposal,
    Resume,
)
from paceline.sampling.settings import SamplingSettings
from paceline.settings import Address
from paceline.tokens import Position, SessionId, TokenId
from paceline.v1 import verification_pb2 as pb
from paceline.v1 import verification_pb2_grpc as pb_grpc

if TYPE_CHECKING:
    from harness.ray_house import (
        RayHouse,
    )  # importing Ray takes seconds: not while tests are collected

pytestmark = [
    pytest.mark.slow,
    # Ray's own code: how it declares its settings, and the sockets, files and processes it forgets when it ends.
    pytest.mark.filterwarnings(
        "ignore:Using extra keyword arguments on `Field`:DeprecationWarning"
    ),
]

TOKEN = "a-token-of-alice-0123456789"
ENDLESS = ((TokenId(0), -1000.0), (TokenId(2), -1000.0))
"""Keeps the tokens away that end a text."""
PLAIN = SamplingSettings(temperature=0.0, logit_bias=ENDLESS)
NOISY = SamplingSettings(temperature=0.8, seed=77, logit_bias=ENDLESS)
LONG = 150
"""Tokens of a text that is still being written when something happens to it: 10 ms each at least."""
STEP = "10ms"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def engine(model: Path) -> Engine:
    return load_model(resolve(str(model)), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def house(model: Path) -> Iterator["RayHouse"]:
    pytest.importorskip("ray", reason="Ray is an extra")
    from harness.ray_house import ray_house  # noqa: PLC0415 - see above

    with ray_house(model, replicas=2, min_step=STEP, drain="20s", token=TOKEN) as running_house:
        yield running_house


def client(address: Address, model: Path) -> Client:
    return Client(
        verifiers=[address],
        tokenizer=load_tokenizer(resolve(str(model))),
        connection=ConnectionSettings(token=TOKEN),
    )


@asynccontextmanager
async def alone(engine: Engine) -> AsyncIterator[Address]:
    """The same verifier with a server of its own."""
    async with serving(engine, tenants=TenantSettings(tokens={TOKEN: "default"})) as verifier:
        yield verifier.address


async def ask(asking: Client, sampling: SamplingSettings, count: int = LONG) -> GenerationResult:
    prompt = [TokenId(token) for token in TINY_PROMPT]
    async with asking.generate(
        prompt_ids=prompt, sampling=sampling, max_tokens=count
    ) as generation:
        return await generation.complete()


async def texts(
    address: Address, model: Path, samplings: Sequence[SamplingSettings]
) -> list[tuple[TokenId, ...]]:
    """Texts of generations that run at the same time."""
    async with client(address, model) as asking, asyncio.TaskGroup() as group:
        tasks = [group.create_task(ask(asking, sampling)) for sampling in samplings]
    return [task.result().token_ids for task in tasks]


def test_tokens_come_one_after_the_other_and_close_frees(house: "RayHouse", engine: Engine) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(str(house.address)) as channel:
            stream = RawStream(channel, token=TOKEN)
            running_edge = edge(open_request(engine, TINY_PROMPT, max_tokens=LONG))
            await running_edge.run(stream, stop_after=5)
            # These five are here while the others are still to be computed.
            reports = await house.until(
                lambda reports: sum(report.statistics.num_streams for report in reports) == 1
            )
            assert len(running_edge.commits) >= 3, "they came in a few messages at the end"
            holder = max(reports, key=lambda report: report.statistics.num_streams)
            served = holder.statistics.num_served
            assert served < LONG

            await stream.send(Close(reason=CloseReason.CANCELLED))
            after = await house.until(
                lambda reports: all(report.statistics.num_sessions == 0 for report in reports)
            )
            (same,) = [report for report in after if report.pid == holder.pid]
            assert same.statistics.num_served < LONG, "it was cancelled, and wrote the whole text"
            await house.until(
                lambda reports: all(report.statistics.memory.reserved == 0 for report in reports)
            )

    run_async(run())


def test_a_stream_that_is_cut_leaves_its_session_to_the_lease(
    house: "RayHouse", engine: Engine
) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(str(house.address)) as channel:
            stream = RawStream(channel, token=TOKEN)
            cut = edge(open_request(engine, TINY_PROMPT, max_tokens=400))
            await cut.run(stream, stop_after=3)
            stream.call.cancel()
            reports = await house.until(
                lambda reports: all(report.statistics.num_streams == 0 for report in reports)
            )
            assert sum(report.statistics.num_sessions for report in reports) == 1

    run_async(run())


@pytest.mark.parametrize("sampling", [PLAIN, NOISY], ids=["greedy", "noisy"])
def test_the_text_is_that_of_a_verifier_of_its_own(
    house: "RayHouse", model: Path, engine: Engine, sampling: SamplingSettings
) -> None:
    async def run() -> None:
        async with alone(engine) as address:
            expected = await texts(address, model, [sampling])
        assert len(expected[0]) == LONG
        assert await texts(house.address, model, [sampling]) == expected

    run_async(run())


async def no_token(channel: grpc.aio.Channel, engine: Engine) -> RawStream:
    return RawStream(channel)


async def wrong_token(channel: grpc.aio.Channel, engine: Engine) -> RawStream:
    return RawStream(channel, token="x" * 24)


async def garbage(channel: grpc.aio.Channel, engine: Engine) -> RawStream:
    stream = RawStream(channel, token=TOKEN)
    untyped: Any = channel
    method = untyped.stream_stream(
        "/paceline.v1.VerificationService/Verify",
        response_deserializer=pb.VerifyResponse.FromString,
    )
    stream.call = method(metadata=(("authorization", f"Bearer {TOKEN}"),))
    await stream.call.write(b"\xff\xff\xff\xff")
    return stream


async def nothing(channel: grpc.aio.Channel, engine: Engine) -> RawStream:
    stream = RawStream(channel, token=TOKEN)
    await stream.call.done_writing()
    return stream


async def other_tokenizer(channel: grpc.aio.Channel, engine: Engine) -> RawStream:
    stream = RawStream(channel, token=TOKEN)
    request = open_request(engine, TINY_PROMPT)
    await stream.send(replace(request, tokenizer_fingerprint=bytes([7]) * 32))
    return stream


async def too_long(channel: grpc.aio.Channel, engine: Engine) -> RawStream:
    stream = RawStream(channel, token=TOKEN)
    await stream.send(open_request(engine, (5,) * 512))
    return stream


async def unknown_session(channel: grpc.aio.Channel, engine: Engine) -> RawStream:
    stream = RawStream(channel, token=TOKEN)
    await stream.send(Resume(session_id=SessionId(bytes(16)), length=Position(3)))
    return stream


async def broken_rule(channel: grpc.aio.Channel, engine: Engine) -> RawStream:
    stream = RawStream(channel, token=TOKEN)
    await stream.send(open_request(engine, TINY_PROMPT, max_tokens=400))
    await stream.send(Proposal(base_position=Position(400)))
    return stream


@pytest.mark.parametrize(
    "offend",
    [
        *(no_token, wrong_token, garbage, nothing),
        *(other_tokenizer, too_long, unknown_session, broken_rule),
    ],
)
def test_errors_are_those_of_a_verifier_of_its_own(
    house: "RayHouse",
    engine: Engine,
    offend: Callable[[grpc.aio.Channel, Engine], Awaitable[RawStream]],
) -> None:
    async def outcome(address: Address) -> tuple[Any, ...]:
        async with grpc.aio.insecure_channel(str(address)) as channel:
            stream = await offend(channel, engine)
            failure = await stream.receive_failure()
            assert await stream.receive() is None
            # How far the verifier has gone on alone meanwhile is a matter of time.
            texts = (failure.message, str(await stream.call.details()))
            told = (re.sub(r"\d+ \(the log\)", "some (the log)", text) for text in texts)
            return failure.reason, failure.retryable, await stream.call.code(), *told

    async def run() -> None:
        async with alone(engine) as address:
            expected = await outcome(address)
        assert await outcome(house.address) == expected

    run_async(run())


def test_a_message_that_is_too_large(house: "RayHouse", engine: Engine) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(str(house.address)) as channel:
            stream = RawStream(channel, token=TOKEN)
            await stream.send(open_request(engine, TINY_PROMPT, max_tokens=400))
            assert isinstance(await stream.receive(), Opened)
            # 5 MiB of an unknown field.
            huge = pb.VerifyRequest()
            huge.ParseFromString(b"\x7a" + b"\x80\x80\xc0\x02" + bytes(5 << 20))
            await stream.call.write(huge)
            while await stream.receive() is not None:
                pass
            assert await stream.call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            await house.until(
                lambda reports: all(report.statistics.num_streams == 0 for report in reports)
            )

    run_async(run())


def test_unary_calls(house: "RayHouse", engine: Engine) -> None:
    async def run() -> None:
        async with grpc.aio.insecure_channel(str(house.address)) as channel:
            stub: Any = pb_grpc.VerificationServiceStub(channel)
            metadata = (("authorization", f"Bearer {TOKEN}"),)
            answer = await stub.Describe(pb.DescribeRequest(), metadata=metadata)
            assert answer.target.weights_fingerprint == engine.identity.weights_fingerprint
            with pytest.raises(grpc.aio.AioRpcError, match="ask the verifier's operator") as caught:
                await stub.Describe(pb.DescribeRequest())
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
            health: Any = health_pb2_grpc.HealthStub(channel)
            status = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE_NAME))
            assert status.status == health_pb2.HealthCheckResponse.SERVING
            with pytest.raises(grpc.aio.AioRpcError, match="no service") as caught:
                await health.Check(health_pb2.HealthCheckRequest(service="other"))
            assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    run_async(run())


def test_other_machines_are_refused(house: "RayHouse") -> None:
    # The ingress listens on every address of this machine; a call to one of them comes from that one too.
    outside = [
        found.address
        for addresses in psutil.net_if_addrs().values()
        for found in addresses
        if found.family == socket.AF_INET and not found.address.startswith("127.")
    ]
    if not outside:
        pytest.skip("this machine has no address but the loopback one")

    async def run() -> None:
        address = Address(host=outside[0], port=house.address.port)
        async with grpc.aio.insecure_channel(str(address)) as channel:
            stream = RawStream(channel, token=TOKEN)
            assert await stream.receive() is None
            assert await stream.call.code() is grpc.StatusCode.PERMISSION_DENIED
            assert "its own machine only" in await stream.call.details()

    run_async(run())


def test_one_of_two_replicas_is_killed(house: "RayHouse", model: Path, engine: Engine) -> None:
    samplings = [replace(NOISY, seed=seed) for seed in range(6)]

    async def run() -> None:
        async with alone(engine) as address:
            expected = await texts(address, model, samplings)
        async with asyncio.TaskGroup() as group:
            moving = group.create_task(texts(house.address, model, samplings))
            reports = await house.until(
                lambda reports: (
                    all(report.statistics.num_streams >= 1 for report in reports)
                    and sum(report.statistics.num_streams for report in reports) == len(samplings)
                )
            )
            os.kill(reports[0].pid, signal.SIGKILL)
        assert moving.result() == expected
        # Serve starts another one in its place.
        after = await house.until(lambda reports: len(reports) == 2)
        assert reports[0].pid not in {report.pid for report in after}

    run_async(run())


def test_a_redeployment_drains_replica_after_replica(
    house: "RayHouse", model: Path, engine: Engine
) -> None:
    samplings = [replace(NOISY, seed=seed) for seed in range(4)]

    async def run() -> None:
        async with alone(engine) as address:
            expected = await texts(address, model, samplings)
        async with grpc.aio.insecure_channel(str(house.address)) as channel:
            # Some that do not move: they are told to, and end their text where they are.
            streams: list[RawStream] = []
            before = await house.reports()
            while any(report.statistics.num_streams == 0 for report in before):
                assert len(streams) < 20, "the ingress gives all to one replica"
                streams.append(RawStream(channel, token=TOKEN))
                await streams[-1].send(open_request(engine, TINY_PROMPT, max_tokens=LONG))
                assert isinstance(await streams[-1].receive(), Opened)
                before = await house.reports()
            async with asyncio.TaskGroup() as group:
                moving = group.create_task(texts(house.address, model, samplings))
                count = len(streams) + len(samplings)
                await house.until(
                    lambda reports: (
                        sum(report.statistics.num_streams for report in reports) == count
                    )
                )
                group.create_task(asyncio.to_thread(house.redeploy))
                told = [group.create_task(messages(stream)) for stream in streams]
            assert moving.result() == expected
            kinds = [[type(message) for message in task.result()] for task in told]
            # The first replica to go has told its edges; what runs on the others may be over before their turn.
            assert any(Drain in each for each in kinds), kinds
            assert all(each[-1] is Commit for each in kinds), kinds
        old = {report.pid for report in before}
        await house.until(
            lambda reports: len(reports) == 2 and not old & {report.pid for report in reports}
        )

    run_async(run())


async def messages(stream: RawStream) -> list[Any]:
    """What a stream says up to its finish."""
    said: list[Any] = []
    while (message := await stream.receive()) is not None:
        said.append(message)
        if isinstance(message, Commit) and message.finish is not None:
            await stream.send(Close(reason=CloseReason.DONE))
            await stream.call.done_writing()
    return said
