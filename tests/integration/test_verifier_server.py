"""The server around the sessions: drain, health, TLS, links that fail silently."""

import asyncio
from contextlib import suppress
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from harness.certificates import Certificates, make_certificates
from harness.event_loop import run_async
from harness.models import tiny_llama
from harness.raw_edge import (
    LOOPBACK,
    TINY_PROMPT,
    RawStream,
    dialled,
    edge,
    open_request,
    opened,
    serving,
    settled,
    until,
)

from cloud.admission import SessionSettings
from cloud.health import MAX_WATCHERS
from cloud.server import SERVICE_NAME, ServerSettings, TlsSettings
from cloud.worker import WorkerSettings
from paceline.errors import ConfigError
from paceline.messages import Commit, Drain, Opened, Proposal
from paceline.tokens import Position
from simulator.link import LinkSettings
from simulator.relay import CutMode, Relay


async def health(channel: grpc.aio.Channel, service: str = SERVICE_NAME) -> int:
    stub: Any = health_pb2_grpc.HealthStub(channel)
    answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
    status: int = answer.status
    return status


@pytest.mark.slow
def test_drain_lets_sessions_finish_and_refuses_new_ones() -> None:
    async def run() -> None:
        engine = tiny_llama()
        worker = WorkerSettings(min_step_s=0.01)
        async with serving(engine, worker=worker) as verifier, dialled(verifier) as channel:
            assert await health(channel) == health_pb2.HealthCheckResponse.SERVING
            assert await health(channel, "") == health_pb2.HealthCheckResponse.SERVING
            running = edge(open_request(engine, TINY_PROMPT, max_tokens=30))
            async with asyncio.TaskGroup() as group:
                group.create_task(running.run(RawStream(channel)))
                await until(lambda: verifier.registry.num_streams == 1)
                draining = group.create_task(verifier.drain(within_s=20.0, hurry=asyncio.Event()))
                await until(lambda: verifier.registry.is_draining)
                assert await health(channel) == health_pb2.HealthCheckResponse.NOT_SERVING
                late = RawStream(channel)
                await late.send(open_request(engine, TINY_PROMPT))
                failure = await late.receive_failure()
                assert (failure.reason, failure.retryable) == ("DRAINING", True)
                assert await late.receive() is None
                assert await late.call.code() is grpc.StatusCode.UNAVAILABLE
                await draining
            assert len(running.session.output) == 30

    run_async(run())


def test_strangers_who_watch_its_health_leave_room_for_sessions() -> None:
    async def run() -> None:
        engine = tiny_llama()
        async with serving(engine) as verifier, dialled(verifier) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            request = health_pb2.HealthCheckRequest(service=SERVICE_NAME)
            watching = [stub.Watch(request) for _ in range(MAX_WATCHERS)]
            for call in watching:
                assert (await call.read()).status == health_pb2.HealthCheckResponse.SERVING
            assert await stub.Watch(request).code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert await health(channel) == health_pb2.HealthCheckResponse.SERVING
            one = edge(open_request(engine, TINY_PROMPT, max_tokens=3))
            await one.run(RawStream(channel))
            assert len(one.session.output) == 3
            # Whoever leaves makes room.
            for call in watching:
                call.cancel()
            await until(lambda: verifier.health.num_watchers == 0)
            again = stub.Watch(request)
            assert (await again.read()).status == health_pb2.HealthCheckResponse.SERVING
            again.cancel()

    run_async(run())


@pytest.mark.parametrize("how", ["deadline", "hurry"])
def test_drain_ends_what_does_not_finish(how: str) -> None:
    async def run() -> None:
        engine = tiny_llama()
        worker = WorkerSettings(min_step_s=0.01)
        async with serving(engine, worker=worker) as verifier, dialled(verifier) as channel:
            stream = RawStream(channel)
            await opened(stream, engine, max_tokens=400)
            hurry = asyncio.Event()
            if how == "hurry":
                hurry.set()
            async with asyncio.TaskGroup() as group:
                within_s = 0.1 if how == "deadline" else 100.0
                group.create_task(verifier.drain(within_s=within_s, hurry=hurry))
                kinds = []
                while (message := await stream.receive()) is not None:
                    kinds.append(type(message))
                    last = message
            assert getattr(last, "reason", None) == "DRAINING"
            assert how == "hurry" or kinds.count(Drain) == 1
            assert await stream.call.code() is grpc.StatusCode.UNAVAILABLE

    run_async(run())


def test_drain_without_sessions_is_quick() -> None:
    async def run() -> None:
        async with serving(tiny_llama()) as verifier:
            async with asyncio.timeout(2.0):
                await verifier.drain(within_s=1000.0, hurry=asyncio.Event())

    run_async(run())


