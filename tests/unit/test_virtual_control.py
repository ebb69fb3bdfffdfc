"""The control plane in virtual time: policies reach edges, drafts follow the link, and what breaks comes back."""

import asyncio
import re
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edge.steering import LengthPolicy
from paceline.tokens import TokenId
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings, Request, SimulatedEdge
from simulator.virtual.events import EventLog
from simulator.virtual.model import ModelSettings
from simulator.virtual.orchestrator import OrchestratorSettings
from simulator.virtual.plane import FOLLOW_S
from simulator.virtual.poison import Poison, poisoned
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import Result, Script, World, WorldSettings, run

NEAR, FAR = parse_network("rtt=20ms"), parse_network("rtt=200ms")
SETTLE_S = 8.0
WITHIN_PROPOSALS = 50


def _settings(
    *,
    tokens: int = 64,
    length_policy: LengthPolicy = LengthPolicy.CLOSED_FORM,
    **orchestrator: object,
) -> WorldSettings:
    return WorldSettings(
        edges=(
            EdgeSettings(
                requests=(Request(prompt=(TokenId(3),), max_tokens=tokens),),
                draft=DraftSettings(acceptance=1.0, cost=StepCost(fixed_s=0.045, per_row_s=0.0)),
                length_policy=length_policy,
            ),
        ),
        verifiers=(_slow(), _slow()),
        network=NEAR,
        orchestrator=OrchestratorSettings(telemetry_interval_s=1.0, **orchestrator),  # type: ignore[arg-type]
    )


def _slow() -> VerifierSettings:
    return VerifierSettings(model=ModelSettings(cost=StepCost(fixed_s=0.12, per_row_s=0.001)))


