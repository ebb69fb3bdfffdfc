"""The best chain of drafters, against all chains with all lengths."""

from itertools import pairwise, permutations, product
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.drafters.length_recursion import (
    Handover,
    PassCost,
    best_chain,
    best_length,
    token_time_s,
)

MOST = 3
CHANCES = st.floats(0.0, 1.0)
COSTS = st.builds(
    PassCost, base_s=st.floats(1e-3, 10.0), per_token_s=st.sampled_from((0.0, 0.01, 0.3, 2.0))
)
HANDOVERS = st.builds(Handover, acceptance=CHANCES, share=st.sampled_from((1.0, 0.6, 0.05)))


def chain_time_s(
    costs: list[PassCost],
    handovers: dict[tuple[int, int], Handover],
    drafters: tuple[int, ...],
    lengths: tuple[int, ...],
) -> float:
    """Time per token of a chain, rung by rung; infinite where one cannot draft for the next."""
    time_s = costs[drafters[0]].base_s
    for (below, above), length in zip(pairwise(drafters), lengths, strict=True):
        handover = handovers.get((below, above))
        if handover is None:
            return float("inf")
        time_s = token_time_s(costs[above], handover, below_s=time_s, length=length)
    return time_s


@pytest.mark.slow
@given(data=st.data(), count=st.integers(1, 4))
def test_no_chain_is_faster(data: st.DataObject, count: int) -> None:
    costs = data.draw(st.lists(COSTS, min_size=count, max_size=count))
    pairs = list(permutations(range(count), 2))
    known = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    handovers = {pair: data.draw(HANDOVERS) for pair in known}
    last = count - 1
    found = best_chain(costs, handovers, last=last, most=MOST)
    fastest_s = min(
        chain_time_s(costs, handovers, (*before, last), lengths)
        for size in range(count)
        for before in permutations(range(last), size)
        for lengths in product(range(1, MOST + 1), repeat=size)
    )
    assert found.token_s == pytest.approx(fastest_s, rel=1e-9)
    drafters = tuple(rung.drafter for rung in found.rungs)
    lengths = tuple(rung.length for rung in found.rungs)
    assert drafters[-1] == last
    assert len(set(drafters)) == len(drafters)
    assert lengths[0] == 0
    assert all(1 <= length <= MOST for length in lengths[1:])
    # What is promised is what the chain takes.
    promised_s = chain_time_s(costs, handovers, drafters, lengths[1:])
    assert promised_s == pytest.approx(found.token_s, rel=1e-9)


@given(acceptance=st.floats(0.0, 0.999), below_s=st.floats(0.0, 5.0), length=st.integers(1, 20))
def test_the_recursion_is_the_papers_when_rows_are_free(
    acceptance: float, below_s: float, length: int
) -> None:
    found_s = token_time_s(
        PassCost(base_s=1.0), Handover(acceptance=acceptance), below_s=below_s, length=length
    )
    emitted = (1 - acceptance ** (length + 1)) / (1 - acceptance)
    assert found_s == pytest.approx((length * below_s + 1.0) / emitted, rel=1e-9)


def test_the_expected_time_is_the_mean_of_many_passes() -> None:
    rng = Random(0)
    handover, cost = Handover(acceptance=0.7, share=0.4), PassCost(base_s=1.0, per_token_s=0.1)
    time_s, tokens = 0.0, 0
    for _ in range(40_000):
        if rng.random() >= handover.share:
            time_s, tokens = time_s + cost.base_s + 0.05, tokens + 1
            continue
        kept = next((i for i in range(4) if rng.random() >= handover.acceptance), 4)
        time_s, tokens = time_s + cost.base_s + 4 * (0.05 + cost.per_token_s), tokens + kept + 1
    expected_s = token_time_s(cost, handover, below_s=0.05, length=4)
    # 40,000 passes with 1 to 5 tokens each: the ratio strays by less than 0.01 of itself, five times over.
    assert time_s / tokens == pytest.approx(expected_s, rel=0.02)


def test_lengths_grow_with_acceptance_and_shrink_with_cost() -> None:
    cost = PassCost(base_s=1.0)
    by_acceptance = [
        best_length(cost, Handover(acceptance=a), below_s=0.1, most=16)[0]
        for a in (0.2, 0.5, 0.8, 0.95)
    ]
    by_cost = [
        best_length(cost, Handover(acceptance=0.8), below_s=c, most=16)[0]
        for c in (0.01, 0.05, 0.2, 0.6)
    ]
    assert by_acceptance == sorted(set(by_acceptance))
    assert by_cost == sorted(set(by_cost), reverse=True)


def test_a_drafter_in_between_is_used_only_where_it_pays() -> None:
    """A table is nearly free and seldom right, a small model is often right: for a slow target, both."""
    handovers = {
        (0, 1): Handover(acceptance=0.6),
        (0, 2): Handover(acceptance=0.3),
        (1, 2): Handover(acceptance=0.8),
    }
    costs = [PassCost(base_s=0.001), PassCost(base_s=1.0), PassCost(base_s=20.0)]
    assert [rung.drafter for rung in best_chain(costs, handovers, last=2, most=8).rungs] == [
        0,
        1,
        2,
    ]
    slow = [costs[0], PassCost(base_s=18.0), costs[2]]
    assert [rung.drafter for rung in best_chain(slow, handovers, last=2, most=8).rungs] == [0, 2]
    useless = dict.fromkeys(handovers, Handover(acceptance=0.0))
    assert [rung.drafter for rung in best_chain(costs, useless, last=2, most=8).rungs] == [2]
