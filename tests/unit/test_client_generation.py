"""What the caller of a generation gets."""

import asyncio
from collections.abc import Sequence

import pytest
from harness.drafters import toy_drafter
from harness.toy_client import PROMPT, TARGET, generation, place, surroundings, tokenizer
from harness.toy_cloud import LIMITS, ToyCloud
from harness.toy_verifier import toy_identity
from harness.virtual_time import run_virtually

from paceline import Client
from paceline.client import DraftingSettings, EndReason, GenerationResult, Piece, VerifierInfo
from paceline.client.memory import MemoryConnector
from paceline.errors import (
    ConfigError,
    InvalidRequestError,
    LinkClosed,
    LocalProtocolError,
)
from paceline.messages import Close, CloseReason
from paceline.prompts import Message
from paceline.tokens import TokenId

COUNT = 60
EXPECTED = TARGET.run(PROMPT, COUNT)
TEXT = tokenizer().decode(EXPECTED)


def _answer(
    *, stop: Sequence[str] = (), stop_tokens: Sequence[TokenId] = (), max_tokens: int = COUNT
) -> tuple[GenerationResult, list[Piece], ToyCloud]:
    async def main() -> tuple[GenerationResult, list[Piece], ToyCloud]:
        async with ToyCloud(target=TARGET, one_way_s=0.03) as cloud:
            around = surroundings(
                [cloud],
                drafter=toy_drafter(TARGET, accuracy=0.9),
                drafting=DraftingSettings(draft_length=32),
            )
            async with generation(
                around, stop=stop, stop_tokens=stop_tokens, max_tokens=max_tokens
            ) as answer:
                pieces = [piece async for piece in answer]
                with pytest.raises(StopAsyncIteration):
                    await anext(answer)
            return answer.result, pieces, cloud

    return run_virtually(main())


def test_one_piece_per_token_and_the_same_text() -> None:
    result, pieces, cloud = _answer()
    tokens = [piece for piece in pieces if piece.token_ids]
    assert tuple(piece.token_ids[0] for piece in tokens) == EXPECTED == result.token_ids
    assert [piece.position for piece in tokens] == [len(PROMPT) + i for i in range(COUNT)]
    assert "".join(piece.text for piece in pieces) == result.text == TEXT
    assert sum(piece.accepted for piece in pieces) == result.statistics.accepted > 0
    assert result.finish_reason is EndReason.LENGTH
    assert result.prompt_tokens == len(PROMPT)
    assert cloud.received[-1] == Close(reason=CloseReason.DONE)


def test_a_stop_string_ends_text_and_session() -> None:
    stop = TEXT[20:23]
    result, pieces, cloud = _answer(stop=[stop])
    assert result.text == TEXT[: TEXT.index(stop)] == "".join(piece.text for piece in pieces)
    assert result.finish_reason is EndReason.STOP
    assert result.token_ids == EXPECTED[: result.completion_tokens]
    # The tokens reach just as far as the stop string does.
    assert stop in tokenizer().decode(result.token_ids)
    assert stop not in tokenizer().decode(result.token_ids[:-1])
    assert cloud.sessions == {}
    assert cloud.received[-1] == Close(reason=CloseReason.DONE)


def test_a_stop_token_is_committed_and_has_no_text() -> None:
    at = 25
    assert EXPECTED[at] not in EXPECTED[:at]
    result, pieces, _ = _answer(stop_tokens=[EXPECTED[at]])
    assert result.finish_reason is EndReason.STOP
    assert result.token_ids == EXPECTED[: at + 1]
    assert result.text == tokenizer().decode(EXPECTED[:at])
    last = next(piece for piece in pieces if piece.position == len(PROMPT) + at)
    assert last.token_ids == (EXPECTED[at],)


def test_the_statistics_add_up() -> None:
    result, *_ = _answer()
    statistics = result.statistics
    assert statistics.committed == COUNT
    assert statistics.rtt_s == pytest.approx(0.06)
    assert statistics.verifier_step_s == pytest.approx(0.01)
    assert 0.0699 < statistics.time_to_first_token_s <= 0.08
    assert statistics.duration_s >= statistics.time_to_first_token_s
    assert statistics.tokens_per_s == pytest.approx(COUNT / statistics.duration_s)
    assert statistics.steps + statistics.steps_saved == COUNT
    assert 0.0 < statistics.acceptance_rate <= statistics.acceptance_probability <= 1.0
    assert 0 < statistics.proposal_bytes < statistics.payload_bytes_up
    assert statistics.bytes_per_drafted_token < 4.0
    assert statistics.bytes_per_committed_token > 1.0
    assert statistics.drafting_s > 0.0
    assert statistics.reconnects == 0


