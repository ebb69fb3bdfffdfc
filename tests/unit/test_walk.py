"""Walks along given draws."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from cloud.walk import NO_DRAFTS, ROOT, Ask, Draw, Tree, Walk, walk
from paceline.errors import ModelError
from paceline.tokens import TokenId

T = TokenId


def along(*texts: Sequence[int]) -> tuple[list[list[Ask]], Draw]:
    """A draw that goes along one text per tree, and the list of its calls."""
    calls: list[list[Ask]] = []

    def draw(asks: Sequence[Ask]) -> list[TokenId]:
        calls.append(list(asks))
        return [T(texts[ask.tree][len(ask.path)]) for ask in asks]

    return calls, draw


def outcome(tree: Tree, text: Sequence[int]) -> Walk | ModelError:
    _, draw = along(text)
    return walk([tree], draw)[0]


CHAIN = Tree(tokens=(T(1), T(2), T(3)), parents=(ROOT, 0, 1))
FORK = Tree(tokens=(T(1), T(2), T(3), T(4), T(5)), parents=(ROOT, ROOT, 0, 1, 3))
"""1 -> 3; 2 -> 4 -> 5."""


def test_no_drafts_yield_one_token() -> None:
    assert outcome(NO_DRAFTS, [7]) == Walk(tokens=(T(7),), rows=(ROOT,))


def test_all_accepted_yields_a_bonus() -> None:
    assert outcome(CHAIN, [1, 2, 3, 9]) == Walk(
        tokens=(T(1), T(2), T(3), T(9)), rows=(ROOT, 0, 1, 2)
    )


def test_a_rejection_yields_the_recovered_token() -> None:
    assert outcome(CHAIN, [1, 8]) == Walk(tokens=(T(1), T(8)), rows=(ROOT, 0))
    assert outcome(CHAIN, [8]) == Walk(tokens=(T(8),), rows=(ROOT,))


def test_any_branch_may_win() -> None:
    assert outcome(FORK, [2, 4, 5, 6]) == Walk(
        tokens=(T(2), T(4), T(5), T(6)), rows=(ROOT, 1, 3, 4)
    )
    # 4 exists, but below 2, not below 1.
    assert outcome(FORK, [1, 4]) == Walk(tokens=(T(1), T(4)), rows=(ROOT, 0))


def test_one_call_per_depth_with_all_that_go_on() -> None:
    calls, draw = along([1, 2, 9], [7], [2, 4, 9])
    walk([CHAIN, CHAIN, FORK], draw)
    assert [[(ask.tree, ask.row) for ask in asks] for asks in calls] == [
        [(0, ROOT), (1, ROOT), (2, ROOT)],
        [(0, 0), (2, 1)],
        [(0, 1), (2, 3)],
    ]
    assert calls[2][1].path == (T(2), T(4))


def test_an_error_ends_its_own_walk_only() -> None:
    broken = ModelError("logits: not finite")

    def draw(asks: Sequence[Ask]) -> list[TokenId | ModelError]:
        return [broken if ask.tree == 1 and ask.path else T(1) for ask in asks]

    first, second, third = walk([CHAIN, CHAIN, NO_DRAFTS], draw)
    assert first == Walk(tokens=(T(1), T(1)), rows=(ROOT, 0))
    assert second is broken
    assert third == Walk(tokens=(T(1),), rows=(ROOT,))


def test_no_trees_draw_nothing() -> None:
    calls, draw = along()
    assert walk([], draw) == []
    assert calls == []


@st.composite
def trees(draw: st.DrawFn) -> Tree:
    """Any tree whose siblings differ."""
    pairs: list[tuple[int, TokenId]] = []
    for _ in range(draw(st.integers(0, 12))):
        pair = (draw(st.integers(ROOT, len(pairs) - 1)), T(draw(st.integers(0, 3))))
        if pair not in pairs:
            pairs.append(pair)
    return Tree(
        tokens=tuple(token for _, token in pairs), parents=tuple(parent for parent, _ in pairs)
    )


@given(tree=trees(), text=st.lists(st.integers(0, 3), min_size=14, max_size=14))
def test_the_walk_is_the_longest_match(tree: Tree, text: list[int]) -> None:
    """Against the plain definition: the text is followed while the tree has its next token at that place."""
    result = outcome(tree, text)
    assert isinstance(result, Walk)
    assert list(result.tokens) == text[: len(result.tokens)]
    assert result.rows[0] == ROOT
    for before, row, token in zip(result.rows, result.rows[1:], result.tokens, strict=False):
        assert (tree.parents[row], tree.tokens[row]) == (before, token)
    end = (result.rows[-1], result.tokens[-1])
    assert end not in set(zip(tree.parents, tree.tokens, strict=True))
