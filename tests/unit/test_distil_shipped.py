"""The draft that comes with the package."""

from __future__ import annotations

import hashlib

import pytest
import torch

from edge.distillation.compact import read_description
from edge.drafters import ModelDrafter, load_drafter
from edge.drafters.distilled import SHIPPED, distilled_path
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

NAME = "smollm2-135m-draft"
MOST_BYTES = 30_000_000


def test_it_is_found_by_name_and_small() -> None:
    path = distilled_path(NAME)
    assert path is not None
    assert path.parent == SHIPPED
    assert path.stat().st_size <= MOST_BYTES
    assert distilled_path(f"elsewhere/{NAME}") is None
    assert distilled_path("no-such-draft") is None


def test_its_card_is_of_this_file() -> None:
    path = distilled_path(NAME)
    assert path is not None
    record = read_description(path)
    assert record["target"] == "smollm2-135m"
    card = (SHIPPED / f"{NAME}.md").read_text(encoding="utf-8")
    assert f"{path.stat().st_size / 1e6:.1f} MB" in card
    assert hashlib.sha256(path.read_bytes()).hexdigest() in card
    assert ", ".join(map(str, record["layers"])) in card
    assert f"--train-tokens {record['training']['training']['num_tokens']} " in card


@pytest.mark.slow
@pytest.mark.real
def test_it_guesses_what_its_target_says() -> None:
    torch.set_num_threads(1)
    source = resolve("smollm2-135m")
    tokenizer = load_tokenizer(source)
    target = load_model(source, dtype="bfloat16", tokenizer=tokenizer)
    question = {"role": "user", "content": "Write a short letter to a friend about a rainy day."}
    text: tuple[TokenId, ...] = tuple(tokenizer.encode_chat([question]))
    prompt_length, most = len(text), 40
    sequence = target.open(max_length=prompt_length + most, max_pending=0)
    rows = text
    for _ in range(most):
        group = RowGroup(sequence=sequence, tokens=rows, logits="last", commit=True)
        rows = (TokenId(int(target.forward([group]).of(0)[0].argmax())),)
        text = (*text, *rows)
    drafter = load_drafter(NAME, tokenizer=tokenizer)
    assert isinstance(drafter, ModelDrafter)
    draft = drafter.open(
        prompt_length=prompt_length, max_tokens=most, sampling=SamplingSettings(temperature=0.0)
    )
    hits = sum(
        draft.extend(text[:place], 1) == text[place : place + 1]
        for place in range(prompt_length, len(text))
    )
    draft.close()
    # Four of ten on text like this; one that was packed wrongly guesses next to nothing.
    assert hits >= most // 5
