"""SmolLM2-135M: trees, shared prefixes and text against transformers' own forward and generate."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch

from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, load_weights, resolve
from paceline.engine.rows import EngineSettings, RowGroup
from paceline.engine.tokenizer import Tokenizer
from paceline.tokens import TokenId

pytestmark = [pytest.mark.slow, pytest.mark.real]

# Spinning threads of several test processes on the same cores cost more than the second thread gains.
torch.set_num_threads(1)

TOLERANCE = 2e-4
"""Absolute, float32; logits lie between -20 and 40. Largest measured: 6.1e-5, times three."""


@pytest.fixture(scope="module")
def smollm2() -> tuple[Engine, Tokenizer]:
    source = resolve("smollm2-135m")
    tokenizer = load_tokenizer(source)
    settings = EngineSettings(memory_bytes=1 << 30)
    return load_model(source, dtype="float32", tokenizer=tokenizer, settings=settings), tokenizer


@contextmanager
def plain() -> Iterator[Any]:
    """The same weights as an ordinary transformers model."""
    model = load_weights(resolve("smollm2-135m"), dtype="float32")
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        yield model


def test_rows_of_several_sessions_equal_plain_forwards(smollm2: tuple[Engine, Tokenizer]) -> None:
    engine, tokenizer = smollm2
    system = "You are a guide in the museum of bicycles. " * 8
    prompts = [
        tokenizer.encode_chat(
            [{"role": "system", "content": system}, {"role": "user", "content": question}]
        )
        for question in ("Who invented the chain?", "When do you open?")
    ]
    sequences = [
        engine.open(max_length=400, max_pending=16, prompt=prompt, tenant="museum")
        for prompt in prompts
    ]
    assert sequences[1].waiting_for_prefix
    while sequences[0].num_to_prefill:
        engine.forward([sequences[0].prefill_group(50)])
    engine.forward([sequences[1].prefill_group(1000)])
    assert engine.work.rows_written < sum(len(prompt) for prompt in prompts) - 80
    branches = [tokenizer.encode(text) for text in (" It is old", " The wheel", " Monday")]
    seen: dict[tuple[TokenId, ...], torch.Tensor] = {}
    for sequence, prompt in zip(sequences, prompts, strict=True):
        tokens: list[TokenId] = []
        parents: list[int] = []
        texts: list[tuple[TokenId, ...]] = []
        for branch in branches:
            parents += [-1, *range(len(tokens), len(tokens) + len(branch) - 1)]
            tokens += branch
            texts += [(*prompt, *branch[: index + 1]) for index in range(len(branch))]
        group = RowGroup(sequence=sequence, tokens=tokens, parents=parents)
        seen |= zip(texts, engine.forward([group]).of(0), strict=True)
        engine.close(sequence)
    with plain() as model:
        for prompt in prompts:
            for branch in branches:
                rows = model(torch.tensor([[*prompt, *branch]]), use_cache=False).logits[0]
                for index in range(len(branch)):
                    text = (*prompt, *branch[: index + 1])
                    error = (seen[text] - rows[len(text) - 1]).abs().max().item()
                    assert error <= TOLERANCE
    engine.clear_prefixes()
    assert (engine.memory.reserved, engine.memory.used, engine.memory.shared) == (0, 0, 0)


def test_greedy_text_is_that_of_generate(smollm2: tuple[Engine, Tokenizer]) -> None:
    engine, tokenizer = smollm2
    prompt = tokenizer.encode_chat([{"role": "user", "content": "Name three kinds of bicycles."}])
    sequence = engine.open(max_length=len(prompt) + 20, max_pending=1, prompt=prompt)
    logits = engine.forward([sequence.prefill_group(1000)]).of(0)
    output: list[TokenId] = []
    while len(output) < 16 and (not output or output[-1] not in tokenizer.stop_tokens):
        output.append(TokenId(int(logits[0].argmax())))
        group = RowGroup(sequence=sequence, tokens=output[-1:], commit=True)
        logits = engine.forward([group]).of(0)
    engine.close(sequence)
    with plain() as model:
        ids = torch.tensor([prompt])
        expected = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=16
        )
    assert output == expected[0, len(prompt) :].tolist()
