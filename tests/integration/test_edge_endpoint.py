"""The OpenAI-compatible endpoint, with OpenAI's own client, before a real verifier."""

import asyncio
import json
import socket
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import openai
import pytest
import torch
from harness.endpoint import (
    ANY_PORT,
    KEY,
    MODEL,
    Scene,
    expected_tokens,
    printable_bias,
    scene,
    tiny_tokenizer,
)
from harness.event_loop import run_async
from harness.models import llama_config, tiny_model
from harness.raw_edge import settled
from openai.types.chat import ChatCompletionMessageParam

from cloud.worker import WorkerSettings
from edge.endpoint.gate import EndpointSettings

HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
MAX_TOKENS = 24


def request(**changes: Any) -> dict[str, Any]:
    """A greedy request for printable text."""
    fields = {
        "model": MODEL,
        "messages": HELLO,
        "temperature": 0.0,
        "max_tokens": MAX_TOKENS,
        "logit_bias": printable_bias(),
    }
    return fields | changes


def prompt_ids() -> list[Any]:
    return list(tiny_tokenizer().encode_chat([{"role": "user", "content": "Hello"}]))


def expected_text(**settings: Any) -> str:
    tokens = expected_tokens(
        prompt_ids(),
        max_tokens=MAX_TOKENS,
        bias=printable_bias(),
        **({"temperature": 0.0} | settings),
    )
    return tiny_tokenizer().decode(tokens)


async def lines(url: str, body: dict[str, Any]) -> list[str]:
    """The lines of an event stream as they are."""
    async with (
        aiohttp.ClientSession() as session,
        session.post(f"{url}/v1/chat/completions", json=body) as answer,
    ):
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        return (await answer.text()).split("\n")


@pytest.mark.slow
def test_an_answer_in_one_piece_is_the_targets_own() -> None:
    async def run() -> None:
        async with scene() as here:
            answer = await here.openai.chat.completions.create(**request())
        choice = answer.choices[0]
        assert choice.message.content == expected_text()
        assert choice.message.role == "assistant"
        assert choice.finish_reason == "length"
        assert answer.object == "chat.completion"
        assert answer.model == MODEL
        assert answer.usage is not None
        assert answer.usage.prompt_tokens == len(prompt_ids())
        assert answer.usage.completion_tokens == MAX_TOKENS
        assert answer.usage.total_tokens == len(prompt_ids()) + MAX_TOKENS
        assert answer.model_extra is not None
        assert answer.model_extra["paceline"]["statistics"]["committed"] == MAX_TOKENS

    run_async(run())


def test_a_stream_has_openai_s_shape_to_the_line() -> None:
    async def run() -> list[str]:
        async with scene() as here:
            body = request(stream=True, stream_options={"include_usage": True})
            return await lines(here.url, body)

    got = run_async(run())
    assert got[-3:] == ["data: [DONE]", "", ""]
    assert all(line == "" for line in got[1::2])
    chunks = [json.loads(line.removeprefix("data: ")) for line in got[:-3:2]]
    first, *pieces, last, usage = chunks
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    assert len(pieces) == MAX_TOKENS
    assert "".join(c["choices"][0]["delta"]["content"] for c in pieces) == expected_text()
    assert last["choices"][0]["delta"] == {}
    assert last["choices"][0]["finish_reason"] == "length"
    assert usage["choices"] == []
    assert usage["usage"]["completion_tokens"] == MAX_TOKENS
    for chunk in (first, *pieces, last):
        assert chunk["usage"] is None
        assert chunk["object"] == "chat.completion.chunk"
        assert chunk["id"] == first["id"]
    for chunk in (first, *pieces):
        assert chunk["choices"][0]["finish_reason"] is None


def test_a_stream_without_usage_has_none() -> None:
    async def run() -> None:
        async with scene() as here:
            stream = await here.openai.chat.completions.create(**request(stream=True))
            chunks = [chunk async for chunk in stream]
        assert all(chunk.choices for chunk in chunks)
        assert all("usage" not in chunk.model_fields_set for chunk in chunks)

    run_async(run())


@pytest.mark.parametrize("as_list", [True, False])
def test_a_stop_string_ends_the_text_and_is_not_in_it(*, as_list: bool) -> None:
    whole = expected_text()
    stop = whole[7:10]
    until = whole[: whole.index(stop)]

    async def run() -> None:
        async with scene() as here:
            body = request(stop=[stop, "never there"] if as_list else stop)
            answer = await here.openai.chat.completions.create(**body)
            assert answer.choices[0].message.content == until
            assert answer.choices[0].finish_reason == "stop"
            assert answer.usage is not None
            assert answer.usage.completion_tokens == len(until) + len(stop)
            stream = await here.openai.chat.completions.create(**body | {"stream": True})
            chunks = [chunk async for chunk in stream]
            await settled(here.verifier, here.engine)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == until
        assert chunks[-1].choices[0].finish_reason == "stop"

    run_async(run())


