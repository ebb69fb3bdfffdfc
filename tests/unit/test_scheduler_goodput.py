"""Which draft rows pay: against every other choice, at the ends of the scale, and over many steps."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.goodput import Chosen, DraftRows, choose
from cloud.scheduler import Plan, Schedule, SchedulerSettings, SessionView, plan_step
from cloud.step_cost import StepCosts

CPU = StepCosts(fixed_s=0.05, per_session_s=0.0008, per_row_s=0.0005, per_prefill_row_s=0.0003)
FULL = StepCosts(fixed_s=0.001, per_row_s=0.0005)
"""Rows are nearly all of a step, as on a GPU whose arithmetic is used up."""

chances = st.lists(st.floats(0.0, 1.0), max_size=4).map(lambda c: tuple(sorted(c, reverse=True)))
offers_of_all_kinds = st.lists(
    st.builds(DraftRows, chances=chances, row_s=st.floats(0.0, 0.02)), max_size=3
)


def per_second(offers: list[DraftRows], counts: tuple[int, ...], base_s: float) -> float:
    pairs = list(zip(offers, counts, strict=True))
    tokens = len(offers) + sum(sum(offer.chances[:count]) for offer, count in pairs)
    return tokens / (base_s + sum(offer.row_s * count for offer, count in pairs))


@given(offers=offers_of_all_kinds, base_s=st.floats(0.001, 0.1))
def test_no_other_choice_commits_more_per_second(offers: list[DraftRows], base_s: float) -> None:
    chosen = choose(offers, budget=100, base_s=base_s)
    found = per_second(offers, chosen.counts, base_s)
    every = itertools.product(*(range(len(offer.chances) + 1) for offer in offers))
    assert found >= max(per_second(offers, counts, base_s) for counts in every) * (1 - 1e-9)
    assert found == pytest.approx(chosen.num_tokens / chosen.seconds)


@given(offers=offers_of_all_kinds, base_s=st.floats(0.001, 0.1), budget=st.integers(0, 5))
def test_the_budget_is_kept_and_the_best_rows_are_in_it(
    offers: list[DraftRows], base_s: float, budget: int
) -> None:
    free = choose(offers, budget=100, base_s=base_s)
    chosen = choose(offers, budget=budget, base_s=base_s)
    assert sum(chosen.counts) == min(budget, sum(free.counts))
    assert all(few <= many for few, many in zip(chosen.counts, free.counts, strict=True))


def test_nothing_offered() -> None:
    assert choose([], budget=9, base_s=0.02) == Chosen(counts=(), num_tokens=0.0, seconds=0.02)


def test_equal_rows_go_to_whom_drafts_were_given_least_recently() -> None:
    offers = [
        DraftRows(chances=(0.5, 0.5), row_s=0.0, drafted_at_s=at_s) for at_s in (3.0, 1.0, 2.0)
    ]
    assert choose(offers, budget=1, base_s=0.02).counts == (0, 1, 0)


def session(key: int, *found: float, **changes: Any) -> SessionView:
    fields: dict[str, Any] = {"key": key, "may_step": True, "waiting_since_s": 0.0}
    fields |= {"chances": found, "num_offered": len(found), "has_drafts": bool(found)}
    return SessionView(**(fields | changes))


def planned(
    views: list[SessionView], costs: StepCosts | None = CPU, **settings: Any
) -> tuple[dict[int, int], Plan]:
    plan = plan_step(views, SchedulerSettings(**settings), now_s=1.0, costs=costs)
    return {part.key: part.num_drafts for part in plan.rows if not part.is_prefill}, plan


def test_alone_on_a_processor_nearly_every_row_pays() -> None:
    drafts, plan = planned([session(1, 0.6, 0.3, 0.1, 0.05, 0.025, 0.015, 0.009, 0.001)])
    assert drafts == {1: 5}
    assert plan.num_left_out == 3
    assert plan.num_expected == pytest.approx(1.075)


def test_rows_go_where_they_are_likeliest_over_all_sessions() -> None:
    views = [session(1, 0.9, 0.8, 0.7, 0.6), session(2, 0.65, 0.1), session(3)]
    assert planned(views, row_budget=7)[0] == {1: 3, 2: 1, 3: 0}
    assert planned(views, row_budget=7, schedule=Schedule.EVEN)[0] == {1: 2, 2: 2, 3: 0}


def test_drafts_shrink_to_nothing_where_rows_are_all_that_costs() -> None:
    views = [session(key, 0.85, 0.7, 0.6) for key in range(60)]
    few, many = planned(views[:1], FULL)[0], planned(views, FULL)[0]
    assert few == {0: 3}
    assert many == dict.fromkeys(range(60), 0)


def test_nobody_is_slowed_down_by_drafts_of_others_more_than_allowed() -> None:
    good = [session(key, 0.9, 0.8, 0.7, tokens_per_step=2.5) for key in range(20)]
    bare = planned(good)[1].work
    silent = session(99, tokens_per_step=1.0)
    for views, slowdown, most in (
        ([*good, silent], 1.0, 1.0),
        ([*good, silent], 1.1, 1.1),
        ([*good, session(99, tokens_per_step=1.2)], 1.1, 1.32),
    ):
        drafts, plan = planned(views, max_slowdown=slowdown)
        longer = CPU.seconds(plan.work) / CPU.seconds(replace(plan.work, num_rows=21))
        assert longer <= most * (1 + 1e-9)
        assert longer > most - 0.02, "as much as is allowed"
        assert (sum(drafts.values()) > 0) is (most > 1.0)
    assert planned([*good, session(99)])[1].work.num_rows == bare.num_rows + 1, "nothing known"
    alone = [session(1, *[0.9] * 40, tokens_per_step=1.0)]
    assert planned(alone, max_slowdown=1.0)[0] == {1: 40}, "there are no others"


def test_before_anything_is_known_of_costs_drafts_are_shared() -> None:
    drafts, plan = planned([session(1, 0.1, 0.01), session(2, 0.1, 0.01)], None)
    assert drafts == {1: 2, 2: 2}
    assert plan.row_price_s == 0.0


def test_a_long_prompt_in_the_step_makes_drafts_cheaper_and_keeps_its_reserve() -> None:
    views = [session(key, 0.1) for key in range(30)]
    prompt = session(99, num_to_prefill=10_000)
    assert sum(planned(views, row_budget=128)[0].values()) == 0
    drafts, plan = planned([*views, prompt], row_budget=512, prefill_share=0.5)
    assert sum(drafts.values()) == 30
    assert plan.num_rows == 512
    assert plan.work.num_prefill_rows == 452


def test_a_row_costs_the_others_what_the_step_gets_longer_for_each() -> None:
    costs = StepCosts(fixed_s=0.02, per_row_s=0.001, per_attended_s=1e-6)
    views = [session(key, 0.9, context=1000 * key) for key in (1, 2, 3)]
    assert planned(views, costs)[1].row_price_s == pytest.approx(2 * 0.003)
    assert planned(views[:1], costs)[1].row_price_s == 0.0


def test_the_work_of_a_step_is_told() -> None:
    views = [session(1, 0.9, 0.8, context=100), session(2, num_to_prefill=5, context=7)]
    work = planned(views)[1].work
    assert (work.num_sessions, work.num_rows, work.num_prefill_rows) == (2, 3, 5)
    assert (work.num_context_tokens, work.num_attended) == (107, 335)


def test_two_groups_are_stepped_in_turn() -> None:
    views = {key: session(key, 0.9) for key in range(5)}
    settings = SchedulerSettings(schedule=Schedule.ALTERNATING)
    served: list[set[int]] = []
    for step in range(1, 5):
        plan = plan_step(list(views.values()), settings, now_s=float(step), costs=CPU)
        served.append({part.key for part in plan.rows})
        for part in plan.rows:
            assert part.num_drafts == 1
            views[part.key] = session(part.key, 0.9, waiting_since_s=float(step))
    assert served[0] | served[1] == set(range(5))
    assert [len(group) for group in served] == [3, 3, 3, 3]
    assert len(planned([session(1, 0.9)], schedule=Schedule.ALTERNATING)[0]) == 1


@given(num=st.integers(2, 12), places=st.integers(1, 4), chance=st.floats(0.3, 0.9))
def test_nobody_is_left_out_for_ever_if_all_are_alike(num: int, places: int, chance: float) -> None:
    drafted_at_s = dict.fromkeys(range(num), 0.0)
    for step in range(1, 2 * num + 1):
        views = [session(key, chance, drafted_at_s=at) for key, at in drafted_at_s.items()]
        drafts, _ = planned(views, row_budget=num + places)
        for key, count in drafts.items():
            if count:
                drafted_at_s[key] = float(step)
    assert min(drafted_at_s.values()) > num, "twice as many steps as sessions, a row in each"


@given(
    views=st.lists(st.tuples(chances, st.integers(0, 2000)), min_size=1, max_size=20),
    row_s=st.floats(0.0, 0.01),
)
def test_a_step_never_yields_less_per_second_than_without_drafts(
    views: list[tuple[tuple[float, ...], int]], row_s: float
) -> None:
    costs = StepCosts(fixed_s=0.01, per_row_s=row_s, per_attended_s=1e-7)
    sessions = [session(key, *found, context=n) for key, (found, n) in enumerate(views)]
    plan = planned(sessions, costs)[1]
    bare = planned([session(key, context=n) for key, (_, n) in enumerate(views)], costs)[1]
    plain = len(views) / costs.seconds(bare.work)
    assert (len(views) + plan.num_expected) / costs.seconds(plan.work) >= plain * (1 - 1e-9)
