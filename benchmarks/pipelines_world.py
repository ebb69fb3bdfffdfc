"""One cell of the comparison of pipelines: an edge, a verifier and a link in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from cloud.account import VerifierStatistics
from cloud.scheduler import RaceDrafting, SchedulerSettings
from paceline.client import DraftingSettings
from paceline.client.outcome import Statistics
from paceline.session.growth import Growth
from paceline.session.pipeline import PipelineName, PipelineSettings
from paceline.tokens import TokenId
from simulator.acceptance.recordings import recorded_trace
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.model import ModelSettings
from simulator.virtual.tree_draft import tree_drafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import World, WorldSettings, run

REQUESTS, TOKENS = 12, 64
STEP = StepCost(fixed_s=0.0595, per_row_s=0.0005)
FORWARD = StepCost(fixed_s=0.004, per_row_s=0.0)
"""A step of the target takes 60 ms with one row, a forward pass of the draft 4 ms with up to 8 leaves."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to draft, with its own figures."""

    label: str
    """Arms of one label compete: the best one counts."""
    drafting: DraftingSettings | None
    """None drafts nothing."""

    figures: str = ""
    """What differs among the arms of a label."""
    competes: bool = True
    """It is no ablation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Of the answers of one seed."""

    tokens_per_s: float
    payload_bytes: float
    """Of proposals, per committed token."""
    drafted: float
    """Nodes sent per committed token."""
    rows: float
    """Rows of the target per committed token, the first row of the prompt included."""
    steps: float
    """Of the target per committed token."""
    drafting: float
    """Share of the time in which the drafter worked."""
    prepared: float
    """Part of the answers after which the next proposal was there at once."""


def arms(*, rounds: Sequence[int], ahead: Sequence[int]) -> tuple[Arm, ...]:
    """Return everything that is compared.

    Args:
        rounds: lengths that a cache of outcomes may choose from; stop-and-wait, which takes no time to try, has all.
        ahead: lengths for what runs ahead.
    """
    found = [Arm(label="cloud only", drafting=None)]
    found += [_arm("stop-and-wait", length) for length in (2, 4, 8, 12)]
    whole = "whole segments"
    found += [_arm("run-ahead", length) for length in ahead]
    found += [_arm("run-ahead", length, note=whole, pre_verify=False) for length in ahead]
    found += [_arm("run-ahead, race", length, patience_s=0.0) for length in ahead]
    found += [_arm("outcome-cache", length) for length in rounds]
    found += [_arm("outcome-cache-ahead", length) for length in ahead]
    found += [_arm("outcome-cache-ahead, race", length, patience_s=0.0) for length in ahead]
    found += [
        Arm(
            label="tree-stream",
            figures=f"floor {floor:g}",
            drafting=DraftingSettings(draft_length=32, window=256, growth=Growth(floor=floor)),
        )
        for floor in (0.01, 0.02, 0.05)
    ]
    return tuple(found)


def ablations() -> tuple[Arm, ...]:
    """Return what shows the worth of the parts of the published pipelines."""
    of_cache: dict[str, dict[str, Any]] = {
        "geometric, 24 answers": {},
        "even, 24 answers": {"uniform": True},
        "geometric, 8 answers": {"fan_out": 8},
        "even, 8 answers": {"fan_out": 8, "uniform": True},
        "geometric, 4 answers": {"fan_out": 4},
        "even, 4 answers": {"fan_out": 4, "uniform": True},
    }
    found = [_arm("stop-and-wait", length, note="for comparison") for length in (4, 7)]
    found += [_arm("outcome-cache", 7, note=note, **told) for note, told in of_cache.items()]
    found += [
        _arm("run-ahead", 8, note="two segments of 4"),
        _arm("run-ahead", 8, note="two segments of 4, no pre-verify", pre_verify=False),
        _arm("outcome-cache-ahead", 8, note="two segments of 4"),
    ]
    return tuple(replace(arm, competes=False) for arm in found)


def _arm(label: str, length: int, *, note: str = "", **figures: Any) -> Arm:
    name = PipelineName(label.partition(",")[0])
    return Arm(
        label=label,
        figures=f"length {length}" + (f", {note}" if note else ""),
        drafting=DraftingSettings(
            draft_length=length,
            window=128,
            tokens_per_message=1,
            pipeline=PipelineSettings(name=name, **figures),
        ),
    )


def measure(arm: Arm, *, trace: str, rtt_ms: int, seed: int) -> Measured:
    """Run one cell. Arms with the same seed answer the same requests over the same link.

    Raises:
        AssertionError: an answer is not the target's own.
    """
    drafter = tree_drafter(recorded_trace(trace), cost=FORWARD)
    requests = tuple(
        Request(
            prompt=(TokenId(5), TokenId(6 + number)), max_tokens=TOKENS, seed=1000 * seed + number
        )
        for number in range(REQUESTS)
    )
    edge = (
        EdgeSettings(requests=requests, draft=None)
        if arm.drafting is None
        else EdgeSettings(requests=requests, make_drafter=drafter, drafting=arm.drafting)
    )
    settings = WorldSettings(
        edges=(edge,),
        verifiers=(
            VerifierSettings(
                model=ModelSettings(cost=STEP),
                # The text of a toy target never repeats itself: there is nothing that the verifier could guess.
                scheduler=SchedulerSettings(race_drafts=RaceDrafting.OFF),
            ),
        ),
        network=parse_network(f"rtt={rtt_ms}ms"),
        seed=seed,
    )
    told: list[VerifierStatistics] = []

    async def look(world: World) -> None:
        await world.edges[0].is_done.wait()
        core = world.verifiers[0].core
        assert core is not None
        told.append(core.statistics)

    result = run(settings, script=look)
    assert not result.bugs, result.bugs
    answers = result.asked[0]
    for one in answers:
        assert tuple(one.pieces) == settings.target.run(one.request.prompt, TOKENS)
    return _summed([one.statistics for one in answers if one.statistics is not None], told[0])


def _summed(answers: list[Statistics], verifier: VerifierStatistics) -> Measured:
    committed = sum(one.committed for one in answers)
    seconds = sum(one.duration_s for one in answers)
    answered = sum(one.answers for one in answers)
    return Measured(
        tokens_per_s=committed / seconds,
        payload_bytes=sum(one.proposal_bytes for one in answers) / committed,
        drafted=sum(one.drafted for one in answers) / committed,
        rows=verifier.steps.num_rows / committed,
        steps=sum(one.steps for one in answers) / committed,
        drafting=sum(one.drafting_s for one in answers) / seconds,
        prepared=sum(one.prepared for one in answers) / max(1, answered),
    )