@pytest.mark.slow
def test_a_bound_beyond_all_bounds_is_what_the_context_leaves() -> None:
    async def run() -> None:
        async with scene() as here:
            answer = await here.openai.chat.completions.create(**request(max_tokens=2**40))
            context = here.engine.identity.context_length
        assert answer.usage is not None
        assert answer.usage.total_tokens == context
        assert answer.choices[0].finish_reason == "length"

    run_async(run())


def test_a_stop_token_ends_the_text() -> None:
    async def run() -> None:
        async with scene() as here:
            stop = tiny_tokenizer().stop_tokens[0]
            body = request(logit_bias={str(stop): 1000.0})
            answer = await here.openai.chat.completions.create(**body)
        assert answer.choices[0].message.content == ""
        assert answer.choices[0].finish_reason == "stop"
        assert answer.usage is not None
        assert answer.usage.completion_tokens == 1

    run_async(run())


@pytest.mark.slow
def test_same_seed_same_text() -> None:
    async def run() -> None:
        async with scene() as here:
            texts, fingerprints = [], set()
            for seed in (7, 7, 8):
                body = request(temperature=0.9, seed=seed)
                answer = await here.openai.chat.completions.create(**body)
                texts.append(answer.choices[0].message.content)
                fingerprints.add(answer.system_fingerprint)
            drawn = request(temperature=0.9)
            one = await here.openai.chat.completions.create(**drawn)
            assert one.model_extra is not None
            again = drawn | {"seed": one.model_extra["paceline"]["seed"]}
            two = await here.openai.chat.completions.create(**again)
        assert texts[0] == texts[1] == expected_text(temperature=0.9, seed=7)
        assert texts[2] != texts[0]
        assert one.choices[0].message.content == two.choices[0].message.content
        assert len(fingerprints) == 1
        assert str(fingerprints.pop()).startswith("fp_")

    run_async(run())


@pytest.mark.slow
def test_filters_and_penalties_reach_the_target() -> None:
    settings = {
        "top_p": 0.8,
        "top_k": 9,
        "min_p": 0.01,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.25,
        "repetition_penalty": 1.3,
    }

    async def run() -> str:
        async with scene() as here:
            body = request(temperature=1.1, seed=3)
            extra = {name: settings[name] for name in ("top_k", "min_p", "repetition_penalty")}
            named = {name: value for name, value in settings.items() if name not in extra}
            create: Any = here.openai.chat.completions.create
            answer = await create(**body, **named, extra_body=extra)
            text: str = answer.choices[0].message.content
            return text

    text = run_async(run())
    assert text == expected_text(temperature=1.1, seed=3, **settings)
    assert text != expected_text(temperature=1.1, seed=3)


@pytest.mark.slow
def test_logprobs_are_the_targets() -> None:
    ids = prompt_ids()
    model = tiny_model(llama_config())

    async def run() -> Any:
        async with scene() as here:
            body = request(logprobs=True, top_logprobs=3)
            answer = await here.openai.chat.completions.create(**body)
            plain = await here.openai.chat.completions.create(**request(logprobs=True))
            stream = await here.openai.chat.completions.create(**body | {"stream": True})
            streamed = [
                entry
                async for chunk in stream
                if chunk.choices[0].logprobs
                for entry in chunk.choices[0].logprobs.content or ()
            ]
            return answer.choices[0], plain.choices[0], streamed

    choice, plain, streamed = run_async(run())
    entries = choice.logprobs.content
    assert len(entries) == MAX_TOKENS
    assert [entry.top_logprobs for entry in plain.logprobs.content] == [[]] * MAX_TOKENS
    assert streamed == entries
    assert "".join(entry.token for entry in entries) == choice.message.content
    for entry in entries:
        with torch.inference_mode():
            laws = torch.log_softmax(model(torch.tensor([ids])).logits[0, -1].double(), dim=-1)
        token = tiny_tokenizer().encode(entry.token)[-1]
        assert entry.logprob == pytest.approx(float(laws[token]), abs=1e-3)
        assert bytes(entry.bytes).decode() == entry.token
        best = [top.logprob for top in entry.top_logprobs]
        assert best == pytest.approx(sorted(laws.tolist(), reverse=True)[:3], abs=1e-3)
        ids.append(token)


def test_a_text_is_continued_without_template() -> None:
    async def run() -> None:
        async with scene() as here:
            body = {"model": MODEL, "prompt": "Once", "temperature": 0, "max_tokens": 10}
            create: Any = here.openai.completions.create
            answer = await create(**body, logit_bias=printable_bias())
            stream = await create(**body, logit_bias=printable_bias(), stream=True)
            chunks = [chunk async for chunk in stream]
        tokens = expected_tokens(
            list(tiny_tokenizer().encode("Once")),
            max_tokens=10,
            bias=printable_bias(),
            temperature=0.0,
        )
        assert answer.choices[0].text == tiny_tokenizer().decode(tokens)
        assert answer.object == "text_completion"
        assert "".join(chunk.choices[0].text for chunk in chunks) == answer.choices[0].text
        assert chunks[-1].choices[0].finish_reason == "length"

    run_async(run())


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
