"""Suffix n-gram: guesses from counts, memory across answers, bounded."""

import time
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.drafters.suffix import SuffixDraft, SuffixDrafter
from paceline.drafter import tokens_of
from paceline.ngram.rules import DOUBT
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

GREEDY = SamplingSettings(temperature=0.0)
TEXTS = st.lists(st.integers(0, 3).map(TokenId), max_size=40)


def _ids(*tokens: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, tokens))


def _open(drafter: SuffixDrafter, prompt: Sequence[TokenId], count: int = 100) -> SuffixDraft:
    return drafter.open(prompt_length=len(prompt), max_tokens=count, sampling=GREEDY)


def test_it_goes_on_as_the_text_did_before_and_stops_when_unsure() -> None:
    prompt = _ids(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4)
    draft = _open(SuffixDrafter(), prompt)
    guesses = draft.guess(prompt, 3)
    assert tokens_of(guesses) == _ids(5, 6, 7)
    assert guesses[0].chance == pytest.approx(1 - (DOUBT / (1 + DOUBT)) ** 3)
    assert draft.extend(prompt, 3) == _ids(5, 6, 7)
    # A single pair is believed once, but not twice in a row.
    assert draft.extend(_ids(5, 6, 8, 8, 5, 6), 4) == _ids(8)
    assert draft.extend(_ids(5, 6, 8, 8, 5, 6, 8), 4, num_guessed=1) == ()


def test_guesses_are_not_learned_and_commits_are_at_once() -> None:
    prompt = _ids(1, 2, 3, 1, 2)
    draft = _open(SuffixDrafter(), prompt)
    assert draft.extend(prompt, 1) == _ids(3)
    assert draft.extend((*prompt, *_ids(9, 1, 2)), 1, num_guessed=3) == _ids(3)
    # The same as committed text: 9 after 1 2 is the latest now.
    assert draft.extend((*prompt, *_ids(9, 1, 2)), 1) == _ids(9)


def test_an_answer_is_remembered_for_the_next_prompt() -> None:
    drafter, prompt = SuffixDrafter(), _ids(50, 51)
    answer = _ids(1, 2, 3, 4, 5, 6)
    draft = _open(drafter, prompt)
    draft.extend((*prompt, *answer), 1)
    other = _open(drafter, prompt)
    assert other.extend(_ids(60, 1, 2, 3), 2) == ()  # the first one is not closed yet
    draft.close()
    assert other.extend(_ids(60, 1, 2, 3), 2) == _ids(4, 5)
    # The last tokens of the prompt lead into the answer, all else of it stays private to its draft.
    assert _open(drafter, prompt).extend(prompt, 1) == _ids(1)
    forgetful = SuffixDrafter(memory_tokens=0)
    draft = _open(forgetful, prompt)
    draft.extend((*prompt, *answer), 1)
    draft.close()
    assert _open(forgetful, prompt).extend(_ids(60, 1, 2, 3), 2) == ()


def test_memory_is_bounded() -> None:
    drafter = SuffixDrafter(memory_tokens=100)
    for start in range(0, 500, 10):
        draft = _open(drafter, _ids(0, 0))
        draft.extend((*_ids(0, 0), *_ids(*range(start, start + 10))), 1)
        draft.close()
    memory = drafter._memory
    assert memory is not None
    assert len(memory) == 100
    assert len(memory._places) <= 100
    fresh = _open(drafter, _ids(0))
    assert fresh.extend(_ids(495, 496, 497), 1) == _ids(498)
    assert fresh.extend(_ids(5, 6, 7), 1) == ()


@given(texts=st.lists(TEXTS, min_size=1, max_size=5), guessed=st.integers(0, 4))
def test_any_texts_in_any_order_are_taken(texts: list[list[TokenId]], guessed: int) -> None:
    draft = _open(SuffixDrafter(), ())
    for text in texts:
        found = draft.guess(text, 4, num_guessed=min(guessed, len(text)))
        assert len(found) <= 4
        assert all(0.0 < guess.chance < 1.0 for guess in found)
    draft.close()


def test_a_long_prompt_is_learned_in_pieces_and_in_linear_time() -> None:
    prompt = [TokenId((i * i) % 997) for i in range(12_000)]
    draft = _open(SuffixDrafter(), prompt)
    started_s = time.process_time()
    pieces = 1
    while draft.prepare(prompt):
        pieces += 1
    assert pieces == 3
    assert not draft.prepare(prompt)
    for length in range(11_900, 12_000):
        draft.extend(prompt[:length], 4, num_guessed=0)
    assert time.process_time() - started_s < 5.0
