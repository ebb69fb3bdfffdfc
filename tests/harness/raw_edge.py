"""An edge on raw gRPC stubs: the session machine of the edge and nothing else of the product's client."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import grpc
import torch
from harness.models import VOCABULARY_SIZE, llama_config, tiny_model
from harness.reference import reference_output

from cloud.admission import SessionSettings
from cloud.scheduler import SchedulerSettings
from cloud.server import ServerSettings, Verifier, VerifierSettings, running_verifier
from cloud.tenants import TenantSettings
from cloud.worker import WorkerSettings
from paceline import codec
from paceline.engine.engine import Engine
from paceline.messages import CloudMessage, Commit, EdgeMessage, Failure, Open, Opened
from paceline.sampling.settings import SamplingSettings
from paceline.session.edge import EdgeSession
from paceline.session.events import (
    Drafted,
    EdgeEffect,
    FromCloud,
    LinkUp,
    NothingToDraft,
    Send,
)
from paceline.settings import Address
from paceline.tokens import TokenId
from paceline.v1 import verification_pb2 as pb
from paceline.v1 import verification_pb2_grpc as pb_grpc

TINY_PROMPT = (5, 17, 99)
LOOPBACK = Address(host="127.0.0.1", port=0)
GREEDY = SamplingSettings(temperature=0.0)

Guess = Callable[[Sequence[TokenId]], Sequence[TokenId]]
"""What comes after a text; nothing if there is no guess."""


@asynccontextmanager
async def serving(
    engine: Engine,
    *,
    sessions: SessionSettings | None = None,
    scheduler: SchedulerSettings | None = None,
    worker: WorkerSettings | None = None,
    tenants: TenantSettings | None = None,
    server: ServerSettings | None = None,
) -> AsyncIterator[Verifier]:
    """A verifier in this process; afterwards nothing may be left of any session."""
    torch.set_num_threads(1)
    settings = VerifierSettings(
        server=server or ServerSettings(listen=LOOPBACK),
        sessions=sessions or SessionSettings(),
        scheduler=scheduler or SchedulerSettings(),
        worker=worker or WorkerSettings(),
        tenants=tenants or TenantSettings(),
    )
    async with running_verifier(engine, settings) as verifier:
        yield verifier
    assert not verifier.registry.entries
    assert not verifier.worker.keys
    assert engine.memory.reserved == 0
    verifier.registry.check_integrity(verifier.worker.keys)


async def until(condition: Callable[[], bool], *, timeout_s: float = 10.0) -> None:
    """Wait until something is so that nobody announces."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.001)


async def settled(verifier: Verifier, engine: Engine) -> None:
    """Wait until no session is left and the model thread has freed their memory."""
    await until(lambda: verifier.registry.is_empty and not verifier.worker.keys)
    # The model thread forgets a session just before it has freed its memory.
    await until(lambda: engine.memory.reserved == 0)


