"""Common prefixes are computed once, by whoever comes first, and seen only by those who may."""

import pytest
import torch
from harness.engine_trial import Reference
from harness.models import llama_config, tiny_llama, tiny_model

from paceline.engine.engine import Engine
from paceline.engine.rows import EngineSettings, RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.errors import OverloadedError
from paceline.tokens import TokenId

SYSTEM = tuple(TokenId(4 + index % 200) for index in range(60))
REFERENCE = Reference(tiny_model(llama_config()))


def chat(*tail: int) -> tuple[TokenId, ...]:
    return (*SYSTEM, *(TokenId(token) for token in tail))


def open_chat(engine: Engine, prompt: tuple[TokenId, ...], tenant: str = "shop") -> CacheSequence:
    return engine.open(max_length=100, max_pending=8, prompt=prompt, tenant=tenant)


def prefill(engine: Engine, sequence: CacheSequence, *, chunk: int = 100) -> torch.Tensor:
    """Prefill to the end; returns the logits behind the prompt, [V]."""
    while True:
        logits = engine.forward([sequence.prefill_group(chunk)]).of(0)
        if len(logits):
            return logits[0]


def append(engine: Engine, sequence: CacheSequence, *tokens: int) -> None:
    rows = tuple(TokenId(token) for token in tokens)
    engine.forward([RowGroup(sequence=sequence, tokens=rows, commit=True, logits="none")])


def assert_right(logits: torch.Tensor, text: tuple[TokenId, ...]) -> None:
    assert (logits - REFERENCE.logits(text)).abs().max() < 1e-4


def test_eight_sessions_that_open_together_compute_their_system_prompt_once() -> None:
    engine = tiny_llama()
    sequences = [open_chat(engine, chat(210, 220 + index)) for index in range(8)]
    steps = 0
    finished: dict[int, torch.Tensor] = {}
    while len(finished) < 8:
        ready = [
            index
            for index, sequence in enumerate(sequences)
            if index not in finished and not sequence.waiting_for_prefix
        ]
        logits = engine.forward([sequences[index].prefill_group(16) for index in ready])
        finished |= {
            index: logits.of(group)[0] for group, index in enumerate(ready) if len(logits.of(group))
        }
        steps += 1
    for index, logits_V in finished.items():
        assert_right(logits_V, chat(210, 220 + index))
    # The system prompt and the token that all share once, then one token for each session.
    assert engine.work.rows_written == 61 + 8
    assert steps <= 6


def test_a_second_turn_computes_only_what_is_new() -> None:
    engine = tiny_llama()
    first = open_chat(engine, chat(210))
    prefill(engine, first)
    append(engine, first, 220, 221, 222)
    engine.close(first)
    second = open_chat(engine, chat(210, 220, 221, 222, 230, 231))
    assert second.length == second.shared_length == len(SYSTEM) + 4
    assert second.num_to_prefill == 2
    assert_right(prefill(engine, second), chat(210, 220, 221, 222, 230, 231))
    append(engine, second, 240)
    engine.close(second)
    third = open_chat(engine, chat(210, 220, 221, 222, 230, 231, 240, 250))
    assert third.num_to_prefill == 1
    assert_right(prefill(engine, third), chat(210, 220, 221, 222, 230, 231, 240, 250))


def test_an_engine_that_copies_computes_as_little_and_attends_to_one_piece() -> None:
    engine = tiny_llama(settings=EngineSettings(copies=True))
    first = open_chat(engine, chat(210))
    other = open_chat(engine, chat(210, 230))
    assert not other.waiting_for_prefix
    prefill(engine, first)
    append(engine, first, 220, 221, 222)
    engine.close(first)
    second = open_chat(engine, chat(210, 220, 221, 222, 230, 231))
    assert (second.length, second.shared_length, second.num_to_prefill) == (len(SYSTEM) + 4, 0, 2)
    assert engine.work.rows_copied == 2 * (len(SYSTEM) + 4)  # into the cache, and out of it
    assert_right(prefill(engine, second), chat(210, 220, 221, 222, 230, 231))
    assert_right(prefill(engine, other), chat(210, 230))
    engine.rollback(second, 3)
    for sequence in (second, other):
        engine.close(sequence)
    assert open_chat(engine, chat(210, 230, 5)).num_to_prefill == 1
    assert engine.memory.shared == (len(SYSTEM) + 5) * engine.row_bytes


def test_a_prompt_that_is_cached_whole_computes_its_last_token_again() -> None:
    engine = tiny_llama()
    first = open_chat(engine, chat(210))
    prefill(engine, first)
    second = open_chat(engine, chat(210))
    assert second.num_to_prefill == 1
    assert_right(prefill(engine, second), chat(210))
    # Both go on in the same way and leave the same text; it is kept once.
    for sequence in (first, second):
        append(engine, sequence, 220)
        engine.close(sequence)
    assert engine.memory.used == (len(SYSTEM) + 2) * engine.row_bytes


