"""The client's own machinery on toy verifiers in virtual time."""

import asyncio
from collections.abc import Callable, Sequence
from functools import cache
from random import Random
from typing import TypeVar

from harness.models import VOCABULARY_SIZE, tiny_tokenizer
from harness.toy import ToyTarget
from harness.toy_cloud import ToyCloud
from harness.toy_verifier import TOKENIZER
from harness.virtual_time import LoopClock

from paceline.client.client import Client
from paceline.client.generation import Generation
from paceline.client.memory import MemoryConnector
from paceline.client.runner import Surroundings
from paceline.client.settings import DraftingSettings, RetryPolicy
from paceline.drafter import Drafter
from paceline.engine.detokenizer import Detokenizer
from paceline.engine.tokenizer import Tokenizer
from paceline.messages import Open
from paceline.sampling.settings import SamplingSettings
from paceline.settings import Address
from paceline.tokens import TokenId

Result = TypeVar("Result")

PROMPT = tuple(map(TokenId, (5, 6, 7)))
TARGET = ToyTarget(vocabulary_size=VOCABULARY_SIZE)


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer(tiny_tokenizer(), name="tiny")


def place(index: int) -> Address:
    return Address(host="127.0.0.1", port=index + 1)


class VirtualWorker:
    """Runs the drafter in the event loop; a call takes `call_s` of virtual time."""

    def __init__(self, *, call_s: float = 0.0) -> None:
        self._call_s = call_s
        self.num_calls = 0

    async def run(self, call: Callable[[], Result]) -> Result:
        self.num_calls += 1
        await asyncio.sleep(self._call_s)
        return call()


def surroundings(
    clouds: Sequence[ToyCloud],
    *,
    drafter: Drafter | None = None,
    drafting: DraftingSettings | None = None,
    retry: RetryPolicy | None = None,
    call_s: float = 0.001,
    silence_s: float = 60.0,
) -> Surroundings:
    servers = {place(index): cloud for index, cloud in enumerate(clouds)}
    return Surroundings(
        connector=MemoryConnector(servers, silence_s=silence_s),
        verifiers=tuple(servers),
        retry=retry or RetryPolicy(),
        drafter=drafter,
        drafting=drafting or DraftingSettings(),
        worker=VirtualWorker(call_s=call_s),
        clock=LoopClock(),
        generator=Random(7),
    )


def generation(
    around: Surroundings,
    *,
    max_tokens: int = 60,
    stop: Sequence[str] = (),
    stop_tokens: Sequence[TokenId] = (),
) -> Generation:
    request = Open(
        tokenizer_fingerprint=TOKENIZER,
        prompt=PROMPT,
        sampling=SamplingSettings(temperature=0.0),
        max_tokens=max_tokens,
        stop_tokens=tuple(stop_tokens),
    )
    return Generation(request, detokenizer=Detokenizer(tokenizer()), stop=stop, surroundings=around)


def client_of(around: Surroundings) -> Client:
    """Return a client with these surroundings, its clock and worker included; there is nothing to enter."""
    client = Client(verifiers=around.verifiers, tokenizer=tokenizer(), connector=around.connector)
    client._surroundings, client._clock = around, around.clock
    return client
