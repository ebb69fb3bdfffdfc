"""Adding rows writes those rows and nothing else; memory is what was asked for, to the byte."""

import pytest
import torch
from harness.models import CONFIGS, tiny_engine, tiny_llama

from paceline.engine.engine import Engine
from paceline.engine.layout import KVLayout
from paceline.engine.rows import EngineSettings, RowGroup
from paceline.errors import OverloadedError
from paceline.tokens import TokenId


def tokens(*ids: int) -> tuple[TokenId, ...]:
    return tuple(TokenId(item) for item in ids)


@pytest.mark.parametrize(
    ("name", "row_bytes"),
    [
        # layers * 2 * key heads * head size * 4 bytes
        ("llama", 2 * 2 * 2 * 8 * 4),
        ("qwen3", 2 * 2 * 2 * 12 * 4),
        ("gemma3", 3 * 2 * 1 * 8 * 4),
        ("gpt_neox", 2 * 2 * 4 * 8 * 4),
        ("gpt2", 2 * 2 * 4 * 8 * 4),
    ],
)
def test_a_sequence_reserves_its_bounds_and_gives_them_back(name: str, row_bytes: int) -> None:
    engine = tiny_engine(CONFIGS[name]())
    assert engine.row_bytes == row_bytes
    sequence = engine.open(max_length=30, max_pending=5)
    assert sequence.buffer.untyped_storage().nbytes() == 35 * row_bytes
    assert engine.memory.reserved == 35 * row_bytes
    assert engine.memory.used == 0
    engine.forward([RowGroup(sequence=sequence, tokens=tokens(5, 6, 7), commit=True)])
    engine.forward([RowGroup(sequence=sequence, tokens=tokens(8, 9), parents=(-1, -1))])
    assert engine.memory.used == 5 * row_bytes
    engine.commit(sequence, [1])
    assert engine.memory.used == 4 * row_bytes
    engine.rollback(sequence, 1)
    assert engine.memory.used == row_bytes
    engine.close(sequence)
    engine.close(sequence)
    assert (engine.memory.reserved, engine.memory.used, engine.memory.shared) == (0, 0, 0)


def test_adding_rows_touches_only_their_own_slots() -> None:
    engine = tiny_llama()
    sequence = engine.open(max_length=100, max_pending=10)
    engine.forward(
        [RowGroup(sequence=sequence, tokens=tokens(*range(4, 54)), logits="none", commit=True)]
    )
    address = sequence.buffer.data_ptr()
    # Whoever copied the context, or moved it, would carry the marks along or wipe them out.
    sequence.buffer[:, :, :, 50:] = float("nan")
    before = sequence.buffer.clone()
    engine.forward([RowGroup(sequence=sequence, tokens=tokens(60, 61, 62), logits="none")])
    assert sequence.buffer.data_ptr() == address
    assert torch.equal(sequence.buffer[:, :, :, :50], before[:, :, :, :50])
    assert sequence.buffer[:, :, :, 50:53].isfinite().all()
    assert sequence.buffer[:, :, :, 53:].isnan().all()
    assert engine.work.rows_written == 53
    assert engine.work.rows_moved == 0


def test_a_commit_moves_only_rows_that_change_place() -> None:
    engine = tiny_llama()
    sequence = engine.open(max_length=100, max_pending=20)
    # 0 and 1 hang off the end, 2 and 3 off 1, 4 off 3, 5 off 2.
    group = RowGroup(
        sequence=sequence, tokens=tokens(4, 5, 6, 7, 8, 9), parents=(-1, -1, 1, 1, 3, 2)
    )
    engine.forward([group])
    rows = sequence.buffer.clone()
    engine.commit(sequence, path=[1, 3], keep=[4])
    assert engine.work.rows_moved == 3
    for slot, index in enumerate((1, 3, 4)):
        assert torch.equal(sequence.buffer[:, :, :, slot], rows[:, :, :, index])
    assert sequence.committed_tokens == tokens(5, 7)
    assert (sequence.pending_tokens, sequence.pending_parents) == (tokens(8), (-1,))
    engine.commit(sequence, path=[0])
    assert engine.work.rows_moved == 3


def filled(budget_rows: int) -> Engine:
    row_bytes = tiny_llama().row_bytes
    return tiny_llama(settings=EngineSettings(memory_bytes=budget_rows * row_bytes))


def test_a_budget_is_used_to_the_last_byte_and_not_beyond() -> None:
    engine = filled(100)
    first = engine.open(max_length=60, max_pending=0)
    with pytest.raises(OverloadedError, match="cache: ") as caught:
        engine.open(max_length=40, max_pending=1)
    assert caught.value.retry_after_s > 0
    second = engine.open(max_length=39, max_pending=1)
    assert engine.memory.reserved == engine.memory.budget
    engine.close(first)
    engine.close(second)
    assert engine.memory.reserved == 0


def test_what_does_not_fit_beside_a_closing_sequence_is_kept_where_it_is() -> None:
    engine = filled(100)
    prompt = tokens(*range(10, 50))
    sequence = engine.open(max_length=98, max_pending=2, prompt=prompt, tenant="a")
    engine.forward([sequence.prefill_group(100)])
    engine.close(sequence)
    # A copy of 40 rows would not have fitted beside the 100 that were reserved.
    assert engine.work.rows_copied == 0
    assert engine.memory.shared == 100 * engine.row_bytes
    assert engine.memory.used == 40 * engine.row_bytes
    # It goes as soon as somebody needs the room.
    engine.open(max_length=50, max_pending=0)
    assert engine.memory.shared == 0


def test_closing_needs_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = filled(1000)
    sequence = engine.open(max_length=98, max_pending=2, prompt=tokens(*range(10, 50)), tenant="a")
    engine.forward([sequence.prefill_group(100)])

    def refuse(_layout: KVLayout, num_rows: int) -> torch.Tensor:
        raise RuntimeError(f"out of memory: {num_rows} rows")

    monkeypatch.setattr(KVLayout, "allocate", refuse)
    engine.close(sequence)
    memory = engine.memory
    assert (memory.reserved, memory.shared) == (0, 100 * engine.row_bytes)
    assert memory.used == 40 * engine.row_bytes
    engine.clear_prefixes()
    assert engine.memory.shared == 0
