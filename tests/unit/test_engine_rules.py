"""The interface says what is wrong, and nothing changes."""

from collections.abc import Callable

import pytest
from harness.models import tiny_llama

from paceline.engine.engine import Engine
from paceline.engine.rows import RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.errors import InvalidRequestError, LocalProtocolError
from paceline.tokens import TokenId

IDS = tuple(TokenId(item) for item in range(10, 20))


def with_tree(engine: Engine) -> CacheSequence:
    """Three committed tokens and a tree: 0 off the end, 1 and 2 off 0."""
    sequence = engine.open(max_length=12, max_pending=4)
    engine.forward([RowGroup(sequence=sequence, tokens=IDS[:3], logits="none", commit=True)])
    engine.forward([RowGroup(sequence=sequence, tokens=IDS[:3], parents=(-1, 0, 0))])
    return sequence


def closed(engine: Engine, sequence: CacheSequence) -> CacheSequence:
    engine.close(sequence)
    return sequence


WRONG_GROUPS: dict[str, Callable[[Engine, CacheSequence], list[RowGroup]]] = {
    "got none, expected at least one": lambda _, s: [RowGroup(sequence=s, tokens=())],
    "expected 0 to 259": lambda _, s: [RowGroup(sequence=s, tokens=(TokenId(260),))],
    "in an earlier group": lambda _, s: [RowGroup(sequence=s, tokens=IDS[:1])] * 2,
    "at most 4": lambda _, s: [RowGroup(sequence=s, tokens=IDS[:2])],
    "expected one per token": lambda _, s: [RowGroup(sequence=s, tokens=IDS[:1], parents=())],
    "expected -1 to 2": lambda _, s: [RowGroup(sequence=s, tokens=IDS[:1], parents=(3,))],
    "are a chain off the committed end": lambda _, s: [
        RowGroup(sequence=s, tokens=IDS[:1], commit=True)
    ],
    "the sequence is closed": lambda e, s: [RowGroup(sequence=closed(e, s), tokens=IDS[:1])],
}


@pytest.mark.parametrize("message", WRONG_GROUPS)
def test_rows_that_break_a_rule_are_refused_before_anything_runs(message: str) -> None:
    engine = tiny_llama()
    sequence = with_tree(engine)
    written = engine.work.rows_written
    groups = WRONG_GROUPS[message](engine, sequence)
    with pytest.raises(LocalProtocolError, match=message):
        engine.forward(groups)
    assert engine.work.rows_written == written


def test_no_row_goes_beyond_max_length() -> None:
    engine = tiny_llama()
    sequence = engine.open(max_length=5, max_pending=9)
    engine.forward([RowGroup(sequence=sequence, tokens=IDS[:3], logits="none", commit=True)])
    for commit in (True, False):
        with pytest.raises(LocalProtocolError, match="at most max_length, 5"):
            engine.forward([RowGroup(sequence=sequence, tokens=IDS[:3], commit=commit)])
    # Siblings share a position: nine rows fit into two.
    engine.forward(
        [RowGroup(sequence=sequence, tokens=IDS[:9], parents=(-1, 0, 0, 0, 0, 0, 0, 0, 0))]
    )


def test_the_prompt_comes_first_and_as_it_was_given() -> None:
    engine = tiny_llama()
    sequence = engine.open(max_length=12, max_pending=4, prompt=IDS[:4])
    with pytest.raises(LocalProtocolError, match="4 tokens of its prompt are not computed"):
        engine.forward([RowGroup(sequence=sequence, tokens=IDS[:1])])
    with pytest.raises(LocalProtocolError, match="from position 0 on are not those of the prompt"):
        engine.forward([RowGroup(sequence=sequence, tokens=IDS[1:3], commit=True)])
    engine.forward([sequence.prefill_group(9)])
    with pytest.raises(LocalProtocolError, match="0 tokens to prefill"):
        sequence.prefill_group(9)


def test_a_sequence_that_waits_has_nothing_to_run() -> None:
    engine = tiny_llama()
    engine.open(max_length=12, max_pending=4, prompt=IDS, tenant="a")
    follower = engine.open(max_length=12, max_pending=4, prompt=IDS, tenant="a")
    assert follower.waiting_for_prefix
    with pytest.raises(LocalProtocolError, match="waits for a prefix"):
        engine.forward([RowGroup(sequence=follower, tokens=IDS[:1], commit=True)])
    with pytest.raises(LocalProtocolError, match="waiting for a prefix: True"):
        follower.prefill_group(1)


@pytest.mark.parametrize(
    ("path", "keep"),
    [
        ([1], []),
        ([0, 0], []),
        ([3], []),
        ([-1], []),
        ([0], [0]),
        ([0, 1], [2]),
        ([], [1]),
        ([0], [2, 2]),
    ],
)
def test_a_commit_is_a_path_from_the_end_and_what_hangs_off_it(
    path: list[int], keep: list[int]
) -> None:
    engine = tiny_llama()
    sequence = with_tree(engine)
    with pytest.raises(LocalProtocolError, match=r"commit\.(path|keep): got"):
        engine.commit(sequence, path, keep)
    assert (sequence.length, sequence.num_pending) == (3, 3)
    engine.commit(sequence, [0, 2])
    assert sequence.committed_tokens == (*IDS[:3], IDS[0], IDS[2])


def test_a_rollback_ends_inside_the_text_and_above_what_is_shared() -> None:
    engine = tiny_llama()
    sequence = engine.open(max_length=12, max_pending=4, prompt=IDS[:5], tenant="a")
    engine.forward([sequence.prefill_group(9)])
    engine.forward([RowGroup(sequence=sequence, tokens=IDS[:2], commit=True)])
    for length in (-1, 4, 8):
        with pytest.raises(LocalProtocolError, match=rf"got {length}, expected 5 to 7"):
            engine.rollback(sequence, length)
    engine.rollback(sequence, 5)
    assert sequence.committed_tokens == IDS[:5]


def test_a_sequence_has_bounds_that_the_model_can_keep() -> None:
    engine = tiny_llama()
    with pytest.raises(InvalidRequestError, match="max_length: got 513, expected 1 to 512"):
        engine.open(max_length=513, max_pending=0)
    with pytest.raises(InvalidRequestError, match="max_pending: got -1"):
        engine.open(max_length=5, max_pending=-1)
    with pytest.raises(InvalidRequestError, match="prompt: got 10 tokens"):
        engine.open(max_length=5, max_pending=0, prompt=IDS)
    with pytest.raises(InvalidRequestError, match="prompt: got ids from -1 to 7"):
        engine.open(max_length=5, max_pending=0, prompt=(TokenId(-1), TokenId(7)))
    assert engine.memory.reserved == 0