def _is_right(settings: WorldSettings, result: Result) -> bool:
    return all(
        tuple(one.pieces) == settings.target.run(one.request.prompt, one.request.max_tokens)
        for asked in result.asked
        for one in asked
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What an edge did at one moment."""

    at_s: float
    proposals: int
    length: int
    revision: int


async def _sampled(edge: SimulatedEdge, *, for_s: float) -> list[Sample]:
    loop = asyncio.get_running_loop()
    samples, until_s = [], loop.time() + for_s
    while loop.time() < until_s:
        assert edge.pilot is not None
        client, steering = edge.pilot.client, edge.pilot.steering
        samples.append(
            Sample(
                at_s=loop.time(),
                proposals=client.counters().proposals,
                length=client.drafting.draft_length,
                revision=steering.revision,
            )
        )
        await asyncio.sleep(0.02)
    return samples


def _step_up_and_down() -> tuple[Result, list[list[Sample]]]:
    phases: list[list[Sample]] = []

    async def script(world: World) -> None:
        await asyncio.sleep(0.1)
        assert world.plane is not None
        for network in (NEAR, FAR, NEAR):
            world.path(0, 0).network.settings = network
            world.plane.stations["edge0"].path.network.settings = network
            phases.append(await _sampled(world.edges[0], for_s=SETTLE_S))

    settings = _settings(tokens=600)
    settings = replace(settings, verifiers=settings.verifiers[:1])
    result = run(settings, script=script)
    assert _is_right(settings, result)
    return result, phases


@pytest.mark.slow
def test_the_draft_length_follows_a_link_that_steps() -> None:
    result, phases = _step_up_and_down()
    near, far, near_again = phases
    assert near_again[-1].length == near[-1].length < far[-1].length
    for phase in (far, near_again):
        followed = next(one for one in phase if one.length == phase[-1].length)
        assert followed.proposals - phase[0].proposals <= WITHIN_PROPOSALS
        assert followed.revision > phase[0].revision  # the orchestrator has decided it
        assert phase[-1].proposals - followed.proposals > 10  # and it stays
    assert _step_up_and_down() == (result, phases)


def test_an_edge_is_moved_away_from_a_verifier_that_drains() -> None:
    settings = _settings()
    first = settings.edges[0].requests[0]
    later = replace(first, at_s=30.0, seed=1)
    settings = replace(settings, edges=(replace(settings.edges[0], requests=(first, later)),))
    seen: list[tuple[str, str]] = []

    def order(world: World) -> tuple[str, str]:
        pilot = world.edges[0].pilot
        assert pilot is not None
        assert pilot.steering.policy is not None
        return str(pilot.client.verifiers[0]), pilot.steering.policy.verifiers[0]

    async def script(world: World) -> None:
        await asyncio.sleep(20.0)
        seen.append(order(world))
        core = next(one.core for one in world.verifiers if str(one.address) == seen[0][0])
        assert core is not None
        core.registry.drain(1e9)
        await asyncio.sleep(5.0)
        seen.append(order(world))

    log = EventLog()
    result = run(settings, script=script, log=log)
    assert _is_right(settings, result)
    (used, told), (used_then, told_then) = seen
    assert used == told
    assert used != used_then == told_then
    opened = [
        event.place
        for event in log
        if event.kind == "arrived" and dict(event.fields).get("message") == "open"
    ]
    address = {"verifier0": "10.0.0.1:50051", "verifier1": "10.0.0.2:50051"}
    assert len(opened) == 2  # nobody has refused it
    assert address[opened[-1]] == told_then


@pytest.mark.parametrize("length_policy", LengthPolicy)
@pytest.mark.parametrize("victims", ["broker", "orchestrator", "broker orchestrator"])
def test_an_edge_follows_again_when_what_was_killed_is_back(
    length_policy: LengthPolicy, victims: str
) -> None:
    async def script(world: World) -> None:
        plane = world.plane
        assert plane is not None
        await asyncio.sleep(4.0)
        for victim in victims.split():
            getattr(plane, victim).kill()
        await asyncio.sleep(3.0)
        assert world.edges[0].pilot is not None
        assert not world.edges[0].pilot.steering.is_led
        world.heal()

    settings = _settings(length_policy=length_policy)
    result = run(settings, script=script)
    assert _is_right(settings, result)
    assert not result.astray
    assert result.followed_s is not None
    assert result.followed_s - result.healed_s < FOLLOW_S / 2.0


@pytest.mark.parametrize("poison", Poison)
def test_a_bad_policy_changes_no_text_and_is_mended(poison: Poison) -> None:
    async def script(world: World) -> None:
        plane, edge = world.plane, world.edges[0]
        assert plane is not None
        await asyncio.sleep(3.0)
        assert edge.pilot is not None
        assert edge.pilot.steering.policy is not None
        before = edge.pilot.steering.policy
        letter = poisoned(
            poison,
            edge_id=edge.name,
            revision=before.revision,
            verifier=str(world.verifiers[1].address),
        )
        plane.broker.publish(letter)
        await asyncio.sleep(0.05)
        arrived = edge.pilot.steering.policy != before
        is_readable = poison not in {Poison.GARBAGE, Poison.TRUNCATED, Poison.LARGE, Poison.FAR}
        assert arrived == (is_readable and poison is not Poison.OLD)
        assert edge.plane is not None
        assert edge.plane.counters().malformed == (not is_readable)

    settings = _settings()
    result = run(settings, script=script)
    assert _is_right(settings, result)
    assert not result.astray


def test_an_order_outlasts_the_orchestrator_that_took_it() -> None:
    lengths: list[int] = []

    async def script(world: World) -> None:
        assert world.plane is not None
        orchestrator = world.plane.orchestrator
        await asyncio.sleep(3.0)
        assert orchestrator.service is not None
        await orchestrator.service.pin("edge0", draft_length=13)
        await asyncio.sleep(1.0)
        assert world.edges[0].pilot is not None
        lengths.append(world.edges[0].pilot.client.drafting.draft_length)
        orchestrator.kill()
        world.plane.broker.kill()
        await asyncio.sleep(1.0)
        world.heal()
        await asyncio.sleep(30.0)
        lengths.append(world.edges[0].pilot.client.drafting.draft_length)

    settings = _settings()
    assert _is_right(settings, run(settings, script=script))
    assert lengths == [13, 13]


def test_the_example_of_the_documentation_runs(capsys: pytest.CaptureFixture[str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "simulator.md").read_text(encoding="utf-8")
    first, *_, more = re.findall(r"```py(?:thon)?\n(.*?)```", page, re.DOTALL)
    exec(first + more, {})
    assert capsys.readouterr().out.endswith(" ()\n")


def _log(settings: WorldSettings, script: Script | None = None) -> list[str]:
    log = EventLog()
    run(settings, script=script, log=log)
    return log.lines()


def test_the_same_world_writes_the_same_log() -> None:
    async def script(world: World) -> None:
        assert world.plane is not None
        await asyncio.sleep(2.0)
        world.plane.broker.kill()
        await asyncio.sleep(0.5)
        world.heal()

    settings = _settings(is_apart=True)
    lines = _log(settings, script)
    assert lines == _log(settings, script)
    assert lines != _log(replace(settings, seed=2), script)
    told = [line for line in lines if "edges/edge0/policy" in line]
    assert told
