"""Acceptance and round trips as an edge measures them."""

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.control.measuring import HORIZON, RECENT, AcceptanceMeter, RttEstimator
from paceline.errors import LocalProtocolError

counts = st.integers(0, 500).flatmap(lambda judged: st.tuples(st.just(judged), st.integers(0, judged)))  # fmt: skip


def meter_of(*messages: tuple[int, int]) -> AcceptanceMeter:
    meter = AcceptanceMeter()
    for judged, accepted in messages:
        meter.add(judged=judged, accepted=accepted)
    return meter


def estimator_of(*samples: float) -> RttEstimator:
    estimator = RttEstimator()
    for sample in samples:
        estimator.add(sample)
    return estimator


# --- acceptance


@given(st.lists(counts, max_size=30))
def test_a_probability_that_rests_on_at_most_the_horizon(messages: list[tuple[int, int]]) -> None:
    meter = meter_of(*messages)
    assert 0.0 <= meter.probability <= 1.0
    assert 0 <= meter.num_judged <= min(HORIZON, sum(judged for judged, _ in messages))


def test_nothing_judged_is_nothing_known() -> None:
    meter = meter_of((0, 0), (0, 0))
    assert (meter.probability, meter.num_judged) == (0.0, 0)


def test_is_a_ratio_of_sums_and_not_a_mean_of_ratios() -> None:
    assert meter_of((1, 0), (16, 16)).probability == pytest.approx(16 / 17, abs=0.01)


@given(st.integers(1, 300), st.sampled_from([0.0, 1.0]))
def test_one_large_message_weighs_what_small_ones_do(judged: int, rate: float) -> None:
    small, large = meter_of((50, 25)), meter_of((50, 25))
    for _ in range(judged):
        small.add(judged=1, accepted=int(rate))
    large.add(judged=judged, accepted=int(judged * rate))
    assert large.probability == pytest.approx(small.probability)
    assert large.num_judged == small.num_judged


def test_follows_a_change_within_the_horizon() -> None:
    meter = meter_of(*[(4, 4)] * 400)
    assert meter.num_judged == HORIZON
    for _ in range(HORIZON // 4):
        meter.add(judged=4, accepted=0)
    assert meter.probability == pytest.approx(1 / math.e, abs=0.01)


@pytest.mark.parametrize(("judged", "accepted"), [(1, 2), (-1, -1), (3, -1)])
def test_counts_that_cannot_be_are_refused(judged: int, accepted: int) -> None:
    with pytest.raises(LocalProtocolError, match="judged"):
        meter_of((judged, accepted))


def test_a_horizon_needs_two_tokens() -> None:
    with pytest.raises(LocalProtocolError, match="horizon"):
        AcceptanceMeter(horizon=1)


# --- round trips


def test_the_first_sample_is_the_base_without_jitter() -> None:
    estimator = estimator_of(0.02)
    assert (estimator.rtt_s, estimator.jitter_s) == (0.02, 0.0)
    assert estimator_of().rtt_s == 0.0


@pytest.mark.parametrize(("before", "after"), [(0.02, 0.2), (0.2, 0.02)])
def test_a_step_is_followed_at_the_second_sample(before: float, after: float) -> None:
    noise = random.Random(4)
    estimator = estimator_of(*(before * (1 + 0.02 * noise.random()) for _ in range(20)))
    estimator.add(after)
    assert estimator.rtt_s == pytest.approx(before, rel=0.03)
    estimator.add(after * 1.01)
    assert estimator.rtt_s == pytest.approx(after, rel=0.03)
    assert estimator.jitter_s < 0.01 * max(before, after)


@pytest.mark.parametrize("outlier", [0.0, 5.0])
@given(place=st.integers(0, 2 * RECENT), noise=st.lists(st.floats(0.98, 1.02), min_size=40, max_size=40))  # fmt: skip
def test_a_single_outlier_moves_neither_base_nor_jitter(
    outlier: float, place: int, noise: list[float]
) -> None:
    estimator = estimator_of(*(0.02 * factor for factor in noise[:20]))
    for factor in (*noise[20 : 20 + place], None, *noise[20 + place :]):
        estimator.add(outlier if factor is None else 0.02 * factor)
        assert estimator.rtt_s == pytest.approx(0.02, rel=0.03)
        assert estimator.jitter_s <= 0.02 * 0.04


def test_jitter_is_how_far_samples_stray() -> None:
    noise = random.Random(7)
    still = estimator_of(*[0.05] * 20)
    wide = RttEstimator()
    seen = []
    for _ in range(400):
        wide.add(0.05 + noise.uniform(-0.01, 0.01))
        seen.append((wide.rtt_s, wide.jitter_s))
    assert still.jitter_s == 0.0
    # The mean distance of an even spread of +-10 ms is 5 ms, a little less without the largest of eight.
    bases = [base for base, _ in seen[20:]]
    jitters = [jitter for _, jitter in seen[20:]]
    assert sum(jitters) / len(jitters) == pytest.approx(0.0045, rel=0.2)
    assert sum(bases) / len(bases) == pytest.approx(0.05, rel=0.03)


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=60))
def test_the_base_is_one_of_the_recent_samples(samples: list[float]) -> None:
    estimator = estimator_of(*samples)
    assert estimator.rtt_s in samples[-RECENT:]
    assert 0.0 <= estimator.jitter_s <= max(samples) - min(samples)


@pytest.mark.parametrize("wrong", [-0.1, math.nan, math.inf])
def test_what_no_round_trip_can_be_is_refused(wrong: float) -> None:
    with pytest.raises(LocalProtocolError, match="rtt_s"):
        estimator_of(wrong)
