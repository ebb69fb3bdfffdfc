"""Refusals, keys, clients that misbehave, verifiers that go: the endpoint before a real verifier."""

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest
from harness.endpoint import (
    ANY_PORT,
    KEY,
    MODEL,
    Scene,
    lines,
    request,
    scene,
)
from harness.event_loop import run_async
from harness.raw_edge import settled
from openai.types.chat import ChatCompletionMessageParam

from cloud.worker import WorkerSettings
from edge.endpoint.gate import EndpointSettings


def test_models_and_health() -> None:
    async def run() -> None:
        async with scene() as here, aiohttp.ClientSession() as session:
            assert [model.id async for model in here.openai.models.list()] == [MODEL]
            assert (await here.openai.models.retrieve(MODEL)).owned_by == "paceline"
            async with session.get(f"{here.url}/health") as answer:
                assert answer.status == 200
                report = await answer.json()
        assert report["status"] == "ok"
        assert report["verifier"]["reachable"] is True
        assert report["model"] == MODEL

    run_async(run())


def test_refusals_have_openai_s_classes_and_name_the_field() -> None:
    async def run() -> None:
        async with scene() as here:
            create = here.openai.chat.completions.create
            with pytest.raises(openai.BadRequestError) as bad:
                await create(**request(n=2))
            assert bad.value.param == "n"
            with pytest.raises(openai.BadRequestError) as bad:
                await create(**request(temperature=1000))
            assert bad.value.param == "temperature"
            with pytest.raises(openai.NotFoundError) as missing:
                await create(**request(model="gpt-4o"))
            assert missing.value.code == "model_not_found"
            long: list[ChatCompletionMessageParam] = [{"role": "user", "content": "x" * 600}]
            with pytest.raises(openai.BadRequestError) as bad:
                await create(**request(messages=long))
            assert bad.value.code == "context_length_exceeded"
            bias = {"99999": 1.0}
            with pytest.raises(openai.BadRequestError) as bad:
                await create(**request(logit_bias=bias))
            assert bad.value.param == "logit_bias"

    run_async(run())


@pytest.mark.parametrize(
    ("data", "headers", "status"),
    [
        (b"{", {"Content-Type": "application/json"}, 400),
        (b"[" * 100_000, {"Content-Type": "application/json"}, 400),
        (b"{}", {"Content-Type": "text/plain"}, 415),
        (b" " * 5000, {"Content-Type": "application/json"}, 413),
        (b"{}", {"Content-Type": "application/json", "Host": "evil.example"}, 403),
        (b"{}", {"Content-Type": "application/json", "Host": "127.0.0.1.evil.example"}, 403),
    ],
)
def test_bad_bodies_and_strange_names(data: bytes, headers: dict[str, str], status: int) -> None:
    limit = 4096 if status == 413 else 1 << 20

    async def run() -> None:
        settings = EndpointSettings(listen=ANY_PORT, max_body_bytes=limit)
        async with scene(endpoint=settings) as here, aiohttp.ClientSession() as session:
            url = f"{here.url}/v1/chat/completions"
            async with session.post(url, data=data, headers=headers) as answer:
                assert answer.status == status
                assert (await answer.json())["error"]["message"]
            async with session.get(url) as answer:
                assert answer.status == 405
            async with session.get(f"{here.url}/v2") as answer:
                assert answer.status == 404

    run_async(run())


def test_the_key_is_asked_for_everywhere_but_at_health() -> None:
    async def run() -> None:
        settings = EndpointSettings(listen=ANY_PORT, api_key=KEY)
        async with scene(endpoint=settings) as here:
            await here.openai.chat.completions.create(**request(max_tokens=1))
            wrong = here.openai.with_options(api_key="wrong-key")
            with pytest.raises(openai.AuthenticationError) as refused:
                await wrong.chat.completions.create(**request())
            assert refused.value.code == "invalid_api_key"
            async with aiohttp.ClientSession() as session:
                async with session.get(f"{here.url}/v1/models") as answer:
                    assert answer.status == 401
                    assert answer.headers["WWW-Authenticate"] == "Bearer"
                strange = {"Authorization": "Bearer \xfc"}
                async with session.get(f"{here.url}/v1/models", headers=strange) as answer:
                    assert answer.status == 401
                async with session.get(f"{here.url}/health") as answer:
                    assert answer.status == 200

    run_async(run())


