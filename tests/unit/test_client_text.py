"""Stop strings: the text ends before them, whatever the tokens' borders, and nothing doubtful is shown before."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.client.outcome import Piece
from paceline.client.text import MAX_STOP_CHARACTERS, MAX_STOP_STRINGS, StopStrings
from paceline.errors import InvalidRequestError
from paceline.tokens import Position, TokenId


def _pieces(texts: list[str]) -> list[Piece]:
    return [
        Piece(text=text, token_ids=(TokenId(i),), accepted=False, position=Position(i))
        for i, text in enumerate(texts)
    ]


def _run(texts: list[str], stops: list[str]) -> tuple[list[Piece], bool]:
    strings = StopStrings(stops)
    given: list[Piece] = []
    for piece in _pieces(texts):
        progress = strings.push(piece)
        given.extend(progress.pieces)
        if progress.stopped:
            return given, True
    given.extend(strings.flush())
    return given, False


def _text(pieces: list[Piece]) -> str:
    return "".join(piece.text for piece in pieces)


def test_without_stop_strings_every_piece_passes_at_once() -> None:
    strings = StopStrings(())
    for piece in _pieces(["a", "", "b"]):
        assert strings.push(piece).pieces == (piece,)


def test_a_stop_string_within_a_token_cuts_it() -> None:
    pieces, stopped = _run(["one ", "two STOP three", " four"], ["STOP"])
    assert stopped
    assert _text(pieces) == "one two "
    assert len(pieces) == 2


def test_a_stop_string_over_many_tokens_leaves_nothing_of_it() -> None:
    pieces, stopped = _run(["a", "S", "T", "", "O", "P", "b"], ["STOP"])
    assert stopped
    assert [piece.text for piece in pieces] == ["a", "", "", "", "", ""]


def test_what_may_begin_a_stop_string_is_held_back() -> None:
    strings = StopStrings(["\n\n"])
    first, second, third = _pieces(["a\n", "b", "\n"])
    assert strings.push(first).pieces == ()
    assert strings.push(second).pieces == (first, second)
    assert strings.push(third).pieces == ()
    assert strings.flush() == (third,)


def test_the_stop_string_that_begins_first_counts() -> None:
    pieces, stopped = _run(["xabcd"], ["cd", "ab"])
    assert stopped
    assert _text(pieces) == "x"


@given(
    texts=st.lists(st.text(alphabet="ab", max_size=3), max_size=12),
    stops=st.lists(st.text(alphabet="ab", min_size=1, max_size=4), max_size=3),
)
def test_equals_a_search_in_the_whole_text_token_by_token(
    texts: list[str], stops: list[str]
) -> None:
    expected, length, expected_stop = "", 0, False
    for text in texts:
        expected, length = expected + text, length + 1
        found = [at for stop in stops if (at := expected.find(stop)) >= 0]
        if found:
            expected, expected_stop = expected[: min(found)], True
            break
    pieces, stopped = _run(texts, stops)
    assert stopped == expected_stop
    assert _text(pieces) == expected
    assert [piece.token_ids for piece in pieces] == [(i,) for i in range(length)]


@given(texts=st.lists(st.text(alphabet="ab", max_size=3), max_size=12))
def test_nothing_given_is_ever_taken_back(texts: list[str]) -> None:
    stops = ["abba", "bb"]
    strings = StopStrings(stops)
    shown = ""
    for piece in _pieces(texts):
        progress = strings.push(piece)
        shown += "".join(p.text for p in progress.pieces)
        assert not any(stop in shown for stop in stops)
        if progress.stopped:
            break


@pytest.mark.parametrize(
    "stops", [[""], ["x" * (MAX_STOP_CHARACTERS + 1)], ["x"] * (MAX_STOP_STRINGS + 1)]
)
def test_stop_strings_out_of_bounds_are_refused(stops: list[str]) -> None:
    with pytest.raises(InvalidRequestError, match="stop: got"):
        StopStrings(stops)
