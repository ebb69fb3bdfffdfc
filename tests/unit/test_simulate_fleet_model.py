"""The fleet's model: its laws, its limits, and that it says what the programs themselves would do."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace

import pytest
from harness.run_ahead import RunAhead, Setting
from hypothesis import given
from hypothesis import strategies as st

from cloud.scheduler import SchedulerSettings, SessionView, plan_step
from edge.steering import LengthPolicy
from paceline.client.settings import DraftingSettings
from paceline.errors import ConfigError
from simulator.acceptance.recordings import recorded_trace
from simulator.acceptance.replay import IndependentAcceptance, ReplayedAcceptance
from simulator.cost import LEVELS, Spread, StepCost, Work
from simulator.fleet.delays import Delays, sampled
from simulator.fleet.groups import Group, Resident, run_group
from simulator.fleet.guesses import Guesses
from simulator.fleet.people import People
from simulator.fleet.plan import shares
from simulator.fleet.settings import Ask, DrafterModel, VerifierModel
from simulator.fleet.tally import Tally
from simulator.notation import parse_network

COST = StepCost(
    fixed_s=0.04,
    per_row_s=0.001,
    per_sequence_s=0.002,
    per_prefill_row_s=0.0005,
)
DRAFT = StepCost(fixed_s=0.005, per_row_s=0.0)
VERIFIER = VerifierModel(cost=COST)
FAR = Delays(up=(0.05,), down=(0.05,))


def asks(*lengths: int, at_s: float = 0.0, prompt: int = 20) -> tuple[Ask, ...]:
    return tuple(
        Ask(at_s=at_s, prompt_tokens=prompt, max_tokens=length, seed=seed)
        for seed, length in enumerate(lengths, start=1)
    )


def drafter(acceptance: float, *, length: int | None = 8, cost: StepCost = DRAFT) -> DrafterModel:
    if length is None:
        return DrafterModel(cost=cost, acceptance=acceptance)
    return DrafterModel(
        cost=cost,
        acceptance=acceptance,
        drafting=DraftingSettings(draft_length=length, window=max(64, 2 * length)),
        length_policy=LengthPolicy.FIXED,
    )


def ran(
    *questions: Iterable[Ask],
    verifier: VerifierModel = VERIFIER,
    drafts: DrafterModel | None = None,
    delays: Delays = FAR,
) -> Tally:
    """Run one verifier until everything is answered."""
    return run_group(
        Group(
            number=0,
            seed=1,
            verifier=verifier,
            drafter=drafts,
            residents=tuple(Resident(number=number) for number in range(len(questions))),
            people={number: tuple(each) for number, each in enumerate(questions)},
        ),
        (delays,),
    )


def speed(tally: Tally) -> float:
    return sum(one.tokens for one in tally.answers) / sum(one.lasted_s for one in tally.answers)


# --- limits


def test_a_single_plain_session_takes_what_the_formula_says() -> None:
    length, prompt = 30, 20
    (answer,) = ran(asks(length, prompt=prompt)).answers
    filling_s = COST.seconds(Work().with_sequence(num_rows=prompt, context=0, prefill=True))
    steps_s = sum(
        COST.seconds(Work().with_sequence(num_rows=1, context=prompt + done))
        for done in range(1, length)
    )
    handshake_s = 0.1
    assert answer.first_token_s == pytest.approx(handshake_s + 0.1 + filling_s)
    assert answer.lasted_s == pytest.approx(answer.first_token_s + steps_s)
    assert answer.queued_s == 0.0


def test_a_second_question_needs_no_handshake() -> None:
    first, second = ran(asks(10, 10)).answers
    assert first.first_token_s - second.first_token_s == pytest.approx(0.1)


@pytest.mark.parametrize("length", [1, 4, 16])
def test_wrong_drafts_slow_nothing_but_by_their_rows(length: int) -> None:
    free = replace(COST, per_row_s=0.0)
    plain = ran(asks(60), asks(60), verifier=VerifierModel(cost=free))
    useless = ran(
        asks(60),
        asks(60),
        verifier=VerifierModel(cost=free),
        drafts=drafter(0.0, length=length),
    )
    assert speed(useless) == pytest.approx(speed(plain))
    assert useless.drafts.accepted == 0
    assert useless.drafts.drafted > 60


@pytest.mark.slow
@pytest.mark.parametrize(
    ("acceptance", "rtt_s", "draft_s", "length"),
    [(1.0, 0.02, 0.01, 16), (0.9, 0.06, 0.005, 16), (0.8, 0.02, 0.01, 8), (0.8, 0.2, 0.01, 24)],
)
def test_a_single_session_runs_ahead_as_the_event_simulation_does(
    acceptance: float, rtt_s: float, draft_s: float, length: int
) -> None:
    step_s = 0.04
    setting = Setting(rtt_s=rtt_s, step_s=step_s, draft_s=draft_s, acceptance=acceptance)
    expected = [
        RunAhead(setting, draft_length=length, seed=seed).run(1500).speed for seed in range(3)
    ]
    found = ran(
        asks(1000, 1000, 1000, prompt=1),
        verifier=VerifierModel(cost=StepCost(fixed_s=step_s, per_row_s=0.0)),
        drafts=replace(
            drafter(acceptance, length=length, cost=StepCost(fixed_s=draft_s, per_row_s=0.0)),
            drafting=DraftingSettings(draft_length=length, window=64, tokens_per_message=1),
        ),
        delays=Delays(up=(rtt_s / 2,), down=(rtt_s / 2,)),
    )
    # Three runs of 1500 tokens scatter by about 2 %.
    assert found.tokens / found.num_steps == pytest.approx(sum(expected) / 3, rel=0.06)


# --- laws


def busy_group(drafts: DrafterModel | None, *, every_s: float = 4.0, seats: int = 6) -> Tally:
    people = People(every_s=every_s, answer_tokens=40.0, prompt_tokens=60.0, most_tokens=200)
    questions = []
    for edge in range(10):
        drawn = people.asks(seed=3, edge=edge)
        questions.append([next(drawn) for _ in range(4)])
    scheduler = SchedulerSettings(row_budget=24)
    verifier = VerifierModel(cost=COST, scheduler=scheduler, max_sessions=seats)
    return ran(*questions, verifier=verifier, drafts=drafts)


@pytest.mark.parametrize("drafts", [None, drafter(0.7), drafter(0.7, length=None)])
def test_nothing_is_lost_and_nothing_exceeds_its_bound(drafts: DrafterModel | None) -> None:
    tally = busy_group(drafts)
    assert len(tally.answers) == 40
    assert tally.tokens == sum(one.tokens for one in tally.answers)
    assert tally.most_rows <= 24
    assert tally.most_sessions == 6
    assert tally.num_refused > 0
    fates = tally.drafts
    assert fates.drafted == fates.accounted
    assert min(fates.ended, fates.late, fates.stale, fates.behind) >= 0
    # Every committed token is a row's: of a root, of an accepted draft, or the last of a prompt. What came during a step and
    # was right is accepted without a row of its own.
    assert tally.tokens >= tally.root_rows + len(tally.answers)
    assert tally.tokens <= tally.root_rows + len(tally.answers) + tally.draft_rows


@pytest.mark.parametrize("drafts", [None, drafter(0.7)])
def test_time_is_conserved(drafts: DrafterModel | None) -> None:
    tally = busy_group(drafts)
    sequences = tally.root_rows
    rows_s = COST.per_row_s * (tally.root_rows + tally.draft_rows)
    least_s = COST.fixed_s * tally.num_steps + rows_s + COST.per_sequence_s * sequences
    prompts_s = COST.per_prefill_row_s * tally.prefill_rows
    # Each step has at most six sequences, those whose prompts are computed included.
    most_s = least_s + prompts_s + COST.per_sequence_s * 6 * tally.num_steps
    assert least_s + prompts_s <= tally.busy_s <= most_s
    assert sum(one.busy_s for one in tally.bins) == pytest.approx(tally.busy_s)


@pytest.mark.parametrize("drafts", [None, drafter(0.7), drafter(0.9, length=None)])
def test_littles_law_holds(drafts: DrafterModel | None) -> None:
    tally = busy_group(drafts)
    assert tally.sessions_s == pytest.approx(sum(one.served_s for one in tally.answers))


def test_the_verifier_never_rests_while_somebody_waits() -> None:
    tally = ran(*(asks(50, 50, 50) for _ in range(4)), drafts=drafter(0.6))
    # Sessions are in a step all the time that they are there.
    assert tally.sessions_s == pytest.approx(sum(one.sessions_s for one in tally.bins))
    assert tally.waited_s == pytest.approx(0.0, abs=1e-9)


def test_with_the_race_off_a_session_waits_for_drafts_but_never_longer_than_its_patience() -> None:
    def tally(patience_s: float, drafts: DrafterModel | None) -> Tally:
        scheduler = SchedulerSettings(race=False, patience_s=patience_s)
        return ran(asks(40), verifier=VerifierModel(cost=COST, scheduler=scheduler), drafts=drafts)

    on = ran(asks(40), drafts=drafter(0.9))
    off = tally(5.0, drafter(0.9))
    assert off.num_steps < on.num_steps
    assert off.waited_s > on.waited_s
    hasty = tally(0.01, drafter(0.9))
    assert hasty.waited_s <= 0.0101 * hasty.num_steps
    idle = tally(5.0, None)  # its edge says that it drafts nothing
    assert idle.waited_s <= 5.0


# --- monotone where it must be


def test_better_drafts_and_shorter_ways_are_faster() -> None:
    def at(acceptance: float, one_way_s: float) -> float:
        delays = Delays(up=(one_way_s,), down=(one_way_s,))
        return speed(ran(asks(300, 300), drafts=drafter(acceptance), delays=delays))

    speeds = [at(acceptance, 0.02) for acceptance in (0.0, 0.5, 0.8, 1.0)]
    assert speeds == sorted(speeds)
    assert speeds[-1] > 2.0 * speeds[0]
    near_to_far = [at(0.9, one_way_s) for one_way_s in (0.005, 0.05, 0.3)]
    assert near_to_far == sorted(near_to_far, reverse=True)


def test_more_load_is_slower_and_the_waiting_longer() -> None:
    light, heavy = busy_group(drafter(0.7), every_s=60.0), busy_group(drafter(0.7), every_s=2.0)
    assert speed(heavy) < 0.9 * speed(light)
    assert heavy.num_refused > light.num_refused


def test_the_controller_drafts_farther_over_longer_ways() -> None:
    def drafted(one_way_s: float) -> float:
        delays = Delays(up=(one_way_s,), down=(one_way_s,))
        tally = ran(asks(400), drafts=drafter(0.95, length=None), delays=delays)
        return tally.drafts.drafted / tally.tokens

    assert drafted(0.15) > 1.1 * drafted(0.001)


# --- parts


@pytest.mark.slow
@given(
    offered=st.lists(st.integers(0, 12), max_size=12),
    prompts=st.lists(st.integers(1, 60), max_size=6),
    budget=st.integers(2, 64),
    share=st.floats(0.05, 0.9),
)
def test_rows_are_given_out_as_the_scheduler_does(
    offered: list[int], prompts: list[int], budget: int, share: float
) -> None:
    settings = SchedulerSettings(row_budget=budget, prefill_share=share)
    views = [
        SessionView(key=key, may_step=True, waiting_since_s=0.0, num_offered=count)
        for key, count in enumerate(offered)
    ]
    views += [
        SessionView(key=100 + key, may_step=True, waiting_since_s=0.0, num_to_prefill=count)
        for key, count in enumerate(prompts)
    ]
    plan = plan_step(views, settings, now_s=1.0)
    num_roots, drafts, prefill = shares(offered, prompts, settings)
    roots = [rows for rows in plan.rows if not rows.is_prefill]
    assert [rows.num_drafts for rows in roots] == drafts
    assert len(roots) == num_roots
    filled = {100 + key: count for key, count in enumerate(prefill) if count}
    assert {rows.key: rows.num_prefill for rows in plan.rows if rows.is_prefill} == filled


def test_guesses_are_those_of_the_acceptance() -> None:
    acceptance = IndependentAcceptance((0.6,), seed=5)
    guesses = Guesses(acceptance, length=200)
    for position in range(200):
        wrong = [p for p in range(position, 200) if not acceptance.at(p).matches(1)]
        assert not wrong or guesses.next_wrong[position] == wrong[0]
    assert guesses.reach is None
    assert guesses.count(3, 7, most=4) == 4


def test_a_draft_that_abstains_guesses_as_far_as_it_was_recorded() -> None:
    acceptance = ReplayedAcceptance(recorded_trace("lookup"), seed=2)
    guesses = Guesses(acceptance, length=128)
    assert guesses.reach is not None
    for position in range(100):
        reach = acceptance.at(position).reach
        count = guesses.count(position, position, most=8)
        assert count <= min(8, reach)
        assert bool(count) == bool(reach)


def test_delays_are_those_of_the_link() -> None:
    steady = sampled(parse_network("rtt=80ms,bandwidth=1mbit"), seed=1)
    assert len(steady.up) == 1
    assert steady.up[0] == pytest.approx(0.04 + 24 * 8 / 1e6)
    assert steady.up_byte_s == pytest.approx(8e-6)
    rough = sampled(parse_network("rtt=80ms,jitter=10ms,loss=2%"), seed=1, lasts_s=40.0)
    assert len(rough.up) == len(rough.down) == 2000
    assert min(rough.up) >= 0.04
    assert sum(rough.up) / 2000 == pytest.approx(0.04 + 0.01 / math.sqrt(2) + 0.02 * 0.3, abs=0.006)
    assert max(rough.down) > 0.2  # what was lost came again
    assert rough == sampled(parse_network("rtt=80ms,jitter=10ms,loss=2%"), seed=1, lasts_s=40.0)


def test_people_ask_as_often_and_as_long_as_they_are_said_to() -> None:
    people = People(every_s=100.0)
    drawn = [ask for edge in range(200) for ask in first(people, edge=edge, until_s=2000.0)]
    assert len(drawn) == pytest.approx(4000, rel=0.06)
    mean = sum(ask.max_tokens for ask in drawn) / len(drawn)
    assert mean == pytest.approx(people.mean_answer_tokens, rel=0.06)
    assert max(ask.max_tokens for ask in drawn) == people.most_tokens
    same = replace(people, answer_spread=0.0)
    assert {ask.max_tokens for ask in first(same, edge=0, until_s=1000.0)} == {214}
    assert same.mean_answer_tokens == same.answer_tokens


def first(people: People, *, edge: int, until_s: float) -> list[Ask]:
    found = []
    for ask in people.asks(seed=1, edge=edge):
        if ask.at_s > until_s:
            break
        found.append(ask)
    return found


def test_scattered_times_have_the_mean_of_their_distribution() -> None:
    spread = Spread(quantiles=(0.5, 0.6, 0.8, 1.0, 1.2, 1.4, 1.5))
    assert len(LEVELS) == len(spread.quantiles)
    scattered = ran(asks(400), verifier=VerifierModel(cost=COST, spread=spread))
    assert speed(scattered) == pytest.approx(speed(ran(asks(400))), rel=0.03)
    assert scattered.busy_s != ran(asks(400)).busy_s


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: VerifierModel(cost=COST, max_sessions=0), "max_sessions"),
        (lambda: VerifierModel(cost=COST, max_draft_rows=-1), "max_draft_rows"),
        (lambda: VerifierModel(cost=COST, retry_after_s=0.0), "retry_after_s"),
        (lambda: DrafterModel(cost=DRAFT, acceptance=1.5), "acceptance"),
        (lambda: People(every_s=0.0), "every_s"),
        (lambda: People(every_s=1.0, answer_spread=-1.0), "answer_spread"),
        (lambda: People(every_s=1.0, answer_tokens=2000.0), "most_tokens"),
    ],
)
def test_what_is_out_of_range_is_named(make: object, names: str) -> None:
    assert callable(make)
    with pytest.raises(ConfigError, match=names):
        make()
