"""Measured costs and recorded guesses in a simulated world."""

from pathlib import Path

import pytest

from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.acceptance.recordings import FOLDER, recorded_costs, recorded_trace
from simulator.cost import Work
from simulator.notation import parse_network
from simulator.virtual.costs import with_costs
from simulator.virtual.draft import DraftSettings, RealDraftSettings, SimulatedDrafter
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.machine import Occupation
from simulator.virtual.target import ToyTarget
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings, run

NAME = "xeon-1-core"
FILE = FOLDER / f"costs-{NAME}.toml"
PROMPT = tuple(map(TokenId, range(1, 30)))


def _settings(*drafts: DraftSettings | RealDraftSettings | None) -> WorldSettings:
    request = Request(prompt=PROMPT, max_tokens=30)
    return WorldSettings(
        edges=tuple(EdgeSettings(requests=(request,), draft=draft) for draft in drafts),
        verifiers=(VerifierSettings(),) * 2,
        network=parse_network("rtt=20ms"),
    )


@pytest.mark.parametrize("costs", [NAME, FILE, recorded_costs(NAME)], ids=["name", "file", "value"])
def test_a_world_takes_the_costs_of_a_machine(costs: object) -> None:
    measured = recorded_costs(NAME)
    settings = _settings(DraftSettings(), RealDraftSettings(model="lookup"), None)
    world = with_costs(settings, costs, draft="low-bit:4/64")  # type: ignore[arg-type]
    for verifier in world.verifiers:
        assert verifier.model.cost == measured.target.cost
        assert verifier.model.spread == measured.target.spread
    for edge in world.edges[:2]:
        assert edge.draft is not None
        assert edge.draft.cost == measured.draft("low-bit:4/64").cost
        assert edge.draft.spread == measured.draft("low-bit:4/64").spread
    assert world.edges[2].draft is None
    assert with_costs(settings, measured).edges == settings.edges


def test_a_step_takes_what_was_measured() -> None:
    settings = with_costs(_settings(None), NAME)
    log = EventLog()
    run(settings, log=log)
    steps = [dict(event.fields) for event in log if event.kind == "step"]
    assert len(steps) == 30
    target = recorded_costs(NAME).target
    for number, step in enumerate(steps[1:], start=1):
        usual_s = target.cost.seconds(Work().with_sequence(num_rows=1, context=28 + number + 1))
        took_ns = step["took_ns"]
        assert isinstance(took_ns, int)
        ratio = took_ns / 1e9 / usual_s
        assert target.spread.quantiles[0] - 1e-6 <= ratio <= target.spread.quantiles[-1] + 1e-6


def test_what_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match="cannot read"):
        with_costs(_settings(None), Path("/nowhere.toml"))
    with pytest.raises(ConfigError, match="xeon-1-core"):
        with_costs(_settings(None), "abacus")
    with pytest.raises(ConfigError, match="low-bit:4/64"):
        with_costs(_settings(DraftSettings()), NAME, draft="oracle")


@pytest.mark.parametrize("seed", range(4))
def test_a_recorded_lookup_goes_as_far_as_it_would_have(seed: int) -> None:
    settings = DraftSettings(trace=recorded_trace("lookup"), category="extraction")
    sampling = SamplingSettings(seed=seed)
    acceptance = settings.guesses(sampling)
    target = ToyTarget()
    drafter = SimulatedDrafter(target, settings=settings, occupation=Occupation())
    draft = drafter.open(prompt_length=len(PROMPT), max_tokens=200, sampling=sampling)
    output = target.run(PROMPT, 40)
    reaches = [acceptance.at(position).reach for position in range(40)]
    for position, reach in enumerate(reaches):
        guesses = draft.extend((*PROMPT, *output[:position]), 4)
        assert len(guesses) <= min(4, reach)
        if reach > 1:
            # On top of a guess of its own it goes on to the same end, not by a whole reach more.
            more = draft.extend((*PROMPT, *output[:position], guesses[0]), 16, num_guessed=1)
            assert len(more) <= reach - 1
    assert min(reaches) == 0
    assert max(reaches) > 1
