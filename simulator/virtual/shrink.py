"""Finds a smaller schedule that still goes wrong: fewer faults, simpler ones, a simpler world."""

from collections.abc import Callable, Iterator
from dataclasses import replace

from edge.steering import LengthPolicy
from paceline.client.settings import ConnectionSettings, DraftingSettings
from paceline.session.growth import Growth
from simulator.network import NetworkSettings
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings
from simulator.virtual.faults import CONTROL, Schedule
from simulator.virtual.ranked_draft import RankedDraft
from simulator.virtual.verifier import VerifierSettings

MAX_TRIALS = 400
SHORT_S = 1e-3


def shrunk(
    schedule: Schedule,
    *,
    fails: Callable[[Schedule], bool],
    max_trials: int = MAX_TRIALS,
) -> Schedule:
    """Return a schedule that fails as well and has nothing that could be left out by itself.

    Args:
        schedule: it fails.
        fails: tries one.
        max_trials: how often that may be asked.
    """
    num_trials, goes_on = 0, True
    while goes_on:
        goes_on, place = False, 0
        while place < len(smaller := [one for one in _smaller(schedule) if one != schedule]):
            if num_trials == max_trials:
                return schedule
            num_trials += 1
            if fails(smaller[place]):
                # What stands at this place now may do as well.
                schedule, goes_on = smaller[place], True
            else:
                place += 1
    return schedule


def _smaller(schedule: Schedule) -> Iterator[Schedule]:
    """Yield schedules that are a little simpler, the greatest steps first."""
    for index in reversed(range(len(schedule.faults))):
        yield schedule.without(index)
    yield from _simpler_worlds(schedule)
    for index, fault in enumerate(schedule.faults):
        for lasts_s in (0.0, fault.lasts_s / 2.0):
            if fault.lasts_s > SHORT_S:
                shorter = replace(fault, lasts_s=lasts_s)
                faults = (*schedule.faults[:index], shorter, *schedule.faults[index + 1 :])
                yield replace(schedule, faults=faults)


def _simpler_worlds(schedule: Schedule) -> Iterator[Schedule]:
    world = schedule.world
    if len(world.edges) > 1 and all(fault.edge == 0 for fault in schedule.faults):
        yield replace(schedule, world=replace(world, edges=world.edges[:1]))
    usual = VerifierSettings()
    if not any(fault.kind in CONTROL for fault in schedule.faults):
        yield replace(schedule, world=replace(world, orchestrator=None))
    changes = [
        {"network": NetworkSettings(name="drawn")},
        {"verifiers": tuple(replace(one, sessions=usual.sessions) for one in world.verifiers)},
        {"verifiers": tuple(replace(one, scheduler=usual.scheduler) for one in world.verifiers)},
        {"edges": tuple(replace(one, draft=None, make_drafter=None) for one in world.edges)},
        {"edges": tuple(_with_chain(one) for one in world.edges)},
        {"edges": tuple(_with_usual_tree(one) for one in world.edges)},
        {"edges": tuple(replace(one, drafting=DraftingSettings()) for one in world.edges)},
        {
            "edges": tuple(
                replace(one, connection=ConnectionSettings(retry=one.connection.retry))
                for one in world.edges
            )
        },
    ]
    for change in changes:
        simpler = replace(world, **change)  # type: ignore[arg-type]
        if simpler != world:
            yield replace(schedule, world=simpler)


def _with_chain(edge: EdgeSettings) -> EdgeSettings:
    """Return the edge with a chain in place of its tree, if it has one."""
    if edge.make_drafter is None:
        return edge
    is_steered = edge.length_policy is not LengthPolicy.FIXED
    return replace(
        edge,
        draft=DraftSettings(),
        make_drafter=None,
        drafting=replace(edge.drafting, growth=None),
        length_policy=LengthPolicy.CLOSED_FORM if is_steered else LengthPolicy.FIXED,
    )


def _with_usual_tree(edge: EdgeSettings) -> EdgeSettings:
    if edge.drafting.growth is None:
        return edge
    return replace(
        edge, make_drafter=RankedDraft(), drafting=replace(edge.drafting, growth=Growth())
    )
