"""Engines that share weights and nothing else."""

from copy import deepcopy

import torch
from harness.models import tiny_llama

from paceline.engine.engine import Engine
from paceline.engine.rows import EngineSettings, RowGroup
from paceline.tokens import TokenId

TEXT = tuple(map(TokenId, range(10, 30)))


def _logits(engine: Engine) -> torch.Tensor:
    sequence = engine.open(max_length=30, max_pending=0, prompt=TEXT, tenant="somebody")
    group = RowGroup(
        sequence=sequence, tokens=TEXT[sequence.shared_length :], logits="last", commit=True
    )
    values = engine.forward([group]).of(0)
    engine.close(sequence)
    return values


def test_twins_compute_the_same_on_caches_of_their_own() -> None:
    engine = tiny_llama()
    expected = _logits(engine)
    assert engine.memory.shared > 0
    twin = engine.twin(EngineSettings(memory_bytes=100 * engine.row_bytes))
    assert twin.memory.shared == 0
    assert twin.memory.budget == 100 * engine.row_bytes
    assert twin.work.rows_written == 0
    assert torch.equal(_logits(twin), expected)
    assert twin.work.rows_written == len(TEXT)
    assert engine.work.rows_written == len(TEXT)
    # Each hears of its own forward passes only.
    assert twin.step_split.num_steps == 1
    assert 0 < twin.step_split.head_ns < 10**9
    assert engine.step_split.num_steps == 1


def test_a_copy_is_a_twin_that_shares_the_weights() -> None:
    engine = tiny_llama()
    copied = deepcopy({"drafter": engine})["drafter"]
    assert copied is not engine
    weights = [id(weight) for weight in engine._model.parameters()]
    assert [id(weight) for weight in copied._model.parameters()] == weights
    assert torch.equal(_logits(copied), _logits(engine))