@asynccontextmanager
async def dialled(verifier: Verifier) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to it."""
    async with grpc.aio.insecure_channel(str(verifier.address)) as channel:
        yield channel


def open_request(
    engine: Engine,
    prompt: Sequence[int],
    *,
    max_tokens: int = 16,
    sampling: SamplingSettings = GREEDY,
    **changes: Any,
) -> Open:
    """A request that fits the engine."""
    request = Open(
        tokenizer_fingerprint=engine.identity.tokenizer_fingerprint,
        prompt=tuple(TokenId(token) for token in prompt),
        sampling=sampling,
        max_tokens=max_tokens,
    )
    return replace(request, **changes)


class RawStream:
    """One stream of messages."""

    def __init__(self, channel: grpc.aio.Channel, *, token: str | None = None) -> None:
        stub: Any = pb_grpc.VerificationServiceStub(channel)
        metadata = (("authorization", f"Bearer {token}"),) if token else ()
        self.call = stub.Verify(metadata=metadata)

    async def send(self, message: EdgeMessage) -> None:
        await self.call.write(codec.encode_edge(message))

    async def receive(self) -> CloudMessage | None:
        """The next message, or None when there are no more."""
        try:
            response = await self.call.read()
        except grpc.aio.AioRpcError:
            return None  # the status tells why
        return codec.decode_cloud(response) if isinstance(response, pb.VerifyResponse) else None

    async def ended(self) -> None:
        """Read to the end, below the public interface.

        After a write that failed gRPC reads no further, and its task waits for ever for a status that comes after the messages.
        """
        reader = self.call._cython_call
        while await reader.receive_serialized_message() is not grpc.aio.EOF:  # type: ignore[attr-defined]
            pass

    async def receive_failure(self) -> Failure:
        """Read on until the failure that must come."""
        while True:
            message = await self.receive()
            assert message is not None, "the stream ended without a failure"
            if isinstance(message, Failure):
                return message


async def opened(
    stream: RawStream, engine: Engine, prompt: Sequence[int] = TINY_PROMPT, **changes: Any
) -> Opened:
    """Open a session on a stream and return the verifier's answer."""
    await stream.send(open_request(engine, prompt, **changes))
    message = await stream.receive()
    assert isinstance(message, Opened)
    return message


def tiny_output(prompt: Sequence[int], sampling: SamplingSettings, max_tokens: int) -> list[int]:
    """What the tiny Llama must write, by the plain loop."""
    return [
        int(token)
        for token in reference_output(
            tiny_model(llama_config()),
            [TokenId(token) for token in prompt],
            sampling=sampling,
            max_tokens=max_tokens,
            stop_tokens=(),
            vocabulary_size=VOCABULARY_SIZE,
        )
    ]


@dataclass(slots=True)
class RawEdge:
    """One generation."""

    session: EdgeSession
    guess: Guess | None = None
    commits: list[Commit] = field(default_factory=list)
    effects: list[EdgeEffect] = field(default_factory=list)

    async def run(self, stream: RawStream, *, stop_after: int | None = None) -> None:
        """Go on until the session is over, or has this many output tokens."""
        await self._handle(stream, self.session.handle(LinkUp(holds_session=True)))
        while not self.session.is_over:
            await self._draft(stream)
            if stop_after is not None and len(self.session.output) >= stop_after:
                return
            message = await stream.receive()
            assert message is not None, await _why(stream)
            if isinstance(message, Commit):
                self.commits.append(message)
            await self._handle(stream, self.session.handle(FromCloud(message=message)))
        await stream.call.done_writing()
        while await stream.receive() is not None:
            pass

    async def _draft(self, stream: RawStream) -> None:
        while self.guess is not None and (request := self.session.draft_request) is not None:
            tokens = self.guess([*self.session.log, *request.path])[: request.limit]
            if not tokens:
                await self._handle(stream, self.session.handle(NothingToDraft()))
                return
            drafted = Drafted(position=request.position, tokens=(*request.path, *tokens))
            await self._handle(stream, self.session.handle(drafted))

    async def _handle(self, stream: RawStream, effects: Sequence[EdgeEffect]) -> None:
        for effect in effects:
            self.effects.append(effect)
            if isinstance(effect, Send):
                await stream.send(effect.message)


async def _why(stream: RawStream) -> str:
    return f"{await stream.call.code()}: {await stream.call.details()}"


def edge(
    request: Open, *, guess: Guess | None = None, draft_length: int = 4, window: int = 64
) -> RawEdge:
    """An edge; without a guess it drafts nothing and says so."""
    length = draft_length if guess is not None else 0
    return RawEdge(
        session=EdgeSession(request=request, draft_length=length, window=window), guess=guess
    )


def knows(text: Sequence[TokenId]) -> Guess:
    """A guess that is always right, by knowing the whole text."""
    return lambda before: text[len(before) :]


def always_wrong(text: Sequence[TokenId]) -> Guess:
    """A guess that is never right, by knowing the whole text."""
    return lambda before: [TokenId(token ^ 1) for token in text[len(before) :]]
