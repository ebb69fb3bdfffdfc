"""What holds of every plan, and over many steps."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from cloud.scheduler import Plan, SchedulerSettings, SessionView, plan_step, share_out

settings_of_all_kinds = st.builds(
    SchedulerSettings,
    row_budget=st.integers(2, 60),
    race=st.booleans(),
    patience_s=st.floats(0.0, 20.0),
    patience_most_s=st.floats(0.0, 20.0),
    prefill_share=st.floats(0.01, 0.9),
)


@st.composite
def sessions(draw: st.DrawFn) -> list[SessionView]:
    count = draw(st.integers(0, 30))
    views = []
    for key in range(count):
        offered = draw(st.integers(0, 20))
        views.append(
            SessionView(
                key=key,
                may_step=draw(st.booleans()),
                waiting_since_s=draw(st.floats(0.0, 10.0)),
                num_to_prefill=draw(st.sampled_from([0, 0, 1, 7, 500])),
                waits_for=draw(st.sampled_from([None, None, None, -1, *range(count)])),
                num_offered=offered,
                has_drafts=offered > 0 or draw(st.booleans()),
                edge_is_idle=draw(st.booleans()),
                patience_s=draw(st.sampled_from([0.0, 0.0, 0.3, 7.0, 4e6])),
            )
        )
    return views


@given(views=sessions(), settings=settings_of_all_kinds, now_s=st.floats(10.0, 40.0))
def test_every_plan_keeps_the_rules(
    views: list[SessionView], settings: SchedulerSettings, now_s: float
) -> None:
    plan = plan_step(views, settings, now_s=now_s)
    known = {view.key: view for view in views}
    assert plan.num_rows <= settings.row_budget
    assert len({part.key for part in plan.rows}) == len(plan.rows)
    for part in plan.rows:
        view = known[part.key]
        assert view.may_step
        assert view.waits_for is None
        assert part.num_prefill <= view.num_to_prefill
        assert part.is_prefill == (view.num_to_prefill > 0)
        assert part.num_drafts <= view.num_offered
    free = [view for view in views if view.may_step and view.waits_for is None]
    if any(view.num_to_prefill for view in free):
        assert any(part.is_prefill for part in plan.rows)
    ready = [view for view in free if view.num_to_prefill == 0]
    hurried = [view for view in ready if settings.race and view.patience_s == 0.0]
    if hurried:
        assert not all(part.is_prefill for part in plan.rows)
    if any(part.num_drafts for part in plan.rows):
        assert {view.key for view in hurried} <= {part.key for part in plan.rows}, "roots first"
    waiting = [view for view in views if view.may_step and view.waits_for is not None]
    if waiting and not free:
        assert plan.take_over, "everybody waits for somebody else"
    if not plan.rows and free:
        assert plan.wake_at_s is not None, "somebody would wait for ever"


@given(wants=st.lists(st.integers(0, 50), max_size=12), budget=st.integers(0, 200))
def test_sharing_is_complete_and_even(wants: list[int], budget: int) -> None:
    given_out = share_out(wants, budget)
    assert sum(given_out) == min(budget, sum(wants))
    for got, want in zip(given_out, wants, strict=True):
        assert 0 <= got <= want
        if got < want:
            # Nobody who wants more has less than anybody else has, but for an odd one.
            assert got >= max(given_out) - 1


@dataclass(slots=True)
class Simulated:
    """A session that is always ready for more."""

    num_to_prefill: int
    waiting_since_s: float
    num_served: int = 0


@given(
    prompts=st.lists(st.integers(0, 300), min_size=1, max_size=25),
    settings=st.builds(
        SchedulerSettings, row_budget=st.integers(2, 40), prefill_share=st.floats(0.1, 0.9)
    ),
    num_offered=st.integers(0, 30),
)
def test_nobody_starves(prompts: list[int], settings: SchedulerSettings, num_offered: int) -> None:
    everyone = [Simulated(num_to_prefill=rows, waiting_since_s=0.0) for rows in prompts]
    longest_gap = _simulate(everyone, settings, num_offered=num_offered, num_steps=60)
    reserve = max(1, int(settings.row_budget * settings.prefill_share))
    # Once round for everybody, at the fewest places a step can have for roots and for prefill.
    rounds = -(-len(prompts) // min(settings.row_budget - reserve, reserve))
    assert longest_gap <= 2 * rounds + 1


def _simulate(
    everyone: list[Simulated], settings: SchedulerSettings, *, num_offered: int, num_steps: int
) -> int:
    """Return the longest a session went without any row, in steps."""
    last_served = [0] * len(everyone)
    longest = 0
    for step in range(1, num_steps + 1):
        for part in _plan(everyone, settings, num_offered=num_offered, now_s=float(step)).rows:
            one = everyone[part.key]
            one.num_to_prefill -= part.num_prefill
            one.waiting_since_s = float(step)
            one.num_served += 1
            last_served[part.key] = step
        longest = max(longest, *(step - last for last in last_served))
    return longest


def _plan(
    everyone: list[Simulated], settings: SchedulerSettings, *, num_offered: int, now_s: float
) -> Plan:
    views = [
        SessionView(
            key=key,
            may_step=True,
            waiting_since_s=one.waiting_since_s,
            num_to_prefill=one.num_to_prefill,
            num_offered=num_offered,
            has_drafts=num_offered > 0,
        )
        for key, one in enumerate(everyone)
    ]
    return plan_step(views, settings, now_s=now_s)
