"""Schedules in whole worlds: the text is the same under each, costs and prices are found while serving, rows pay."""

import pytest

from cloud.account import VerifierStatistics
from cloud.scheduler import RaceDrafting, Schedule, SchedulerSettings
from paceline.client import DraftingSettings
from paceline.session.growth import Growth
from paceline.tokens import TokenId
from simulator.acceptance.recordings import recorded_trace
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.model import ModelSettings
from simulator.virtual.tree_draft import tree_drafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import Result, World, WorldSettings, run

MUCH = StepCost(fixed_s=0.002, per_row_s=0.002)
"""Rows are what a step costs."""


def served(
    schedule: Schedule, *, edges: int, cost: StepCost, tokens: int = 24
) -> tuple[Result, VerifierStatistics, WorldSettings]:
    """So many edges with good drafts, all at once."""
    maker = tree_drafter(recorded_trace("low-bit-4-64"))
    asked = [
        Request(prompt=(TokenId(5), TokenId(6 + number)), max_tokens=tokens, seed=number)
        for number in range(edges)
    ]
    drafting = DraftingSettings(draft_length=16, window=128, growth=Growth())
    scheduler = SchedulerSettings(schedule=schedule, race_drafts=RaceDrafting.OFF)
    settings = WorldSettings(
        edges=tuple(
            EdgeSettings(requests=(one,), make_drafter=maker, drafting=drafting) for one in asked
        ),
        verifiers=(VerifierSettings(model=ModelSettings(cost=cost), scheduler=scheduler),),
        network=parse_network("rtt=20ms"),
        seed=3,
    )
    told: list[VerifierStatistics] = []

    async def script(world: World) -> None:
        world.group.create_task(look(world))

    async def look(world: World) -> None:
        for edge in world.edges:
            await edge.is_done.wait()
        assert world.verifiers[0].core is not None
        told.append(world.verifiers[0].core.statistics)

    return run(settings, script=script), told[0], settings


@pytest.mark.slow
@pytest.mark.parametrize("schedule", Schedule)
def test_every_schedule_gives_the_same_text_and_learns_what_steps_take(schedule: Schedule) -> None:
    cost = StepCost(fixed_s=0.02, per_row_s=0.0005)
    result, now, settings = served(schedule, edges=4, cost=cost)
    for (asked,) in result.asked:
        assert tuple(asked.pieces) == settings.target.run(asked.request.prompt, 24)
    assert now.drafts_chosen > 0
    assert now.costs is not None
    assert now.costs.fixed_s == pytest.approx(cost.fixed_s, rel=0.05)
    assert now.costs.row_s(20) == pytest.approx(cost.per_row_s, rel=0.25)
    assert 0.0 < now.load.row_price_s <= 3 * 1.25 * cost.per_row_s


@pytest.mark.slow
def test_drafts_are_left_out_where_they_would_slow_everybody_down() -> None:
    even, goodput = (
        served(schedule, edges=5, cost=MUCH, tokens=12)[1]
        for schedule in (Schedule.EVEN, Schedule.GOODPUT)
    )
    assert goodput.drafts_left_out > goodput.drafts_chosen
    assert goodput.steps.total_ns < 0.8 * even.steps.total_ns


@pytest.mark.slow
def test_an_edge_hears_what_a_row_costs_the_others_and_nothing_while_it_is_alone() -> None:
    for edges in (1, 3):
        *_, now, _ = served(Schedule.GOODPUT, edges=edges, cost=MUCH, tokens=12)
        assert (now.load.row_price_s > 0.0) is (edges > 1)