def test_two_servers_do_not_share_a_port() -> None:
    async def run() -> None:
        async with serving(tiny_llama()) as verifier:
            settings = ServerSettings(listen=verifier.address)
            with pytest.raises(ConfigError, match=r"--listen: cannot listen on 127\.0\.0\.1"):
                async with serving(tiny_llama(), server=settings):
                    pass

    run_async(run())


PINGS = ServerSettings(listen=LOOPBACK, ping_interval_s=1.0, ping_timeout_s=1.0)


@pytest.mark.slow
def test_a_silently_dropped_link_is_noticed_in_bounded_time() -> None:
    async def run() -> None:
        engine = tiny_llama()
        sessions = SessionSettings(lease_s=0.05, max_lead=8)
        async with (
            serving(engine, sessions=sessions, server=PINGS) as verifier,
            Relay(to=verifier.address) as relay,
            grpc.aio.insecure_channel(str(relay.address)) as channel,
        ):
            stream = RawStream(channel)
            await opened(stream, engine, max_tokens=400)
            relay.cut(CutMode.BLACK_HOLE)
            loop = asyncio.get_running_loop()
            begin_s = loop.time()
            await until(lambda: not verifier.registry.entries)
            # A ping after at most 1 s of silence, 1 s to answer it, and gRPC's own timers.
            assert loop.time() - begin_s < 8.0
            await settled(verifier, engine)
            stream.call.cancel()

    run_async(run())


@pytest.mark.slow
def test_an_idle_session_outlives_a_nat() -> None:
    async def run() -> None:
        engine = tiny_llama()
        sessions = SessionSettings(max_lead=8)
        async with serving(engine, sessions=sessions, server=PINGS) as verifier:
            settings = LinkSettings(drop_idle_after_s=2.5)
            async with (
                Relay(to=verifier.address, settings=settings) as relay,
                grpc.aio.insecure_channel(str(relay.address)) as channel,
            ):
                stream = RawStream(channel)
                await opened(stream, engine, max_tokens=100)
                tokens = 0
                while tokens < 8:
                    message = await stream.receive()
                    assert isinstance(message, Commit)
                    tokens += len(message.tokens)
                # Nothing is said for longer than the NAT remembers; only pings pass.
                await asyncio.sleep(3.5)
                await stream.send(Proposal(base_position=Position(3 + tokens), idle=True))
                assert isinstance(await stream.receive(), Commit)
                assert relay.statistics().forgotten_bytes == 0
                stream.call.cancel()

    run_async(run())


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def server_settings(files: Certificates, *, mutual: bool) -> ServerSettings:
    tls = TlsSettings(
        certificate=files.server.read_bytes(),
        key=files.server_key.read_bytes(),
        client_authority=files.authority.read_bytes() if mutual else None,
    )
    return ServerSettings(listen=LOOPBACK, tls=tls)


def credentials(files: Certificates, *, with_client: bool) -> grpc.ChannelCredentials:
    return grpc.ssl_channel_credentials(
        files.authority.read_bytes(),
        files.client_key.read_bytes() if with_client else None,
        files.client.read_bytes() if with_client else None,
    )


@pytest.mark.parametrize("mutual", [False, True])
def test_tls(certificates: Certificates, mutual: bool) -> None:
    async def run() -> None:
        engine = tiny_llama()
        server = server_settings(certificates, mutual=mutual)
        async with serving(engine, server=server) as verifier:
            address = str(verifier.address)
            theirs = credentials(certificates, with_client=mutual)
            async with grpc.aio.secure_channel(address, theirs) as channel:
                one = edge(open_request(engine, TINY_PROMPT, max_tokens=8))
                stream = RawStream(channel)
                await stream.send(one.session.request)
                assert isinstance(await stream.receive(), Opened)
                (entry,) = verifier.registry.entries
                assert entry.peer.tenant == ("edge-7" if mutual else "")
                stream.call.cancel()

    run_async(run())


@pytest.mark.parametrize("how", ["plain text", "no client certificate", "unknown authority"])
def test_tls_keeps_others_out(certificates: Certificates, how: str, tmp_path: Path) -> None:
    async def run() -> None:
        engine = tiny_llama()
        server = server_settings(certificates, mutual=True)
        async with serving(engine, server=server) as verifier:
            address = str(verifier.address)
            if how == "plain text":
                channel = grpc.aio.insecure_channel(address)
            elif how == "no client certificate":
                theirs = credentials(certificates, with_client=False)
                channel = grpc.aio.secure_channel(address, theirs)
            else:
                other = credentials(make_certificates(tmp_path), with_client=True)
                channel = grpc.aio.secure_channel(address, other)
            async with channel:
                stream = RawStream(channel)
                # gRPC may take the message before the connection is there.
                with suppress(grpc.aio.AioRpcError):
                    await stream.send(open_request(engine, TINY_PROMPT))
                assert await stream.receive() is None
                assert await stream.call.code() is grpc.StatusCode.UNAVAILABLE
            assert not verifier.registry.entries

    run_async(run())