def test_the_result_of_a_running_generation_is_refused() -> None:
    async def main() -> None:
        async with ToyCloud(target=TARGET) as cloud, generation(surroundings([cloud])) as answer:
            with pytest.raises(LocalProtocolError, match="still runs"):
                _ = answer.result

    run_virtually(main())


def test_a_cancelled_caller_frees_the_session() -> None:
    async def main() -> None:
        async with ToyCloud(target=TARGET, one_way_s=0.03) as cloud:

            async def ask() -> None:
                async with generation(surroundings([cloud])) as answer:
                    await answer.complete()

            async with asyncio.TaskGroup() as group:
                task = group.create_task(ask())
                await asyncio.sleep(0.2)
                assert len(cloud.sessions) == 1
                task.cancel()
            assert task.cancelled()
            assert cloud.sessions == {}
            assert cloud.received[-1] == Close(reason=CloseReason.CANCELLED)

    run_virtually(main())


class _Refusing:
    """A verifier that is there for `describe` only, or not at all."""

    def __init__(self, info: VerifierInfo | None) -> None:
        self._info = info

    def accept(self, peer: object) -> None:
        raise LinkClosed("nobody is there")

    async def describe(self, address: object) -> VerifierInfo:
        if self._info is None:
            raise LinkClosed(f"{address}: nobody is there")
        return self._info


def _info() -> VerifierInfo:
    return VerifierInfo(
        address=place(1),
        target=toy_identity(260),
        limits=LIMITS,
        protocol_version=1,
        rtt_s=0.25,
    )


def _client(
    *, up: bool = True, verifiers: Sequence[str] = ("127.0.0.1:1", "127.0.0.1:2")
) -> Client:
    servers = {place(0): _Refusing(None), place(1): _Refusing(_info() if up else None)}
    return Client(verifiers=verifiers, tokenizer=tokenizer(), connector=MemoryConnector(servers))


def test_describe_asks_the_first_that_answers() -> None:
    async def main() -> None:
        async with _client() as client:
            assert (await client.describe()).rtt_s == 0.25
            # It is asked first now: the other one need not be waited for again.
            assert (await client.describe()).rtt_s == 0.25
        async with _client(up=False) as client:
            with pytest.raises(LinkClosed, match=r"127\.0\.0\.1:1"):
                await client.describe()

    asyncio.run(main())


def test_a_verifier_that_kept_somebody_waiting_is_asked_last() -> None:
    class Silent(_Refusing):
        async def describe(self, address: object) -> VerifierInfo:
            await asyncio.Event().wait()
            raise AssertionError

    async def main() -> None:
        servers = {place(0): Silent(None), place(1): _Refusing(_info())}
        places = list(servers)
        connector = MemoryConnector(servers)
        async with Client(verifiers=places, tokenizer=tokenizer(), connector=connector) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(2.0):
                    await client.describe()
            assert await client.describe() == _info()

    run_virtually(main())


def test_prompts_are_encoded_as_the_model_wants_them() -> None:
    client = _client()
    message = Message(role="user", content="hi")
    chat = tokenizer().encode_chat([{"role": "user", "content": "hi"}])
    assert client.generate(messages=[message]).prompt_ids == chat
    assert client.generate(messages=[{"role": "user", "content": "hi"}]).prompt_ids == chat
    assert client.generate(prompt="hi").prompt_ids == tokenizer().encode("hi")
    assert client.generate(prompt_ids=[TokenId(9)]).prompt_ids == (9,)


def test_every_generation_without_a_seed_has_its_own() -> None:
    client = _client()
    seeds = {client.generate(prompt="x").seed for _ in range(4)}
    assert len(seeds) == 4  # 4 draws of 64 bits collide with probability 3e-19


@pytest.mark.parametrize(
    ("arguments", "field"),
    [
        ({}, "messages, prompt, prompt_ids"),
        ({"prompt": "x", "prompt_ids": [1]}, "messages, prompt, prompt_ids"),
        ({"prompt": ""}, "prompt: it has 0 tokens"),
        ({"prompt": "half \ud83d"}, "prompt: character 5 is half"),
        ({"messages": [{"role": "user", "content": "\udc00"}]}, r"messages\[0\]: character 0"),
        ({"prompt_ids": range(2**20 + 1)}, "prompt: it has 1048577 tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "king", "content": "x"}]}, r"messages\[0\].role"),
        ({"prompt": "x", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "x", "num_logprobs": 21}, "num_logprobs"),
        ({"prompt": "x", "stop": [""]}, "stop"),
    ],
)
def test_requests_out_of_range_are_refused(arguments: dict[str, object], field: str) -> None:
    with pytest.raises(InvalidRequestError, match=field):
        _client().generate(**arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("verifiers", [[], ["nowhere"], ["127.0.0.1:99999"]])
def test_addresses_are_checked(verifiers: list[str]) -> None:
    with pytest.raises(ConfigError):
        _client(verifiers=verifiers)
