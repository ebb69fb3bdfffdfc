"""Lets the faults of a schedule happen in a world, one task for each, then heals everything."""

import asyncio
from contextlib import suppress
from dataclasses import replace

from simulator.network import NetworkSettings
from simulator.virtual.coverage import Coverage
from simulator.virtual.faults import PATIENCE_S, Fault, FaultKind, Schedule
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
    _heal(world)


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
            raise AssertionError(fault)


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
        case FaultKind.HALF_OPEN | FaultKind.DUPLICATE | FaultKind.TRUNCATE:
            pass


def _heal(world: World) -> None:
    for path in world.paths:
        path.heal()
        path.up.mangling.clear()
        path.down.mangling.clear()
    for verifier in world.verifiers:
        verifier.start(world.group)
    for edge in world.edges:
        edge.start(world.group)


def _jump_s(fault: Fault) -> float:
    return max(0.0, fault.amount - 1.0) * JUMP_S


def _slower(network: NetworkSettings, more_s: float) -> NetworkSettings:
    return replace(
        network,
        up=replace(network.up, delay_s=network.up.delay_s + more_s),
        down=replace(network.down, delay_s=network.down.delay_s + more_s),
        name="slower",
    )
