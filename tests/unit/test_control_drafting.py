"""The choice of a draft length: closed form against an event simulation, hysteresis, and that it never sticks."""

import math
from dataclasses import replace
from itertools import pairwise

import pytest
from harness.run_ahead import RunAhead, Setting
from hypothesis import given
from hypothesis import strategies as st

from paceline.control.drafting import (
    BAND_RUN,
    STEP_MOST,
    Bounds,
    Drafting,
    Measured,
    choose,
    expected_tokens,
    shrunk,
    wanted,
    window_for,
)
from paceline.errors import LocalProtocolError

BOUNDS = Bounds(most=64, window_most=128)
TYPICAL = Measured(
    rtt_s=0.2,
    jitter_s=0.012,
    draft_s=0.027,
    step_s=0.04,
    acceptance_probability=0.97,
    num_judged=200,
)

times = st.floats(min_value=0.0, max_value=1e6)
known_times = st.floats(min_value=1e-7, max_value=1e3)
probabilities = st.floats(min_value=0.0, max_value=1.0)
measurements = st.builds(
    Measured,
    rtt_s=times,
    jitter_s=times,
    draft_s=times,
    step_s=times,
    acceptance_probability=probabilities,
    num_judged=st.floats(min_value=0.0, max_value=1e9),
)
known = st.builds(
    Measured,
    rtt_s=known_times,
    jitter_s=times,
    draft_s=known_times,
    step_s=times,
    acceptance_probability=probabilities,
    num_judged=st.floats(min_value=0.0, max_value=1e9),
)
bounds = st.integers(0, 4096).flatmap(
    lambda most: st.builds(
        Bounds,
        least=st.integers(0, max(1, most)),
        most=st.just(most),
        window_most=st.integers(1, 4096),
    )
)
draftings = st.builds(Drafting, draft_length=st.integers(0, 4096), window=st.integers(1, 4096))


def settle(
    measured: Measured, current: Drafting, bounds: Bounds = BOUNDS, *, most: int = 2100
) -> list[int]:
    """Decide with constant inputs until nothing moves; return the lengths on the way."""
    lengths = [current.draft_length]
    for _ in range(most):
        current = choose(measured, current=current, bounds=bounds).drafting
        lengths.append(current.draft_length)
        if lengths[-1] == lengths[-2]:
            return lengths
    raise AssertionError(f"never settled: {lengths[-10:]}")


def test_tells_the_decision_in_one_line() -> None:
    decision = choose(TYPICAL, current=Drafting(draft_length=8, window=64), bounds=BOUNDS)
    assert decision.drafting == Drafting(draft_length=10, window=20)
    assert decision.wanted == 11
    assert decision.sentence == (
        "draft 10 tokens ahead: 11 cover 200 ms round trip, 12 ms jitter and two 40 ms steps at 27 ms per token; "
        "at 96 % acceptance 60 keep a chance of 10 % to be used; moved by 2 from 8 on the way to 11"
    )


@given(measurements, draftings, bounds)
def test_every_decision_is_within_bounds_and_fits_a_policy(
    measured: Measured, current: Drafting, bounds: Bounds
) -> None:
    decision = choose(measured, current=current, bounds=bounds)
    length = decision.drafting.draft_length
    assert bounds.shortest <= length <= bounds.longest
    assert length >= 1 or bounds.most == 0
    assert length <= decision.drafting.window <= max(1, bounds.window_most)
    assert "\n" not in decision.sentence
    assert decision.sentence.isascii()
    assert len(decision.sentence) <= 480
    within = min(max(current.draft_length, bounds.shortest), bounds.longest)
    assert abs(length - within) <= STEP_MOST
    assert abs(decision.wanted - length) <= abs(decision.wanted - within)


@given(measurements, draftings, bounds)
def test_constant_inputs_settle_near_what_is_wanted_and_stay(
    measured: Measured, current: Drafting, bounds: Bounds
) -> None:
    lengths = settle(measured, current, bounds)
    end = lengths[-1]
    moves = [after - before for before, after in pairwise(lengths[1:])]
    assert all(move >= 0 for move in moves) or all(move <= 0 for move in moves), lengths
    decision = choose(
        measured, current=Drafting(draft_length=end, window=current.window), bounds=bounds
    )
    assert decision.drafting.draft_length == end
    assert abs(decision.wanted - end) <= max(1.0, BAND_RUN * end + 1.0)


@given(known, times, times)
def test_never_shorter_for_a_longer_way(
    measured: Measured, more_rtt: float, more_jitter: float
) -> None:
    far = replace(
        measured, rtt_s=measured.rtt_s + more_rtt, jitter_s=measured.jitter_s + more_jitter
    )
    assert wanted(far, BOUNDS).length >= wanted(measured, BOUNDS).length


