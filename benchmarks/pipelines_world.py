"""One cell of the comparison of pipelines: an edge, a verifier and a link in virtual time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from distance_drafts import trace_of
from tree_stream_world import DRAFTS, FORWARD, REQUESTS, STEP, TOKENS, TREE, VOCABULARY

from cloud.account import VerifierStatistics
from cloud.scheduler import RaceDrafting, SchedulerSettings
from edge.steering import LengthPolicy
from paceline.client import DraftingSettings
from paceline.client.outcome import Statistics
from paceline.session.growth import Growth
from paceline.session.pipeline import FanOut, PipelineName, PipelineSettings
from paceline.tokens import TokenId
from simulator.notation import parse_network
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.model import ModelSettings
from simulator.virtual.target import ToyTarget
from simulator.virtual.tree_draft import tree_drafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import World, WorldSettings, run

STREAM = "tree-stream"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to draft, with its own figures."""

    label: str
    """Arms of one label compete: the best one counts."""
    drafting: DraftingSettings | None
    """None drafts nothing."""

    figures: str = ""
    """What differs among the arms of a label."""
    policy: LengthPolicy = LengthPolicy.FIXED
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


def arms(*, cached: Sequence[int]) -> tuple[Arm, ...]:
    """Return everything that is compared.

    Args:
        cached: lengths that a cache of outcomes may choose from.
    """
    found = [Arm(label="cloud only", drafting=None)]
    found += [_arm("stop-and-wait", length) for length in (2, 4, 8, 12)]
    found += [_arm("run-ahead", length, note="pre-verify") for length in (24,)]
    found += [_arm("run-ahead", length, pre_verify=False) for length in (16, 24)]
    found += [_arm("run-ahead, race", length, patience_s=0.0) for length in (16, 24)]
    found += [_arm("outcome-cache", length) for length in cached]
    likeliest: dict[str, Any] = {"note": "likeliest answers", "fan_by": FanOut.CHANCE}
    found += [_arm("outcome-cache", length, **likeliest) for length in cached]
    found += [_arm("outcome-cache-ahead", 24, pre_verify=False)]
    found += [_arm("outcome-cache-ahead", 24, pre_verify=False, **likeliest)]
    found += [_arm("outcome-cache-ahead, race", 24, patience_s=0.0)]
    found += [_arm("outcome-cache-ahead, race", 24, patience_s=0.0, **likeliest)]
    found.append(Arm(label=STREAM, drafting=TREE, policy=LengthPolicy.MARGINAL))
    return tuple(found)


def ablations() -> tuple[Arm, ...]:
    """Return what shows the worth of the parts of the published pipelines."""
    of_cache: dict[str, dict[str, Any]] = {
        "geometric, 24 answers": {},
        "even, 24 answers": {"fan_by": FanOut.EVEN},
        "likeliest 24 answers": {"fan_by": FanOut.CHANCE},
        "likeliest 8 answers": {"fan_out": 8, "fan_by": FanOut.CHANCE},
        "geometric, 8 answers": {"fan_out": 8},
        "even, 8 answers": {"fan_out": 8, "fan_by": FanOut.EVEN},
    }
    found = [_arm("stop-and-wait", 7, note="for comparison")]
    found += [_arm("outcome-cache", 7, note=note, **told) for note, told in of_cache.items()]
    found += [
        _arm("run-ahead", 8, note="segments of 4"),
        _arm("run-ahead", 8, note="segments of 4, no pre-verify", pre_verify=False),
        *(
            Arm(
                label=STREAM,
                figures=f"floor {floor:g}, nothing measured",
                drafting=replace(TREE, growth=Growth(floor=floor)),
            )
            for floor in (0.01, 0.02)
        ),
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


def measure(arm: Arm, *, draft: str, rtt_ms: int, seed: int) -> Measured:
    """Run one cell. Arms with the same seed answer the same requests over the same link.

    Raises:
        AssertionError: an answer is not the target's own.
    """
    pair = next(one for one in DRAFTS if one.name == draft)
    drafter = tree_drafter(trace_of(pair, temperature=0.0), cost=FORWARD)
    requests = tuple(
        Request(
            prompt=(TokenId(5), TokenId(6 + number)), max_tokens=TOKENS, seed=1000 * seed + number
        )
        for number in range(REQUESTS)
    )
    edge = (
        EdgeSettings(requests=requests, draft=None)
        if arm.drafting is None
        else EdgeSettings(
            requests=requests,
            make_drafter=drafter,
            drafting=arm.drafting,
            length_policy=arm.policy,
        )
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
        target=ToyTarget(vocabulary_size=VOCABULARY),
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
