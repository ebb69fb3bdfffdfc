"""The agent's endpoint in this process, before a real verifier with a tiny model, and OpenAI's own client."""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiohttp
from harness.models import llama_config, save_tiny, tiny_model
from harness.raw_edge import serving
from harness.reference import reference_output
from openai import AsyncOpenAI
from openai.types.chat import ChatCompletionMessageParam

from cloud.server import Verifier
from edge.endpoint.gate import EndpointSettings
from edge.endpoint.listener import bound
from edge.endpoint.server import serving as serving_http
from edge.endpoint.service import ServedModel, Service
from paceline.client.client import Client
from paceline.client.settings import ConnectionSettings, RetryPolicy
from paceline.drafter import Drafter
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from paceline.settings import Address
from paceline.tokens import TokenId

MODEL = "tiny"
KEY = "test-key-0123456789"
HELLO: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Hello"}]
MAX_TOKENS = 24
ANY_PORT = Address(host="127.0.0.1", port=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """What a test has at hand."""

    openai: AsyncOpenAI
    url: str
    """Of the endpoint, without /v1."""
    verifier: Verifier
    engine: Engine
    service: Service


@cache
def tiny_tokenizer() -> Tokenizer:
    """The tokenizer of `tiny_engine`."""
    with TemporaryDirectory() as folder:
        return load_tokenizer(resolve(str(save_tiny(Path(folder)))))


def tiny_engine() -> Engine:
    """A new engine on a tiny model with a chat template."""
    with TemporaryDirectory() as folder:
        source = resolve(str(save_tiny(Path(folder))))
        return load_model(source, dtype="float32", tokenizer=tiny_tokenizer())


@cache
def printable_bias() -> Mapping[str, float]:
    """Biases that leave only printable ASCII to draw, as a request has them: random weights say anything."""
    tokenizer = tiny_tokenizer()
    kept = {tokenizer.encode(chr(code))[-1] for code in range(32, 127)}
    return {str(token): -1000.0 for token in range(tokenizer.vocabulary_size) if token not in kept}


def expected_tokens(
    prompt: list[TokenId], *, max_tokens: int, bias: Mapping[str, float], **settings: Any
) -> list[TokenId]:
    """What the target says, by the plain loop."""
    biases = tuple(sorted((TokenId(int(token)), value) for token, value in bias.items()))
    return reference_output(
        tiny_model(llama_config()),
        prompt,
        sampling=SamplingSettings(logit_bias=biases, **settings),
        max_tokens=max_tokens,
        stop_tokens=tiny_tokenizer().stop_tokens,
        vocabulary_size=tiny_tokenizer().vocabulary_size,
    )


@asynccontextmanager
async def scene(
    *,
    drafter: Drafter | None = None,
    endpoint: EndpointSettings | None = None,
    give_up_after_s: float = 5.0,
    send_buffer_bytes: int | None = None,
    **verifier_settings: Any,
) -> AsyncIterator[Scene]:
    """An endpoint before a verifier. Afterwards no session, no memory and no admitted request may be left."""
    settings = endpoint or EndpointSettings(listen=ANY_PORT)
    engine = tiny_engine()
    connection = ConnectionSettings(retry=RetryPolicy(give_up_after_s=give_up_after_s))
    async with (
        serving(engine, **verifier_settings) as verifier,
        Client(
            verifiers=[verifier.address],
            tokenizer=tiny_tokenizer(),
            drafter=drafter,
            connection=connection,
        ) as client,
    ):
        info = await client.describe()
        model = ServedModel(name=MODEL, target=info.target, limits=info.limits)
        service = Service(client, tokenizer=tiny_tokenizer(), model=model, settings=settings)
        listener = bound(settings.listen)
        if send_buffer_bytes is not None:
            # Connections inherit it; the system's own buffers hold megabytes.
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        async with (
            serving_http(service, listener=listener) as address,
            AsyncOpenAI(
                base_url=f"http://{address}/v1", api_key=settings.api_key or KEY, max_retries=0
            ) as openai,
        ):
            yield Scene(
                openai=openai,
                url=f"http://{address}",
                verifier=verifier,
                engine=engine,
                service=service,
            )
        assert service.num_admitted == 0


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
