"""Chances of drafted nodes: they hold, they follow a change, they do not depend on anything else."""

from math import exp
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.control.node_scores import MOST_RANKS, NodeScores, calibration_error
from simulator.acceptance.recordings import recorded_trace


def test_of_many_nodes_with_a_chance_that_part_is_accepted() -> None:
    # A drafter that is far too sure of itself: what it calls 0.9 holds in 0.3.
    rng, scores, nodes = Random(1), NodeScores(), []
    for _ in range(4000):
        confidence = rng.choice([0.2, 0.6, 0.9, 0.99])
        accepted = rng.random() < confidence**2 / 3
        nodes.append((scores.chance(confidence), accepted))
        scores.observe(confidence, accepted=accepted)
    # A calibrated forecaster has 0.012 here by chance alone; the confidence itself 0.4.
    assert calibration_error(nodes) < 0.025
    assert scores.chance(0.9) == pytest.approx(0.27, abs=0.08)
    assert scores.num_judged == 4000


def test_before_anything_is_judged_the_drafter_is_believed() -> None:
    scores = NodeScores()
    assert scores.chance(0.8) == pytest.approx(0.8)
    assert scores.chance(0.8, rank=2) < 0.1


def test_a_change_is_followed_within_a_half_life_or_two() -> None:
    rng, scores = Random(2), NodeScores(half_life=100.0)
    for chance, expected in ((0.9, 0.9), (0.2, 0.2), (0.9, 0.9)):
        for _ in range(500):
            scores.observe(0.5, accepted=rng.random() < chance)
        assert scores.chance(0.5) == pytest.approx(expected, abs=0.12)


def test_ranks_are_kept_apart_and_the_last_ones_together() -> None:
    scores = NodeScores()
    for _ in range(200):
        scores.observe(0.5, rank=2, accepted=True)
        scores.observe(0.5, rank=MOST_RANKS + 3, accepted=True)
    assert scores.chance(0.5) == pytest.approx(0.5)
    assert scores.chance(0.5, rank=2) > 0.9
    assert scores.chance(0.5, rank=3) < 0.1
    assert scores.chance(0.5, rank=MOST_RANKS) == scores.chance(0.5, rank=MOST_RANKS + 9) > 0.8


@given(
    nodes=st.lists(
        st.tuples(st.floats(0, 1), st.integers(1, 20), st.booleans()), min_size=1, max_size=40
    ),
    asked=st.floats(allow_nan=True, allow_infinity=True),
)
def test_any_nodes_give_chances_and_always_the_same(
    nodes: list[tuple[float, int, bool]], asked: float
) -> None:
    one, other = NodeScores(half_life=3.0), NodeScores(half_life=3.0)
    for confidence, rank, accepted in nodes:
        for scores in (one, other):
            scores.observe(confidence, rank=rank, accepted=accepted)
        assert 0.0 <= one.chance(confidence, rank=rank) <= 1.0
    assert 0.0 <= one.chance(asked) == other.chance(asked) <= 1.0


def test_it_runs_for_ever() -> None:
    # Weights grow by 2**(1/half_life) with every node: 2**5000 would not be a number.
    scores = NodeScores(half_life=1.0)
    for index in range(5000):
        scores.observe(0.5, accepted=index % 2 == 0)
    assert 0.2 < scores.chance(0.5) < 0.8


def test_the_error_is_that_of_the_definition() -> None:
    # Bin 0.2-0.3: 0.25 against 1/2; bin 0.9-1: 1.0 against 1/1.
    nodes = [(0.25, True), (0.25, False), (1.0, True), (0.95, True)]
    assert calibration_error(nodes) == pytest.approx((2 * 0.25 + 0.05) / 4)
    assert calibration_error([]) == 0.0


@pytest.mark.parametrize("name", ["low-bit-4-64", "low-bit-5-64", "smollm2-135m-draft"])
def test_a_recorded_draft_is_calibrated_as_it_goes(name: str) -> None:
    trace, nodes = recorded_trace(name), []
    for temperature in (0.0, 1.0):
        scores = NodeScores()  # an edge keeps greedy and drawn answers apart
        for text in trace.chosen(temperature=temperature):
            for rank, margin in zip(text.ranks, text.confidence, strict=True):
                confidence = 1.0 / (1.0 + exp(-margin * trace.confidence.step))
                nodes.append((scores.chance(confidence), rank == 1))
                scores.observe(confidence, accepted=rank == 1)
    assert len(nodes) > 4000
    assert calibration_error(nodes) <= 0.03
