"""Drafts of a student after text of its target: what is computed, and which positions count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness.models import CONFIGS, llama_config, tiny_model

from edge.distillation.conversation import Role
from edge.distillation.draft_pass import Judge, draft_on, student_logits
from edge.distillation.packing import Batch, OutputPlaces, Text
from edge.distillation.practice import Drafts, Practice, counting, read_drafts, write_drafts
from edge.distillation.shards import Passage
from edge.distillation.student import Student, StudentShape, make_student
from paceline.errors import ConfigError

VOCABULARY = 260
LENGTHS = (9, 5)
STARTS = np.array([0, 4, 10])
"""In a batch of two texts; the last follows the second token of the second text."""


def batch(*, padding: int = 2) -> Batch:
    tokens = np.random.default_rng(3).integers(4, VOCABULARY, sum(LENGTHS) + padding)
    texts, start = [], 0
    for number, length in enumerate(LENGTHS):
        passage = Passage(
            number=number, category="self", start=start, length=length + 1, temperature=0.0
        )
        texts.append(Text(shard=0, passage=passage))
        start += length + 1
    size = len(tokens)
    return Batch(
        tokens=tokens,
        positions=np.concatenate([np.arange(length) for length in (*LENGTHS, padding)]),
        lengths=(*LENGTHS, padding),
        weights=np.arange(size, dtype=np.float32),
        roles=np.full(size, Role.ANSWER, np.uint8),
        indices=np.zeros((size, 2), np.int64),
        probs=np.zeros((size, 2), np.float32),
        top_tokens=np.zeros(size, np.int64),
        texts=tuple(texts),
    )


def plain(model: Any, tokens: list[int]) -> torch.Tensor:
    with torch.inference_mode():
        logits: torch.Tensor = model(torch.tensor([tokens]), use_cache=False).logits[0]
    return logits.float()


def read_so_far(texts: Batch, start: int) -> list[int]:
    begin = 0 if start < LENGTHS[0] else LENGTHS[0]
    return [int(token) for token in texts.tokens[begin : start + 1]]


def whole_student(config: Any) -> Student:
    target = tiny_model(config)
    layers = tuple(range(target.config.get_text_config().num_hidden_layers))
    return make_student(target, StudentShape(layers=layers), output_ids=range(VOCABULARY))


@pytest.mark.parametrize("kind", ["llama", "gemma2", "gemma3", "gpt_neox", "gpt2"])
def test_a_draft_reads_its_own_text_and_nothing_else(kind: str) -> None:
    config = CONFIGS[kind]()
    reference, texts = tiny_model(config), batch()
    drafts = np.array([[7, 8, 9], [200, 4, 4], [50, 60, 70]])
    judged = Judge(tiny_model(config)).logits(texts, starts=STARTS, tokens_BL=drafts)
    with torch.no_grad():
        student = student_logits(whole_student(config), texts, starts=STARTS, tokens_BL=drafts)
    rows = judged.view(3, 3, -1)
    for row, start in enumerate(STARTS.tolist()):
        said = [*read_so_far(texts, start), *drafts[row].tolist()]
        expected = plain(reference, said)[-3:]
        assert torch.allclose(rows[row], expected, atol=1e-4)
    size = len(texts.tokens)
    assert torch.allclose(student[size:], judged, atol=1e-4)
    first = texts.tokens[: LENGTHS[0]].tolist()
    assert torch.allclose(student[: LENGTHS[0]], plain(reference, first), atol=1e-4)


def test_a_cold_draft_is_the_chain_of_likeliest_tokens_and_a_hot_one_is_drawn() -> None:
    config = llama_config()
    reference, texts = tiny_model(config), batch()
    arguments: dict[str, Any] = {"starts": STARTS, "length": 4}
    temperatures = np.array([0.0, 3.0, 0.0])
    found = [
        draft_on(
            whole_student(config),
            texts,
            temperatures=temperatures,
            rng=np.random.default_rng(seed),
            **arguments,
        )
        for seed in (1, 2, 1)
    ]
    assert np.array_equal(found[0], found[2])
    assert not np.array_equal(found[0][1], found[1][1])
    for row in (0, 2):
        said = read_so_far(texts, int(STARTS[row]))
        for token in found[0][row].tolist():
            assert token == int(plain(reference, said)[-1].argmax())
            said.append(token)


def test_it_drafts_only_what_it_can_say() -> None:
    target = tiny_model(llama_config())
    student = make_student(target, StudentShape(layers=(0,)), output_ids=[9, 30, 111])
    drafted = draft_on(
        student,
        batch(),
        starts=STARTS,
        length=6,
        temperatures=np.array([5.0, 5.0, 0.0]),
        rng=np.random.default_rng(0),
    )
    assert set(drafted.ravel().tolist()) <= {9, 30, 111}
    assert len(set(drafted[:2].ravel().tolist())) == 3


def test_positions_count_from_where_a_draft_leaves_the_text_to_where_it_ends() -> None:
    followed = np.array([[5, 6, 7, 8]] * 5)
    drafted = np.array([[5, 6, 7, 8], [5, 6, 9, 8], [4, 6, 7, 8], [4, 2, 7, 8], [5, 2, 1, 1]])
    expected = [[0, 0, 0, 0], [0, 0, 1, 1], [1, 1, 1, 1], [1, 0, 0, 0], [0, 0, 0, 0]]
    got = counting(drafted, followed, stop_tokens=(2,))
    assert got.astype(int).tolist() == expected


def drafts() -> Drafts:
    """After tokens 1 and 7 of the first text (7 is beyond what a short batch reads), and after the first of the second."""
    return Drafts(
        cuts=np.array([1, 7, 10], np.uint32),
        tokens=np.array([[20, 21], [22, 23], [24, 25]], np.uint16),
        counts=np.array([[False, True], [True, True], [True, False]]),
        top_ids=np.array([[[3, 4]], [[5, 6]], [[7, 8]]], np.uint16).repeat(2, axis=1),
        top_logprobs=np.log(np.array([[[0.5, 0.25]]] * 3)).repeat(2, axis=1).astype(np.float16),
    )


def test_the_drafts_of_a_batch_stand_behind_its_texts() -> None:
    places = OutputPlaces(np.array([4, 5, 6, 7]), vocabulary_size=VOCABULARY)
    found = Practice([drafts()], places=places).of(batch())
    assert found is not None
    # Text two begins at token 10 of the shard, after the last token of text one, which no row reads, and at row 9.
    assert found.blocks.starts[:3].tolist() == [1, 7, 9]
    assert found.tokens[:3].tolist() == [[20, 21], [22, 23], [24, 25]]
    # Each is worth what the law of the text after the same token is worth.
    assert found.weights[:6].tolist() == [0, 1, 7, 7, 9, 0]
    assert len(found.tokens) == 16
    assert set(found.blocks.starts[3:].tolist()) == {9}
    assert not found.weights[6:].any()
    # Token 3 and token 8 are not among the outputs.
    assert found.probs[:6:2] == pytest.approx(
        np.array([[0, 0.25], [0.5, 0.25], [0.5, 0]]), rel=1e-3
    )
    assert found.indices[2].tolist() == [1, 2]
    assert found.indices[0, 1] == 0


def test_what_a_batch_does_not_read_has_no_drafts() -> None:
    places = OutputPlaces(np.arange(VOCABULARY), vocabulary_size=VOCABULARY)
    whole = batch()
    second = Batch(
        **{
            name: getattr(whole, name)
            for name in Batch.__slots__
            if name not in ("texts", "lengths")
        },
        texts=(Text(shard=1, passage=whole.texts[1].passage), whole.texts[0]),
        lengths=(5, 6, 5),
    )
    found = Practice([drafts()], places=places).of(second)
    assert found is not None
    # Shard 1 was not drafted on, and of the first text only six tokens are read.
    assert set(found.blocks.starts.tolist()) == {6}
    assert Practice([], places=places).of(whole) is None


def test_drafts_are_read_as_they_were_written(tmp_path: Path) -> None:
    write_drafts(tmp_path, 0, drafts(), text_sum="abc")
    again = read_drafts(tmp_path, 0, text_sum="abc")
    for name in Drafts.__slots__:
        assert np.array_equal(getattr(again, name), getattr(drafts(), name))
    with pytest.raises(ConfigError, match="was made on other text"):
        read_drafts(tmp_path, 0, text_sum="abd")
    path = tmp_path / "000000" / "counts.npy"
    path.write_bytes(path.read_bytes()[:-1] + b"\1")
    with pytest.raises(ConfigError, match=r"counts.npy: its sha256"):
        read_drafts(tmp_path, 0, text_sum="abc")