@pytest.mark.parametrize("streams", [True, False])
def test_a_client_that_leaves_frees_the_verifier_at_once(*, streams: bool) -> None:
    slow = WorkerSettings(min_step_s=0.02)

    async def run() -> None:
        async with scene(worker=slow) as here, aiohttp.ClientSession() as session:
            body = request(max_tokens=400, stream=streams)
            url = f"{here.url}/v1/chat/completions"
            if streams:
                async with session.post(url, json=body) as answer:
                    await answer.content.readline()
            else:
                with pytest.raises(TimeoutError):
                    await session.post(url, json=body, timeout=aiohttp.ClientTimeout(total=0.2))
            # 400 steps of 20 ms would take 8 s; `settled` waits for the last session to be gone.
            await settled(here.verifier, here.engine)

    run_async(run(), timeout_s=6.0)


def test_too_many_at_once_are_told_to_come_again() -> None:
    slow = WorkerSettings(min_step_s=0.02)
    settings = EndpointSettings(listen=ANY_PORT, max_concurrent=1)

    async def run() -> None:
        async with scene(worker=slow, endpoint=settings) as here:
            stream = await here.openai.chat.completions.create(**request(stream=True))
            async with stream:
                await anext(aiter(stream))
                with pytest.raises(openai.RateLimitError) as refused:
                    await here.openai.chat.completions.create(**request())
                assert refused.value.response.headers["Retry-After"] == "1"
            await settled(here.verifier, here.engine)

    run_async(run())


@pytest.mark.slow
def test_a_waiting_stream_says_that_it_lives() -> None:
    slow = WorkerSettings(min_step_s=0.3)
    settings = EndpointSettings(listen=ANY_PORT, keep_alive_s=0.05)

    async def run() -> list[str]:
        async with scene(worker=slow, endpoint=settings) as here:
            return await lines(here.url, request(stream=True, max_tokens=1))

    got = run_async(run())
    assert got[0] == ": keep-alive"
    assert "data: [DONE]" in got


def test_a_verifier_that_goes_away_is_told_before_and_within_a_stream() -> None:
    slow = WorkerSettings(min_step_s=0.02)

    async def run() -> None:
        async with scene(worker=slow, give_up_after_s=0.0) as here:
            create = here.openai.chat.completions.create
            stream = await create(**request(stream=True, max_tokens=400))
            chunks = aiter(stream)
            await anext(chunks)
            await here.verifier.drain(within_s=0.0, hurry=asyncio.Event())
            with pytest.raises(openai.APIError):
                async for _ in chunks:
                    pass
            with pytest.raises(openai.InternalServerError) as gone:
                await create(**request())
            assert gone.value.status_code == 503
            assert "Retry-After" in gone.value.response.headers
            async with aiohttp.ClientSession() as session, session.get(f"{here.url}/health") as ill:
                assert ill.status == 503
                assert (await ill.json())["verifier"]["reachable"] is False
            await settled(here.verifier, here.engine)

    run_async(run())


async def raw_post(here: Scene, body: bytes, *, length: int) -> tuple[asyncio.StreamReader, Any]:
    """Send a request by hand over a socket that takes little at a time."""
    address = urlsplit(here.url)
    raw = socket.socket()
    raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    raw.setblocking(False)
    await asyncio.get_running_loop().sock_connect(raw, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=raw, limit=4096)
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    await writer.drain()
    return reader, writer


def test_a_body_that_does_not_come_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.endpoint.service.READ_S", 0.05)

    async def run() -> bytes:
        async with scene() as here:
            reader, writer = await raw_post(here, b"{", length=100)
            status = await reader.readline()
            writer.close()
            await writer.wait_closed()
            return status

    assert b" 408 " in run_async(run())


@pytest.mark.slow
def test_a_client_that_never_reads_frees_the_verifier(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edge.endpoint.stream.WRITE_S", 0.1)
    # 1 MB of log probabilities, beyond all buffers.
    body = json.dumps(request(stream=True, max_tokens=450, logprobs=True, top_logprobs=20)).encode()

    async def run() -> None:
        async with scene(send_buffer_bytes=4096) as here:
            _, writer = await raw_post(here, body, length=len(body))
            writer.transport.pause_reading()
            async with asyncio.timeout(10.0):
                while here.service.num_admitted == 0:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0)
                while here.service.num_admitted:  # noqa: ASYNC110 - no event tells
                    await asyncio.sleep(0.01)
            writer.transport.abort()
            await settled(here.verifier, here.engine)

    run_async(run())
