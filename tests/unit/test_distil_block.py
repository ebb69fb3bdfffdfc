"""Mask slots: what a block sees, and what it learns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from harness.models import CONFIGS, llama_config, tiny_model

from edge.distillation import block_attention
from edge.distillation.block_attention import Blocks
from edge.distillation.block_student import BlockStudent
from edge.distillation.block_training import BlockTrainer, draw_starts
from edge.distillation.conversation import Role
from edge.distillation.packing import Batch, Text
from edge.distillation.shards import Passage
from edge.distillation.student import StudentShape, make_student
from edge.distillation.training import TrainSettings

IDS = list(range(4, 260, 2))
TEXTS = [[5, 60, 7, 90, 31, 10, 11, 200, 13], [40, 41, 42, 43, 44, 45, 46], [9, 9]]
LENGTHS = [len(text) for text in TEXTS]
TOKENS = torch.tensor([token for text in TEXTS for token in text])
POSITIONS = torch.cat([torch.arange(length) for length in LENGTHS])


def slotted(kind: str = "llama", *, num_slots: int = 3, **changes: Any) -> BlockStudent:
    target = tiny_model(CONFIGS[kind](**changes))
    layers = tuple(range(target.config.get_text_config().num_hidden_layers))
    student = make_student(target, StudentShape(layers=layers), output_ids=IDS)
    return BlockStudent(student, num_slots=num_slots, seed=1)


def at(starts: list[int], num_slots: int = 3) -> Blocks:
    return Blocks(starts=np.array(starts, np.int64), num_slots=num_slots)


@torch.no_grad()
def laws(student: BlockStudent, blocks: Blocks) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the tokens, and of the slots as [blocks, slots, W]."""
    logits = student.with_blocks(TOKENS, POSITIONS, LENGTHS, blocks=blocks)
    slots = logits[len(TOKENS) :].view(len(blocks.starts), blocks.num_slots, -1)
    return logits[: len(TOKENS)], slots


@torch.no_grad()
def one_block(student: BlockStudent, context: list[int]) -> torch.Tensor:
    """The same by a plain causal pass over a text and its slots, with transformers' own attention."""
    student.model.set_attn_implementation("eager")
    embedded = student.model.get_input_embeddings()(torch.tensor(context))
    rows = torch.cat((embedded, student.slots))[None]
    hidden = student.model.base_model(inputs_embeds=rows, use_cache=False).last_hidden_state[0]
    return student.logits_of(hidden)[len(context) :]


@pytest.mark.parametrize("rows", [256, 6])
@pytest.mark.parametrize("kind", sorted(CONFIGS))
def test_blocks_are_what_each_would_be_alone(
    kind: str, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(block_attention, "PIECE_ROWS", rows)
    student = slotted(kind)
    blocks = at([0, 1, 4, 5, 9, 12])
    tokens, slots = laws(student, blocks)
    assert torch.allclose(tokens, student(TOKENS, POSITIONS, LENGTHS), atol=1e-5)
    contexts = [*(TEXTS[0][:n] for n in (1, 2, 5, 6)), TEXTS[1][:1], TEXTS[1][:4]]
    for got, context in zip(slots, contexts, strict=True):
        assert torch.allclose(got, one_block(student, context), atol=1e-4)


def test_a_slot_sees_those_before_it_and_no_other_block() -> None:
    student = slotted()
    _, before = laws(student, at([1, 4, 5]))
    _, fewer = laws(student, at([4]))
    assert torch.allclose(before[1], fewer[0], atol=1e-5)
    with torch.no_grad():
        student.slots[1] += 1.0
    _, after = laws(student, at([1, 4, 5]))
    assert torch.allclose(before[:, 0], after[:, 0], atol=1e-5)
    assert not torch.allclose(before[:, 1], after[:, 1], atol=1e-2)
    assert not torch.allclose(before[:, 2], after[:, 2], atol=1e-2)


def batch(seed: int = 0) -> Batch:
    """Two texts that count up, so that what comes several tokens later is known, and padding."""
    rng = np.random.default_rng(seed)
    lengths = (40, 20, 4)
    texts = [(rng.integers(20) + np.arange(length)) % 20 for length in lengths]
    tokens = np.concatenate(texts).astype(np.int64)
    indices = np.stack(((tokens + 1) % 20, (tokens + 10) % 20), axis=1)
    weights = np.ones(len(tokens), np.float32)
    weights[-4:] = 0.0
    passage = Passage(number=1, category="count", start=0, length=41, temperature=0.0)
    return Batch(
        tokens=tokens + 4,
        positions=np.concatenate([np.arange(length) for length in lengths]),
        lengths=lengths,
        weights=weights,
        roles=np.full(len(tokens), Role.ANSWER, np.uint8),
        indices=indices,
        probs=np.tile(np.array([0.95, 0.01], np.float32), (len(tokens), 1)),
        top_tokens=indices[:, 0] + 4,
        texts=(Text(shard=0, passage=passage), Text(shard=0, passage=passage)),
    )


def test_blocks_fit_into_their_texts_and_are_drawn_by_worth() -> None:
    packed = batch()
    packed.weights[10:20] = 0.0
    everything = draw_starts(packed, num_slots=7, most=100, seed=(1,))
    assert everything.tolist() == [*range(10), *range(20, 33), *range(40, 53)]
    some = draw_starts(packed, num_slots=7, most=9, seed=(1,))
    assert len(some) == 9
    assert set(some) < set(everything)
    assert some.tolist() == draw_starts(packed, num_slots=7, most=9, seed=(1,)).tolist()
    assert some.tolist() != draw_starts(packed, num_slots=7, most=9, seed=(2,)).tolist()
    assert len(draw_starts(packed, num_slots=40, most=9, seed=(1,))) == 0
    assert at([3, 8], 2).target_rows().tolist() == [4, 5, 9, 10]


@pytest.mark.slow
def test_slots_learn_what_comes_later() -> None:
    target = tiny_model(llama_config(num_hidden_layers=1))
    student = make_student(target, StudentShape(layers=(0,)), output_ids=range(4, 24))
    settings = TrainSettings(
        num_tokens=64 * 50, batch_tokens=64, batches_per_step=1, rate=2e-2, bfloat16=False
    )
    block = BlockStudent(student, num_slots=2, seed=0)
    trainer = BlockTrainer(block, settings)
    before = [one.total for one in trainer.measure_slots([batch()])]
    losses = [trainer.step([batch(number)], number=number) for number in range(50)]
    after = [one.total for one in trainer.measure_slots([batch()])]
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert [one.num_positions for one in after] == [before[0].num_positions] * 3
    for early, late in zip(before, after, strict=True):
        assert late.acceptance > 0.5 > early.acceptance
        assert late.mean_divergence < early.mean_divergence
