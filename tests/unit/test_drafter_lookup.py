"""Prompt lookup against the definition, by brute force."""

import time

from hypothesis import given
from hypothesis import strategies as st

from edge.drafters.lookup import LookupDraft, LookupDrafter
from edge.drafters.prefix import common_length
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

TEXTS = st.lists(st.integers(0, 2).map(TokenId), max_size=24)


def _draft(longest: int = 3, shortest: int = 1) -> LookupDraft:
    drafter = LookupDrafter(longest=longest, shortest=shortest)
    return drafter.open(prompt_length=1, max_tokens=9, sampling=SamplingSettings())


def _ids(*tokens: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, tokens))


def _longest_match(text: list[TokenId], sizes: range) -> tuple[int, int] | None:
    """Its size, and where its most recent earlier occurrence ends."""
    for size in sizes:
        ends = [
            end
            for end in range(size, len(text))
            if size <= len(text) and text[end - size : end] == text[len(text) - size :]
        ]
        if ends:
            return size, max(ends)
    return None


def _by_definition(
    text: list[TokenId], limit: int, *, sizes: range, num_guessed: int = 0
) -> tuple[TokenId, ...]:
    """Longest match first, most recent occurrence, own guesses are text; two guesses per committed token that matches."""
    committed = _longest_match(text[: len(text) - num_guessed], sizes)
    most = 0 if committed is None else 2 * committed[0] - num_guessed
    grown = list(text)
    while len(grown) < len(text) + min(limit, most) and (found := _longest_match(grown, sizes)):
        grown.append(grown[found[1]])
    return tuple(grown[len(text) :])


def test_what_followed_before_is_guessed_again() -> None:
    assert _draft().extend(_ids(1, 2, 3, 4, 9, 1, 2), 3) == _ids(3, 4, 9)


def test_the_longest_match_wins_over_a_later_one() -> None:
    assert _draft().extend(_ids(1, 2, 3, 7, 2, 5, 1, 2), 1) == _ids(3)


def test_of_equal_matches_the_most_recent_wins() -> None:
    assert _draft().extend(_ids(1, 2, 1, 3, 1), 1) == _ids(3)


def test_repetition_goes_on_for_as_long_as_it_is_trusted() -> None:
    draft = _draft()
    assert draft.extend(_ids(1, 2, 1, 2), 3) == _ids(1, 2, 1)
    assert draft.extend(_ids(1, 2, 1, 2, 1, 2, 1), 3, num_guessed=3) == _ids(2)
    assert draft.extend(_ids(1, 2, 1, 2, 1, 2, 1, 2), 3, num_guessed=4) == ()
    # Two of the guesses are committed: three tokens match now.
    assert draft.extend(_ids(1, 2, 1, 2, 1, 2, 1, 2), 9, num_guessed=2) == _ids(1, 2, 1, 2)


def test_a_short_match_is_trusted_for_few_guesses() -> None:
    text = _ids(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2)
    assert _draft(longest=6, shortest=2).extend(text, 8) == _ids(3, 4, 5, 6)
    text = _ids(1, 2, 3, 4, 5, 6, 7, 8, 9, 1, 2, 3, 4)
    assert _draft(longest=6, shortest=2).extend(text, 8) == _ids(5, 6, 7, 8, 9, 1, 2, 3)


def test_there_is_nothing_to_prepare() -> None:
    assert not _draft().prepare(_ids(1, 2, 3))


def test_nothing_known_is_nothing_guessed() -> None:
    assert _draft().extend(_ids(1, 2, 3), 4) == ()
    assert _draft(shortest=2).extend(_ids(1, 2, 1), 4) == ()
    assert _draft().extend((), 4) == ()


@given(
    texts=st.lists(TEXTS, min_size=1, max_size=5),
    limit=st.integers(1, 6),
    guessed=st.integers(0, 4),
)
def test_one_draft_told_any_texts_equals_the_definition(
    texts: list[list[TokenId]], limit: int, guessed: int
) -> None:
    draft = _draft(longest=3, shortest=1)
    for text in texts:
        num_guessed = min(guessed, len(text))
        expected = _by_definition(text, limit, sizes=range(3, 0, -1), num_guessed=num_guessed)
        assert draft.extend(text, limit, num_guessed=num_guessed) == expected
    draft.close()
    assert draft.extend((), limit) == ()


@given(text=TEXTS, limit=st.integers(1, 6))
def test_matches_shorter_than_the_shortest_do_not_count(text: list[TokenId], limit: int) -> None:
    assert _draft(4, 2).extend(text, limit) == _by_definition(text, limit, sizes=range(4, 1, -1))


@given(left=TEXTS, right=TEXTS)
def test_common_length_is_the_longest_common_beginning(
    left: list[TokenId], right: list[TokenId]
) -> None:
    length = common_length(left, right)
    assert left[:length] == right[:length]
    assert length == min(len(left), len(right)) or left[length] != right[length]


def test_a_long_text_costs_per_token_not_per_length() -> None:
    # Ten thousand tokens that never repeat for long: a quadratic search would take minutes.
    text = [TokenId((i * i) % 997) for i in range(10_000)]
    draft = _draft(longest=6, shortest=2)
    started_s = time.process_time()
    draft.extend(text, 4)
    for length in range(9_000, 9_100):
        draft.extend(text[:length], 4)
    assert time.process_time() - started_s < 2.0
