"""What an edge has its session wait for drafts is no sign of a busy verifier."""

import pytest
from harness.cloud_house import House

from cloud.entry import Entry
from cloud.orders import Served, StepResult
from cloud.scheduler import SchedulerSettings, plan_step
from paceline.messages import Proposal
from paceline.tokens import TokenId

STEP_S = 0.05


def _step(house: House, entry: Entry, settings: SchedulerSettings) -> bool:
    """Make the step that is due now, which commits a token; return whether one was."""
    views, _ = house.workload.scheduler_views()
    plan = plan_step(views, settings, now_s=house.clock.now_s())
    if not plan.rows:
        return False
    started_s = house.clock.now_s()
    house.later(STEP_S)
    served = {entry.key: Served(tokens=(TokenId(9),), logprobs=())}
    result = StepResult(served=served, failed={}, step_ns=int(STEP_S * 1e9), num_rows=1)
    house.workload.stepped(result, plan, started_s=started_s)
    return True


@pytest.mark.parametrize("race", [True, False])
def test_waiting_for_drafts_is_no_queue(race: bool) -> None:
    house = House(max_lead=60)
    settings = SchedulerSettings(race=race, patience_s=0.0 if race else 0.4)
    entry, stream = house.open(patience_ms=400 if race else 0)
    house.arrange()
    load = house.registry.account.load

    def queue_s() -> float:
        return load.load(now_s=house.clock.now_s()).queue_s

    # Held back until drafts come, which then wait until the model has a moment.
    assert not _step(house, entry, settings)
    house.later(0.3)
    drafts = Proposal(base_position=entry.session.length, tokens=(TokenId(9),), parents=(0,))
    house.registry.deliver(entry, stream, drafts)
    house.later(0.02)
    assert _step(house, entry, settings)
    assert queue_s() == pytest.approx(0.02)
    # The edge hears of all of it.
    commit = entry.session.next_commit()
    assert commit is not None
    assert commit.queue_ns == pytest.approx(0.32e9, rel=1e-6)
    # Held back in vain.
    house.later(0.39)
    assert not _step(house, entry, settings)
    house.later(0.03)
    assert _step(house, entry, settings)
    assert queue_s() == pytest.approx(0.02)
    # Not held back: the edge is idle.
    idle = Proposal(base_position=entry.session.length, tokens=(), idle=True)
    house.registry.deliver(entry, stream, idle)
    house.later(0.08)
    assert _step(house, entry, settings)
    assert queue_s() == pytest.approx((0.02 + 0.02 + 0.08) / 3)
    assert house.registry.account.queue_ns == pytest.approx(0.12e9, rel=1e-6)


def test_a_session_that_nobody_holds_back_queues_from_its_last_step_on() -> None:
    house = House(max_lead=60)
    entry, stream = house.open()
    house.arrange()
    house.later(0.3)
    drafts = Proposal(base_position=entry.session.length, tokens=(TokenId(9),), parents=(0,))
    house.registry.deliver(entry, stream, drafts)
    assert _step(house, entry, SchedulerSettings())
    load = house.registry.account.load.load(now_s=house.clock.now_s())
    assert load.queue_s == pytest.approx(0.3)


@pytest.mark.parametrize("race", [True, False])
def test_an_edge_that_says_nothing_for_long_is_not_waited_for(race: bool) -> None:
    house = House(max_lead=60, silence_s=1.0)
    settings = SchedulerSettings(race=race, patience_s=0.4)
    entry, stream = house.open(patience_ms=400, max_tokens=40)
    house.arrange()
    house.later(0.41)
    assert _step(house, entry, settings)
    house.later(0.35)
    assert not _step(house, entry, settings)
    house.later(0.25)  # more than a second since it came
    for _ in range(3):
        assert _step(house, entry, settings)
    # A word, and it is again, though there is nothing to verify.
    base = entry.session.length
    house.registry.deliver(entry, stream, Proposal(base_position=base, tokens=()))
    assert not _step(house, entry, settings)
    house.later(0.41)
    assert _step(house, entry, settings)
