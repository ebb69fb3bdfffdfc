"""What the scheduler is told of sessions, and what is learned from its steps."""

import pytest
from harness.cloud_house import House

from cloud.entry import PACE_STEPS, Entry
from cloud.orders import Served, StepResult
from cloud.scheduler import Plan, SchedulerSettings, SessionRows, SessionView, plan_step
from cloud.step_cost import StepWork
from paceline.errors import ModelError
from paceline.messages import Proposal
from paceline.session.ranks import PRIOR
from paceline.tokens import TokenId

STEP_S = 0.05


def _view(house: House, entry: Entry) -> SessionView:
    views, _ = house.workload.scheduler_views()
    return next(view for view in views if view.key == entry.key)


def _plan(house: House, settings: SchedulerSettings) -> Plan:
    views, _ = house.workload.scheduler_views()
    return plan_step(views, settings, now_s=house.clock.now_s(), costs=house.workload.costs)


def _end(house: House, plan: Plan, served: dict[int, int], *, failed: tuple[int, ...] = ()) -> None:
    """End a step that committed so many tokens 9 for each session."""
    result = StepResult(
        served={
            key: Served(tokens=(TokenId(9),) * count, logprobs=()) for key, count in served.items()
        },
        failed={key: ModelError("rows that fail") for key in failed},
        step_ns=int(STEP_S * 1e9),
        num_rows=plan.num_rows,
    )
    house.workload.stepped(result, plan, started_s=house.clock.now_s() - STEP_S)


def test_the_scheduler_is_told_what_steps_bring_a_session_and_when_it_had_drafts() -> None:
    house = House(max_lead=60)
    entry, stream = house.open(max_tokens=40)
    house.arrange()
    chain = tuple(TokenId(9) for _ in range(24))
    only = Proposal(
        base_position=entry.session.length, tokens=chain, parents=(0, *(1 for _ in chain[1:]))
    )
    house.registry.deliver(entry, stream, only)
    for number in range(PACE_STEPS):
        assert _view(house, entry).tokens_per_step is None
        house.later(STEP_S)
        plan = _plan(house, SchedulerSettings())
        _end(house, plan, {entry.key: 1 + number % 2})
        assert plan.rows[0].num_drafts > 0
        assert _view(house, entry).drafted_at_s == house.clock.now_s() - STEP_S
    # Newer ones count a little more, and the last one brought two.
    assert _view(house, entry).tokens_per_step == pytest.approx(1.5, abs=0.02)
    assert _view(house, entry).tokens_per_step != 1.5
    # A step without any draft of it moves nothing.
    before_s = _view(house, entry).drafted_at_s
    house.later(STEP_S)
    _end(house, Plan(rows=(SessionRows(key=entry.key),)), {entry.key: 1})
    assert _view(house, entry).drafted_at_s == before_s


def test_what_is_offered_and_not_taken_is_counted() -> None:
    house = House(max_lead=60)
    entry, stream = house.open(max_tokens=40)
    house.arrange()
    drafts = tuple(TokenId(token) for token in range(10, 16))
    house.registry.deliver(
        entry,
        stream,
        Proposal(base_position=entry.session.length, tokens=drafts, parents=(0,) * len(drafts)),
    )
    plan = _plan(house, SchedulerSettings(row_budget=3))
    _end(house, plan, {entry.key: 1})
    account = house.registry.account
    assert (account.drafts_chosen, account.drafts_left_out) == (2, 4)
    # Of drafts of which nothing is known.
    assert account.drafts_expected == pytest.approx(PRIOR[0] + PRIOR[1])


def test_a_step_whose_rows_were_run_one_by_one_tells_nothing_of_what_steps_take() -> None:
    house = House(max_lead=60)
    good, _ = house.open()
    bad, _ = house.open()
    house.arrange()
    plan = _plan(house, SchedulerSettings())
    assert plan.work == StepWork(num_sessions=2, num_rows=2, num_context_tokens=6, num_attended=6)
    _end(house, plan, {good.key: 1}, failed=(bad.key,))
    assert house.workload.costs is None
    _end(house, _plan(house, SchedulerSettings()), {good.key: 1})
    assert house.workload.costs is not None
