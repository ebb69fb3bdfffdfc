"""The scheduler's rule as tables."""

from typing import Any

import pytest

from cloud.scheduler import SchedulerSettings, SessionView, plan_step, share_out
from paceline.errors import ConfigError

NOW_S = 100.0


def session(key: int, **changes: Any) -> SessionView:
    fields: dict[str, Any] = {
        "key": key,
        "may_step": True,
        "waiting_since_s": NOW_S - 1.0,
    } | changes
    return SessionView(**fields)


def rows(*views: SessionView, **settings: Any) -> dict[int, tuple[int, int]]:
    """Prefill and draft rows of every session in the step; (0, 0) is a root alone."""
    plan = plan_step(views, SchedulerSettings(**settings), now_s=NOW_S)
    return {part.key: (part.num_prefill, part.num_drafts) for part in plan.rows}


def test_nothing_to_do() -> None:
    plan = plan_step([], SchedulerSettings(), now_s=NOW_S)
    assert (plan.rows, plan.take_over, plan.wake_at_s, plan.num_rows) == ((), (), None, 0)


def test_all_sessions_are_packed_in_one_step() -> None:
    assert rows(*(session(key) for key in range(8))) == dict.fromkeys(range(8), (0, 0))


def test_who_may_not_step_is_left_out() -> None:
    assert rows(session(1, may_step=False), session(2)) == {2: (0, 0)}


def test_roots_come_before_drafts() -> None:
    views = [session(key, num_offered=10, has_drafts=True) for key in range(4)]
    assert rows(*views, row_budget=4) == dict.fromkeys(range(4), (0, 0))


def test_too_many_roots_serve_the_longest_waiting() -> None:
    views = [session(key, waiting_since_s=NOW_S - key) for key in range(5)]
    assert set(rows(*views, row_budget=2)) == {4, 3}


def test_drafts_are_shared_evenly() -> None:
    offers = {1: 2, 2: 50, 3: 50}
    views = [session(k, num_offered=n, has_drafts=True) for k, n in offers.items()]
    assert rows(*views, row_budget=25) == {1: (0, 2), 2: (0, 10), 3: (0, 10)}


def test_prefill_takes_what_the_others_leave() -> None:
    views = [session(1, num_offered=5, has_drafts=True), session(2, num_to_prefill=1000)]
    assert rows(*views, row_budget=40) == {1: (0, 5), 2: (34, 0)}


def test_prefill_has_a_reserve_that_drafts_do_not_touch() -> None:
    views = [session(1, num_offered=500, has_drafts=True), session(2, num_to_prefill=1000)]
    assert rows(*views, row_budget=40, prefill_share=0.25) == {1: (0, 29), 2: (10, 0)}


def test_roots_do_not_touch_the_reserve() -> None:
    views = [*(session(key) for key in range(40)), session(99, num_to_prefill=1000)]
    planned = rows(*views, row_budget=40, prefill_share=0.25)
    assert planned[99] == (10, 0)
    assert len(planned) == 31


def test_the_reserve_is_no_larger_than_what_is_left_to_prefill() -> None:
    views = [session(1, num_offered=500, has_drafts=True), session(2, num_to_prefill=3)]
    assert rows(*views, row_budget=40) == {1: (0, 36), 2: (3, 0)}


def test_a_short_prompt_is_not_stuck_behind_a_long_one() -> None:
    views = [
        session(1, num_to_prefill=10_000, waiting_since_s=0.0),
        session(2, num_to_prefill=20, waiting_since_s=NOW_S),
    ]
    assert rows(*views, row_budget=100) == {1: (80, 0), 2: (20, 0)}


def test_who_waits_for_a_shared_prefix_is_left_out() -> None:
    views = [session(1, num_to_prefill=10), session(2, num_to_prefill=3, waits_for=1)]
    plan = plan_step(views, SchedulerSettings(), now_s=NOW_S)
    assert [part.key for part in plan.rows] == [1]
    assert plan.take_over == ()


@pytest.mark.parametrize("leader_is_there", [True, False])
def test_a_prefix_nobody_computes_is_taken_over(leader_is_there: bool) -> None:
    views = [session(2, num_to_prefill=3, waits_for=1)]
    if leader_is_there:
        views.append(session(1, num_to_prefill=10, may_step=False))
    assert plan_step(views, SchedulerSettings(), now_s=NOW_S).take_over == (2,)