@given(
    known_times,
    known_times,
    known_times,
    st.integers(50, 10_000),
    st.floats(min_value=0.9, max_value=1.0),
    draftings,
)
def test_back_within_one_after_a_step_of_the_round_trip(
    rtt: float, draft: float, step: float, judged: int, rate: float, start: Drafting
) -> None:
    near = Measured(
        rtt_s=rtt,
        jitter_s=0.0,
        draft_s=draft,
        step_s=step,
        acceptance_probability=rate,
        num_judged=judged,
    )
    want = wanted(near, BOUNDS)
    before = settle(near, start)[-1]
    far = settle(replace(near, rtt_s=10 * rtt), Drafting(draft_length=before, window=64))[-1]
    after = settle(near, Drafting(draft_length=far, window=64))[-1]
    allowed = 1.0 if not want.is_cut and want.length <= 20 else 0.5 * want.length + 1.0
    assert abs(after - before) <= allowed


@pytest.mark.parametrize(("draft_s", "step_s"), [(0.027, 0.04), (0.004, 0.004), (0.01, 0.002)])
def test_recovers_from_20_to_200_ms_and_back(draft_s: float, step_s: float) -> None:
    near = replace(
        TYPICAL, rtt_s=0.02, jitter_s=0.001, draft_s=draft_s, step_s=step_s, acceptance_probability=1.0
    )  # fmt: skip
    first = settle(near, Drafting(draft_length=8, window=64))[-1]
    way_up = settle(replace(near, rtt_s=0.2), Drafting(draft_length=first, window=64))
    way_down = settle(near, Drafting(draft_length=way_up[-1], window=64))
    assert way_up[-1] >= first + 3
    assert abs(way_down[-1] - first) <= 1
    assert max(len(way_up), len(way_down)) <= 32


@given(measurements, st.integers(1, 64))
def test_an_unknown_round_trip_or_drafter_keeps_the_length(measured: Measured, length: int) -> None:
    current = Drafting(draft_length=length, window=64)
    for name in ("rtt_s", "draft_s"):
        decision = choose(replace(measured, **{name: 0.0}), current=current, bounds=BOUNDS)
        assert decision.drafting.draft_length == decision.wanted == length
        assert "not known yet" in decision.sentence


def test_an_unknown_step_counts_as_none() -> None:
    want = wanted(replace(TYPICAL, step_s=0.0), BOUNDS)
    assert want.length == pytest.approx((0.2 + 0.012) / 0.027)


def test_always_right_drafts_as_far_as_the_way_is_long() -> None:
    sure = replace(TYPICAL, acceptance_probability=1.0, num_judged=1e19)
    assert shrunk(sure) == 1.0
    want = wanted(sure, BOUNDS)
    assert want.run == math.inf
    assert want.length == want.cover == pytest.approx((0.2 + 0.012 + 2 * 0.04) / 0.027)


def test_always_wrong_drafts_one_token_to_go_on_measuring() -> None:
    lost = replace(TYPICAL, acceptance_probability=0.0)
    assert settle(lost, Drafting(draft_length=40, window=80))[-1] == 1
    assert settle(lost, Drafting(draft_length=1, window=2), replace(BOUNDS, least=0))[-1] == 1


def test_nothing_is_drafted_if_nothing_is_allowed() -> None:
    decision = choose(
        TYPICAL,
        current=Drafting(draft_length=8, window=64),
        bounds=Bounds(least=0, most=0, window_most=64),
    )
    assert decision.drafting == Drafting(draft_length=0, window=1)


def test_little_evidence_counts_little() -> None:
    few = replace(TYPICAL, acceptance_probability=0.0, num_judged=2)
    many = replace(few, num_judged=200)
    assert shrunk(replace(few, num_judged=0)) == pytest.approx(0.8)
    assert shrunk(few) == pytest.approx(8 / 12)
    assert shrunk(many) < 0.05


def test_expected_tokens_next_to_certainty_is_the_number_of_rows() -> None:
    assert expected_tokens(1.0, 4) == 5
    assert expected_tokens(1.0 - 1e-15, 4) == pytest.approx(5)
    assert expected_tokens(0.5, 2) == pytest.approx(1 + 0.5 + 0.25)
    assert expected_tokens(0.5, 1e9) == pytest.approx(2)


def test_noise_within_the_band_moves_nothing() -> None:
    current = Drafting(draft_length=11, window=22)
    for factor in (0.97, 1.0, 1.03):
        noisy = replace(TYPICAL, rtt_s=TYPICAL.rtt_s * factor)
        assert choose(noisy, current=current, bounds=BOUNDS).drafting.draft_length == current.draft_length  # fmt: skip


