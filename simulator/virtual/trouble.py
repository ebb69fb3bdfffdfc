"""Lets the faults of a schedule happen in a world, one task for each, then heals everything."""

import asyncio
from contextlib import suppress
from dataclasses import replace

from simulator.network import NetworkSettings
from simulator.virtual.channel import Path
from simulator.virtual.coverage import Coverage
from simulator.virtual.faults import PATIENCE_S, Fault, FaultKind, Member, Schedule
from simulator.virtual.plane import KEEPALIVE_S, ORCHESTRATOR, Plane
from simulator.virtual.poison import poisoned
from simulator.virtual.wire import Mangling
from simulator.virtual.world import World

JUMP_S = 40.0
"""By so much for each unit of rate beyond 1 a skewed clock jumps ahead at first."""


async def make_trouble(world: World, schedule: Schedule, *, coverage: Coverage | None) -> None:
    """Let everything happen, then heal.

    Args:
        world: runs already.
        schedule: what happens.
        coverage: is told which fault met which state.
    """
    async with asyncio.TaskGroup() as group:
        for fault in schedule.faults:
            group.create_task(_happens(world, fault, coverage))
    world.heal()


async def _happens(world: World, fault: Fault, coverage: Coverage | None) -> None:
    if fault.after_tokens:
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE_S):
                await world.edges[fault.edge].has(fault.after_tokens)
    await asyncio.sleep(fault.at_s)
    if coverage is not None:
        coverage.note(fault.kind, world.edges[fault.edge], world.verifiers[fault.verifier])
    if fault.kind is FaultKind.DRAIN:
        await world.verifiers[fault.verifier].drain(within_s=fault.lasts_s)
    else:
        _begin(world, fault)
        await asyncio.sleep(fault.lasts_s)
    _end(world, fault)


def _begin(world: World, fault: Fault) -> None:
    path = world.path(fault.edge, fault.verifier)
    match fault.kind:
        case FaultKind.CUT:
            path.cut()
        case FaultKind.BLACK_HOLE:
            keepalive_s = world.edges[fault.edge].settings.connection.keepalive_s
            path.black_hole(keepalive_s=keepalive_s)
        case FaultKind.HALF_OPEN:
            path.lose_edge()
        case FaultKind.DELAY:
            path.change(_slower(world.settings.network, fault.amount))
        case FaultKind.DUPLICATE:
            path.mangle(Mangling.DUPLICATE, is_up=fault.is_up)
        case FaultKind.TRUNCATE:
            path.mangle(Mangling.TRUNCATE, is_up=fault.is_up)
        case _:
            _begin_at_machine(world, fault)


def _begin_at_machine(world: World, fault: Fault) -> None:
    edge, verifier = world.edges[fault.edge], world.verifiers[fault.verifier]
    match fault.kind:
        case FaultKind.KILL_VERIFIER:
            verifier.kill()
        case FaultKind.SLOW_VERIFIER:
            verifier.occupation.slowdown = fault.amount
        case FaultKind.KILL_EDGE:
            edge.kill()
        case FaultKind.SKEW_VERIFIER:
            verifier.clock.skew(rate=fault.amount, jump_s=_jump_s(fault))
        case FaultKind.SKEW_EDGE:
            edge.clock.skew(rate=fault.amount, jump_s=_jump_s(fault))
        case _:
            _begin_at_plane(world, fault)


def _begin_at_plane(world: World, fault: Fault) -> None:
    plane = world.plane
    if plane is None:
        return  # a smaller world is tried
    match fault.kind:
        case FaultKind.KILL_BROKER:
            plane.broker.kill()
        case FaultKind.KILL_ORCHESTRATOR:
            plane.orchestrator.kill()
        case FaultKind.CUT_BROKER:
            _way(plane, fault).cut()
        case FaultKind.HOLE_BROKER:
            _way(plane, fault).black_hole(keepalive_s=KEEPALIVE_S)
        case FaultKind.BAD_POLICY:
            edge = world.edges[fault.edge]
            policy = edge.pilot.steering.policy if edge.pilot else None
            plane.broker.publish(
                poisoned(
                    fault.poison,
                    edge_id=edge.name,
                    revision=policy.revision if policy else 0,
                    verifier=str(world.verifiers[fault.verifier].address),
                )
            )
        case _:
            raise AssertionError(fault)


def _way(plane: Plane, fault: Fault) -> Path:
    name = {
        Member.EDGE: f"edge{fault.edge}",
        Member.VERIFIER: f"verifier{fault.verifier}",
        Member.ORCHESTRATOR: ORCHESTRATOR,
    }[fault.member]
    return plane.stations[name].path


def _end(world: World, fault: Fault) -> None:
    edge, verifier = world.edges[fault.edge], world.verifiers[fault.verifier]
    match fault.kind:
        case FaultKind.CUT | FaultKind.BLACK_HOLE | FaultKind.DELAY:
            world.path(fault.edge, fault.verifier).heal()
        case FaultKind.KILL_VERIFIER | FaultKind.DRAIN:
            verifier.start(world.group)
        case FaultKind.SLOW_VERIFIER:
            verifier.occupation.slowdown = 1.0
        case FaultKind.KILL_EDGE:
            edge.start(world.group)
        case FaultKind.SKEW_VERIFIER:
            verifier.clock.skew(rate=1.0)
        case FaultKind.SKEW_EDGE:
            edge.clock.skew(rate=1.0)
        case _:
            if world.plane is not None:
                _end_at_plane(world.plane, fault, world.group)


def _end_at_plane(plane: Plane, fault: Fault, group: asyncio.TaskGroup) -> None:
    match fault.kind:
        case FaultKind.CUT_BROKER | FaultKind.HOLE_BROKER:
            _way(plane, fault).heal()
        case FaultKind.KILL_BROKER:
            plane.broker.start(group)
        case FaultKind.KILL_ORCHESTRATOR:
            plane.orchestrator.start(group)
        case _:
            pass  # happens once


def _jump_s(fault: Fault) -> float:
    return max(0.0, fault.amount - 1.0) * JUMP_S


def _slower(network: NetworkSettings, more_s: float) -> NetworkSettings:
    return replace(
        network,
        up=replace(network.up, delay_s=network.up.delay_s + more_s),
        down=replace(network.down, delay_s=network.down.delay_s + more_s),
        name="slower",
    )