@pytest.mark.parametrize(
    ("waits", "orphans"),
    [
        ({1: None, 2: 1, 3: 2}, ()),
        ({2: 1, 3: 2}, (2,)),
        ({1: 2, 2: 1}, (1,)),
        ({1: 1}, (1,)),
        ({1: 2, 2: 3, 3: 1, 4: 1}, (1,)),
    ],
    ids=["a chain", "its head is gone", "each other", "itself", "a circle and a follower"],
)
def test_nobody_waits_for_ever(waits: dict[int, int | None], orphans: tuple[int, ...]) -> None:
    views = [session(key, num_to_prefill=3, waits_for=leader) for key, leader in waits.items()]
    assert plan_step(views, SchedulerSettings(), now_s=NOW_S).take_over == orphans


@pytest.mark.parametrize(
    ("changes", "is_served"),
    [
        ({}, False),
        ({"has_drafts": True}, True),
        ({"edge_is_idle": True}, True),
        ({"waiting_since_s": NOW_S - 3.0}, True),
    ],
)
def test_race_off_waits_for_drafts_within_reason(changes: dict[str, Any], is_served: bool) -> None:
    plan = plan_step(
        [session(1, **changes)], SchedulerSettings(race=False, patience_s=3.0), now_s=NOW_S
    )
    assert bool(plan.rows) is is_served
    assert plan.wake_at_s == (None if is_served else NOW_S + 2.0)


@pytest.mark.parametrize(
    ("asked_s", "race", "until_s"),
    [
        (0.0, True, None),
        (2.0, True, 2.0),
        (9.0, True, 5.0),
        (0.0, False, 3.0),
        (2.0, False, 3.0),
        (9.0, False, 5.0),
    ],
)
def test_an_edge_may_ask_for_patience_within_bounds(
    asked_s: float, race: bool, until_s: float | None
) -> None:
    settings = SchedulerSettings(race=race, patience_s=3.0, patience_most_s=5.0)
    view = session(1, waiting_since_s=NOW_S, patience_s=asked_s)
    plan = plan_step([view, session(2, has_drafts=True)], settings, now_s=NOW_S)
    assert {part.key for part in plan.rows} == ({1, 2} if until_s is None else {2})
    assert plan.wake_at_s == (None if until_s is None else NOW_S + until_s)
    if plan.wake_at_s is not None:
        assert plan_step([view], settings, now_s=plan.wake_at_s).rows


@pytest.mark.parametrize("reason", ["has_drafts", "edge_is_idle"])
def test_patience_is_not_needed_with_drafts_or_an_idle_edge(reason: str) -> None:
    view = session(1, waiting_since_s=NOW_S, patience_s=1.0, **{reason: True})
    assert rows(view) == {1: (0, 0)}


def test_race_on_never_waits() -> None:
    assert rows(session(1), race=True) == {1: (0, 0)}


def test_patience_ends_exactly_when_it_said_it_would() -> None:
    settings = SchedulerSettings(race=False, patience_s=0.1)
    view = session(1, waiting_since_s=0.7)
    wake_at_s = plan_step([view], settings, now_s=0.7).wake_at_s
    assert wake_at_s is not None
    assert plan_step([view], settings, now_s=wake_at_s).rows


@pytest.mark.parametrize(
    ("wants", "budget", "given"),
    [
        ([], 5, []),
        ([3, 3], 0, [0, 0]),
        ([3, 3], 100, [3, 3]),
        ([9, 9, 9], 1, [1, 0, 0]),
        ([9, 9, 9], 10, [4, 3, 3]),
        ([1, 9, 9], 10, [1, 5, 4]),
        ([9, 1, 0], 5, [4, 1, 0]),
    ],
)
def test_share_out(wants: list[int], budget: int, given: list[int]) -> None:
    assert share_out(wants, budget) == given


@pytest.mark.parametrize(
    "wrong",
    [
        {"row_budget": 1},
        {"patience_s": -1.0},
        {"patience_s": float("inf")},
        {"patience_s": float("nan")},
        {"max_slowdown": 0.9},
        {"max_slowdown": float("nan")},
        {"prefill_share": 0.0},
        {"prefill_share": 0.95},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SchedulerSettings(**wrong)
