"""Answers of the OpenAI-compatible endpoint, with OpenAI's own client, before a real verifier."""

import json
from typing import Any

import pytest
import torch
from harness.drafters import GuessingDrafter
from harness.endpoint import (
    MAX_TOKENS,
    MODEL,
    expected_text,
    expected_tokens,
    lines,
    printable_bias,
    prompt_ids,
    request,
    scene,
    tiny_engine,
    tiny_tokenizer,
)
from harness.event_loop import run_async
from harness.models import llama_config, tiny_model
from harness.raw_edge import settled

from cloud.worker import WorkerSettings
from edge.drafters import ModelDrafter
from paceline.drafter import Drafter
from paceline.tokens import TokenId


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
@pytest.mark.parametrize("is_right", [True, False])
def test_drafts_change_neither_text_nor_usage(*, is_right: bool) -> None:
    # Steps of 10 ms let drafts arrive in time, right ones (the target drafts for itself) and wrong ones.
    slow = WorkerSettings(min_step_s=0.01)

    async def run() -> None:
        size = tiny_tokenizer().vocabulary_size
        drafter: Drafter = (
            ModelDrafter(tiny_engine(), vocabulary_size=size)
            if is_right
            else GuessingDrafter(lambda _: TokenId(3))
        )
        async with scene(drafter=drafter, worker=slow) as here:
            answer = await here.openai.chat.completions.create(**request())
        assert answer.choices[0].message.content == expected_text()
        assert answer.usage is not None
        assert answer.usage.completion_tokens == MAX_TOKENS
        assert answer.model_extra is not None
        statistics = answer.model_extra["paceline"]["statistics"]
        assert statistics["judged"] > 0
        assert (statistics["accepted"] > 0) == is_right
        assert (statistics["accepted"] == statistics["judged"]) == is_right

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
    # The rows beside it are not the same ones each time, and so neither is the last bit.
    assert [entry.token for entry in streamed] == [entry.token for entry in entries]
    for one, other in zip(streamed, entries, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-5)
        assert [top.token for top in one.top_logprobs] == [top.token for top in other.top_logprobs]
        assert [top.logprob for top in one.top_logprobs] == pytest.approx(
            [top.logprob for top in other.top_logprobs], abs=1e-5
        )
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