def test_when_the_session_that_computes_a_prefix_ends_another_goes_on_with_it() -> None:
    engine = tiny_llama()
    leader = open_chat(engine, chat(210))
    followers = [open_chat(engine, chat(220 + index)) for index in range(2)]
    engine.forward([leader.prefill_group(25)])
    assert [item.waiting_for_prefix for item in followers] == [True, True]
    assert [item.length for item in followers] == [25, 25]
    assert [item.num_to_prefill for item in followers] == [1, 1]
    engine.close(leader)
    assert [item.waiting_for_prefix for item in followers] == [False, True]
    assert [item.num_to_prefill for item in followers] == [len(SYSTEM) - 25 + 1, 1]
    assert_right(prefill(engine, followers[0], chunk=7), chat(220))
    assert not followers[1].waiting_for_prefix
    assert_right(prefill(engine, followers[1]), chat(221))
    assert engine.work.rows_written == len(SYSTEM) + 2


def test_a_follower_can_stop_waiting() -> None:
    engine = tiny_llama()
    leader, follower = open_chat(engine, chat(210)), open_chat(engine, chat(220))
    engine.forward([leader.prefill_group(25)])
    engine.take_over(follower)
    assert leader.length == 25
    assert_right(prefill(engine, follower), chat(220))
    # The leader's own part is behind the prefix that the follower has filled in the meantime.
    assert leader.length == len(SYSTEM)
    assert_right(prefill(engine, leader), chat(210))


def test_who_has_computed_its_part_of_a_prefix_hands_over_to_who_needs_more() -> None:
    engine = tiny_llama()
    leader = open_chat(engine, chat(210, 211, 212, 213))
    short = open_chat(engine, chat(220))
    long = open_chat(engine, chat(210, 211, 212, 230))
    engine.close(leader)
    assert_right(prefill(engine, short), chat(220))
    assert not long.waiting_for_prefix
    assert_right(prefill(engine, long), chat(210, 211, 212, 230))
    assert engine.work.rows_written == len(SYSTEM) + 1 + 4


@pytest.mark.parametrize(
    ("sharing", "tenants", "shared"),
    [
        ("tenant", ("shop", "shop"), True),
        ("tenant", ("shop", "bank"), False),
        ("tenant", ("shop", ""), False),
        ("tenant", ("", ""), False),
        ("all", ("shop", "bank"), True),
        ("all", ("", ""), True),
        ("none", ("shop", "shop"), False),
    ],
)
def test_who_shares_with_whom(sharing: str, tenants: tuple[str, str], shared: bool) -> None:
    engine = tiny_llama(settings=EngineSettings(sharing=sharing))  # type: ignore[arg-type]
    first = open_chat(engine, chat(210), tenants[0])
    prefill(engine, first)
    engine.close(first)
    second = open_chat(engine, chat(220), tenants[1])
    assert second.shared_length == (len(SYSTEM) if shared else 0)


def test_room_is_made_by_dropping_what_was_unused_for_longest() -> None:
    row_bytes = tiny_llama().row_bytes
    budget = 300 * row_bytes
    engine = tiny_llama(settings=EngineSettings(memory_bytes=budget))
    texts = [tuple(TokenId(start) for _ in range(50)) for start in range(10, 20)]
    for text in texts:
        sequence = open_chat(engine, text)
        prefill(engine, sequence)
        engine.close(sequence)
        # The oldest is used again and again, so that it stays.
        engine.close(open_chat(engine, (*texts[0], TokenId(99))))
        assert engine.memory.reserved == 0
        assert engine.memory.shared <= budget
    lengths = []
    for text in reversed(texts):
        sequence = open_chat(engine, (*text, TokenId(98)))
        lengths.append(sequence.shared_length)
        engine.close(sequence)
    assert lengths[0] == lengths[-1] == 50
    assert 0 in lengths[1:-1]
    # Kept rows that opening the last sequences did not push out; what was dropped was a whole run of the oldest.
    assert lengths[1:-1] == sorted(lengths[1:-1], reverse=True)


def test_a_prefix_in_use_is_never_dropped() -> None:
    row_bytes = tiny_llama().row_bytes
    engine = tiny_llama(settings=EngineSettings(memory_bytes=180 * row_bytes))
    first = open_chat(engine, chat(210))
    prefill(engine, first)
    engine.close(first)
    second = open_chat(engine, chat(220))
    with pytest.raises(OverloadedError, match="are needed"):
        engine.open(max_length=100, max_pending=8)
    assert_right(prefill(engine, second), chat(220))
    engine.close(second)
    engine.open(max_length=100, max_pending=8)


def test_a_closed_sequence_keeps_its_text_in_no_more_memory_than_it_needs() -> None:
    engine = tiny_llama()
    sequence = open_chat(engine, chat(210))
    prefill(engine, sequence)
    append(engine, sequence, 220)
    engine.close(sequence)
    used = (len(SYSTEM) + 2) * engine.row_bytes
    memory = engine.memory
    assert (memory.reserved, memory.used, memory.shared) == (0, used, used)
    engine.clear_prefixes()
    memory = engine.memory
    assert (memory.reserved, memory.used, memory.shared) == (0, 0, 0)