@pytest.mark.parametrize("length", [1, 7, 64])
def test_the_window_holds_a_live_and_a_stale_chain(length: int) -> None:
    assert window_for(length, BOUNDS) == 2 * length
    assert window_for(length, replace(BOUNDS, window_most=100)) == min(100, 2 * length)


@pytest.mark.parametrize(
    ("name", "value"),
    [("rtt_s", -1e-9), ("step_s", math.nan), ("draft_s", math.inf), ("acceptance_probability", 1.1)],
)  # fmt: skip
def test_what_no_measurement_can_be_is_refused(name: str, value: float) -> None:
    with pytest.raises(LocalProtocolError, match=name):
        replace(TYPICAL, **{name: value})


@pytest.mark.parametrize("wrong", [{"least": 3, "most": 2}, {"least": -1}, {"most": -1}, {"window_most": 0}])  # fmt: skip
def test_bounds_that_nothing_fits_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(LocalProtocolError, match="window_most"):
        Bounds(**wrong)


# --- against the simulation

GRID = (1, 2, 3, 4, 6, 8, 11, 15, 20, 28, 40, 60)


def best_and_chosen(setting: Setting, num_tokens: int = 1200) -> tuple[float, float, int]:
    """Return the best speed of all lengths, that of the closed form, and its length."""
    measured = Measured(
        rtt_s=setting.rtt_s,
        jitter_s=setting.jitter_s,
        draft_s=setting.draft_s,
        step_s=setting.step_s,
        acceptance_probability=setting.acceptance,
        num_judged=1e9,
    )
    length = choose(measured, current=Drafting(draft_length=8, window=64), bounds=BOUNDS).wanted
    speeds = {n: RunAhead(setting, draft_length=n).run(num_tokens).speed for n in {*GRID, length}}
    return max(speeds.values()), speeds[length], length


@pytest.mark.slow
@pytest.mark.parametrize("row_share", [0.0, 0.03])
@pytest.mark.parametrize("acceptance", [0.98, 0.85, 0.65])
@pytest.mark.parametrize(("step_s", "draft_s"), [(0.04, 0.01), (0.04, 0.027), (0.015, 0.005), (0.04, 0.002)])  # fmt: skip
@pytest.mark.parametrize("rtt_s", [0.005, 0.06, 0.2])
def test_the_closed_form_is_near_the_best_length(
    rtt_s: float, step_s: float, draft_s: float, acceptance: float, row_share: float
) -> None:
    setting = Setting(
        rtt_s=rtt_s, step_s=step_s, draft_s=draft_s, acceptance=acceptance, row_s=row_share * step_s
    )
    best, chosen, length = best_and_chosen(setting)
    assert chosen >= 0.8 * best, f"length {length}: {chosen:.2f} of {best:.2f}"
    assert chosen >= 0.95  # never slower than the verifier alone, but for the rows


def test_with_certain_guesses_cover_is_the_shortest_length_that_drafts_without_pause() -> None:
    setting = Setting(rtt_s=0.2, step_s=0.04, draft_s=0.01, acceptance=1.0)
    _, _, length = best_and_chosen(setting)
    assert length == 28  # (200 + 2 * 40) / 10
    most = setting.step_s / setting.draft_s
    assert RunAhead(setting, draft_length=length).run(2000).speed == pytest.approx(most, rel=0.02)
    assert RunAhead(setting, draft_length=length - 4).run(2000).speed < 0.95 * most


def test_a_drafter_slower_than_a_step_gains_nothing_and_is_told_so() -> None:
    setting = Setting(rtt_s=0.01, step_s=0.04, draft_s=0.05, acceptance=1.0)
    assert RunAhead(setting, draft_length=64).run(600).speed == pytest.approx(1.0, rel=0.02)
    slow = replace(TYPICAL, draft_s=0.05)
    current = Drafting(draft_length=8, window=64)
    sentence = choose(slow, current=current, bounds=BOUNDS).sentence
    assert "most will come late, the drafter is slower than a step" in sentence


def test_a_run_below_the_head_start_of_the_race_is_told() -> None:
    poor = replace(TYPICAL, acceptance_probability=0.3)
    sentence = choose(poor, current=Drafting(draft_length=2, window=64), bounds=BOUNDS).sentence
    assert "most will come late, the verifier alone is 5 further in a round trip" in sentence


def test_a_length_below_the_head_start_of_the_race_gains_nothing() -> None:
    setting = Setting(rtt_s=0.2, step_s=0.04, draft_s=0.01, acceptance=1.0)
    assert RunAhead(setting, draft_length=5).run(600).speed == pytest.approx(1.0, rel=0.01)
    assert RunAhead(setting, draft_length=8).run(600).speed > 1.2
