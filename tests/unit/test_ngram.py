"""What followed where a text ended like this before: all places, the rules that make a guess of them, and looking ahead."""

import random
from collections.abc import Sequence
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.drafter import tokens_of
from paceline.ngram.history import BREAK, KEY, LONGEST, OCCURRENCES, History
from paceline.ngram.recurrence import AFTER_ONE, Recurrence, Rule
from paceline.ngram.rules import DOUBT, blended, counted, looked_up, lookup_chance
from paceline.tokens import TokenId

TEXTS = st.lists(st.integers(0, 3).map(TokenId), max_size=40)


def _ids(*tokens: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, tokens))


def _read(rule: Rule, text: Sequence[TokenId], *, most_tokens: int = 1000) -> Recurrence:
    recurrence = Recurrence(rule, most_tokens=most_tokens)
    for token in text:
        recurrence.append(token)
    return recurrence


def _matches_by_definition(
    text: Sequence[TokenId], end: Sequence[TokenId], *, first: int
) -> list[tuple[int, TokenId]]:
    """Places from `first` on; the latest comes first."""
    found = []
    for place in range(len(text) - 1, first + KEY - 1, -1):
        size = 0
        while (
            size < min(len(end), LONGEST)
            and place - size - 1 >= first
            and text[place - size - 1] == end[-size - 1]
        ):
            size += 1
        if size >= KEY:
            found.append((size, text[place]))
    return found[:OCCURRENCES]


@given(text=TEXTS, end=TEXTS, most=st.integers(4, 50))
def test_matches_equal_the_definition_whatever_was_forgotten(
    text: list[TokenId], end: list[TokenId], most: int
) -> None:
    history = History(most)
    for token in text:
        history.append(token)
    assert len(history) == min(most, len(text))
    first = max(0, len(text) - most)
    assert list(history.matches(end)) == _matches_by_definition(text, end, first=first)


def test_no_match_runs_over_the_end_of_a_text() -> None:
    history = History(20)
    for token in (*_ids(1, 2, 3), BREAK, *_ids(3, 1, 2, 9)):
        history.append(token)
    assert list(history.matches(_ids(2, 3))) == []
    assert list(history.matches(_ids(3, 1, 2))) == [(3, 9), (2, 3)]


def test_more_places_and_longer_matches_make_surer() -> None:
    once = blended([(2, TokenId(7))])[TokenId(7)]
    assert once == pytest.approx(1 / (1 + DOUBT))
    assert blended([(2, TokenId(7))] * 3)[TokenId(7)] > once
    assert blended([(5, TokenId(7))])[TokenId(7)] > once
    # Three short matches say 7, one long one says 8.
    mixed = blended([(8, TokenId(8)), *[(2, TokenId(7))] * 3])
    assert mixed[TokenId(8)] > mixed[TokenId(7)]
    assert blended([]) == {}


@given(st.lists(st.tuples(st.integers(KEY, LONGEST), st.integers(0, 4).map(TokenId)), max_size=20))
def test_chances_are_a_part_of_one(matches: list[tuple[int, TokenId]]) -> None:
    chances = blended(matches)
    assert set(chances) == {token for _, token in matches}
    assert all(chance > 0 for chance in chances.values())
    assert sum(chances.values()) < 1


def test_lookup_takes_the_latest_of_the_longest() -> None:
    assert looked_up([]) is None
    best = looked_up([(2, TokenId(5)), (4, TokenId(6)), (4, TokenId(7))])
    assert best is not None
    assert (best.token, best.chance) == (6, lookup_chance(4))
    assert lookup_chance(3) > lookup_chance(2) > 0


@pytest.mark.parametrize("rule", [looked_up, counted])
def test_it_goes_on_as_the_text_did_and_ends_where_nothing_is_known(rule: Rule) -> None:
    recurrence = _read(rule, _ids(1, 2, 3, 4, 5, 9, 1, 2))
    # 9 is known to be followed by 1, and so round and round for as long as somebody asks.
    assert tokens_of(islice(recurrence.ahead(), 9)) == _ids(3, 4, 5, 9, 1, 2, 3, 4, 5)
    assert tokens_of(_read(rule, _ids(1, 2, 3)).ahead()) == ()
    assert tokens_of(_read(rule, ()).ahead()) == ()


def test_one_token_says_little() -> None:
    recurrence = _read(counted, _ids(1, 2, 7, 1))
    assert next(recurrence.ahead()).chance == AFTER_ONE
    recurrence.append(TokenId(2))
    assert next(recurrence.ahead()).chance == pytest.approx(1 / (1 + DOUBT)) != AFTER_ONE


@pytest.mark.parametrize("rule", [looked_up, counted])
def test_looking_ahead_teaches_nothing(rule: Rule) -> None:
    rng = random.Random(3)
    text = _ids(*(rng.randrange(6) for _ in range(200)))
    silent = Recurrence(rule, most_tokens=50)
    curious = Recurrence(rule, most_tokens=50)
    for token in text:
        tuple(islice(curious.ahead(), 5))
        silent.append(token)
        curious.append(token)
        assert tuple(islice(curious.ahead(), 5)) == tuple(islice(silent.ahead(), 5))
