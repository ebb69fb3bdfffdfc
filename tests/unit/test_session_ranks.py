"""What a verifier makes of the order in which guesses come."""

import random

import pytest

from paceline.session.ranks import FADE_OF_ALL, PRIOR, RankRates, likeliest
from paceline.session.tree import Node, root_after
from paceline.tokens import TokenId

SIBLINGS = [TokenId(5), TokenId(6), TokenId(7), TokenId(8), TokenId(9)]


def test_before_anything_is_known_the_first_guess_is_the_likeliest() -> None:
    rates = RankRates()
    assert [rates.rate(rank) for rank in range(4)] == pytest.approx(PRIOR)
    assert rates.rate(9) == rates.rate(3)


def test_rates_become_what_happens_and_follow_a_change() -> None:
    rates, rng = RankRates(), random.Random(1)
    for _ in range(2000):
        rates.judge(SIBLINGS, TokenId(6) if rng.random() < 0.7 else TokenId(5))
    assert rates.rate(0) == pytest.approx(0.3, abs=0.15)
    assert rates.rate(1) == pytest.approx(0.7, abs=0.15)
    for _ in range(200):
        rates.judge(SIBLINGS, TokenId(5))
    assert rates.rate(0) > 0.9 > 0.1 > rates.rate(1)


def test_a_rank_that_was_not_there_is_not_judged() -> None:
    rates = RankRates()
    rates.judge(SIBLINGS[:1], TokenId(6))
    rates.judge([], TokenId(6))
    assert rates.rate(0) < PRIOR[0]
    assert rates.rate(1) == pytest.approx(PRIOR[1])


def test_nodes_come_with_parents_first_and_chances_that_fall() -> None:
    rng = random.Random(2)
    for _ in range(50):
        rates = RankRates()
        for _ in range(rng.randrange(30)):
            rates.judge(SIBLINGS[: rng.randrange(6)], rng.choice(SIBLINGS))
        root = root_after([TokenId(0)])
        nodes = [root]
        for _ in range(rng.randrange(40)):
            nodes.append(rng.choice(nodes).grow(TokenId(rng.randrange(6))))
        chances: dict[Node, float] = {root: 1.0}
        last = 1.0
        for node, depth, chance in likeliest(root, rates):
            assert node.parent is not None
            rank = list(node.parent.children).index(node.token)
            chances[node] = chances[node.parent] * rates.rate(rank)
            assert chance == pytest.approx(chances[node])
            assert chances[node] <= last * (1 + 1e-12)
            last = chances[node]
            assert depth == _depth(node)
        assert set(chances) == {root, *root.below()}


def _depth(node: Node) -> int:
    return 0 if node.parent is None else 1 + _depth(node.parent)


def test_a_new_text_begins_with_what_others_of_the_same_drafts_were_worth() -> None:
    above = RankRates(fade=FADE_OF_ALL)
    for _ in range(20):
        text = RankRates(above=above)
        for _ in range(20):
            text.judge(SIBLINGS[:2], TokenId(6))
    new = RankRates(above=above)
    assert new.rate(0) < 0.05
    assert new.rate(1) > 0.95
    assert RankRates().rate(0) == pytest.approx(PRIOR[0])
    for _ in range(40):
        new.judge(SIBLINGS[:2], TokenId(5))
    assert new.rate(0) > 0.7, "its own text counts more"
