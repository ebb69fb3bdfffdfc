"""One cell of the benchmark of the tree stream: an edge, a verifier and a link in virtual time, and what became of every guess."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

from distance_cells import Draft
from distance_drafts import trace_of

from cloud.account import VerifierStatistics
from cloud.scheduler import RaceDrafting, Schedule, SchedulerSettings
from edge.steering import LengthPolicy
from paceline.client import DraftingSettings
from paceline.client.outcome import Statistics
from paceline.control.marginal import BYTE_S
from paceline.session.growth import Growth
from paceline.session.pace import Pace
from paceline.session.pipeline import PipelineName, PipelineSettings
from paceline.tokens import TokenId
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.events import EventLog
from simulator.virtual.model import ModelSettings
from simulator.virtual.target import ToyTarget
from simulator.virtual.tree_draft import tree_drafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import World, WorldSettings, run

REQUESTS, TOKENS = 12, 64
STEP = StepCost(fixed_s=0.0595, per_row_s=0.0005)
FORWARD = StepCost(fixed_s=0.004, per_row_s=0.0)
"""A step of the target takes 60 ms with one row, a forward pass of the draft 4 ms with up to 8 leaves."""

VOCABULARY = 1024
"""Ids below it have 1.87 bytes on the wire on average, as those of text have with the tokenizer of SmolLM2 (1.80 to 1.87)."""

BOTH = ("low-bit-4-64", "smollm2-135m-draft-first")
SHIPPED = "smollm2-135m-draft"
DRAFTS = tuple(
    Draft(name=f"{share:.2f}", label=label, acceptance=share, forward_s=0.004, **told)
    for share, label, told in (
        (0.79, "recorded, 4-bit copy", {"traces": BOTH[:1]}),
        (0.60, "recorded, mixed", {"traces": BOTH, "first_share": 0.58}),
        (0.40, "recorded, mixed", {"traces": BOTH, "first_share": 0.11}),
        (0.35, "recorded, first shipped draft", {"traces": BOTH[1:]}),
        (0.45, "recorded, shipped draft", {"traces": (SHIPPED,)}),
    )
)
"""By the share of positions at which the first guess is right. What is mixed takes each position from one of two drafts."""

ROUNDS = (2, 4, 8)
"""Lengths of a chain that waits for its verdict."""

TREE = DraftingSettings(draft_length=32, window=256, growth=Growth())


@dataclass(frozen=True, slots=True, kw_only=True)
class Arm:
    """One way to draft."""

    label: str
    drafting: DraftingSettings | None = TREE
    """None drafts nothing."""
    policy: LengthPolicy = LengthPolicy.MARGINAL
    byte_s: float = BYTE_S
    schedule: Schedule = Schedule.GOODPUT
    knows_pace: bool = False
    """The fixed growth is told the link's and the verifier's true times."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Of the answers of one seed; counts are per committed token."""

    tokens_per_s: float
    payload_bytes: float
    """Of proposals with guesses."""
    uplink_bytes: float
    """Of all the edge sends in the answers, with what opens them."""
    messages: float
    guesses: float
    """Sent."""
    rows: float
    """Of the target."""
    steps: float
    accepted: float
    late: float
    """Right, but after the verifier had drawn the same."""
    stale: float
    """Contradicted when they arrived."""
    rejected: float
    """Rows of a step, or waiting there, when the text went another way."""
    unsent: float
    """Contradicted before they were sent, or never worth it."""
    covered_tokens_per_s: float
    """In steps with guesses: v."""
    uncovered: float
    """Stretches of steps without guesses: m."""
    bare_step_s: float
    """A step without guesses."""


def arm_of(label: str) -> Arm:
    """Return an arm by its label; see `ARMS`."""
    return next(arm for arm in ARMS if arm.label == label)


def _fixed(label: str, growth: Growth, **told: Any) -> Arm:
    drafting = replace(TREE, growth=growth)
    return Arm(label=label, drafting=drafting, policy=LengthPolicy.FIXED, **told)


def _fan(first: int, *, share: float = 0.79, power: float = 1.0) -> tuple[int, ...]:
    """Return Saguaro's fan-out (arXiv 2603.03251): a guess at depth k has first * share ** (k / (1 + power)) siblings."""
    return tuple(max(1, round(first * share ** (depth / (1.0 + power)))) for depth in range(12))


CLOUD = Arm(label="cloud only", drafting=None)
PACELINE = Arm(label="paceline")
ARMS = (
    CLOUD,
    PACELINE,
    *(_fixed(f"fixed floor {floor:g}", Growth(floor=floor)) for floor in (0.01, 0.02, 0.03, 0.05)),
    _fixed("fixed floor 0.02, arrival times known", Growth(floor=0.02), knows_pace=True),
    Arm(label="one guess for a position", drafting=replace(TREE, growth=Growth(width=1))),
    Arm(label="eight guesses for a position", drafting=replace(TREE, growth=Growth(width=8))),
    Arm(
        label="no race",
        drafting=replace(TREE, pipeline=PipelineSettings(patience_s=2.0)),
    ),
    Arm(label="even schedule", schedule=Schedule.EVEN),
    *(
        Arm(
            label=f"rounds of {length}",
            drafting=DraftingSettings(
                draft_length=length,
                tokens_per_message=length,
                pipeline=PipelineSettings(name=PipelineName.STOP_AND_WAIT),
            ),
            policy=LengthPolicy.FIXED,
        )
        for length in ROUNDS
    ),
    *(
        _fixed(f"geometric fan-out from {first}", Growth(width=8, floor=0.002, fan=_fan(first)))
        for first in (2, 3, 4)
    ),
    *(
        Arm(label=f"byte {price} us", byte_s=price * 1e-6)
        for price in (0, 16, 32, 64, 128, 256, 512, 1024)
    ),
)


def measure(arm: Arm, draft: Draft, *, rtt_ms: int, seed: int) -> dict[str, float]:
    """Run one cell. Arms with the same seed answer the same requests over the same link.

    Raises:
        AssertionError: an answer is not the target's own.
    """
    log = EventLog()
    settings = WorldSettings(
        edges=(_edge(arm, draft, rtt_ms=rtt_ms, seed=seed),),
        verifiers=(
            VerifierSettings(
                model=ModelSettings(cost=STEP),
                # The text of a toy target never repeats itself: there is nothing that the verifier could guess.
                scheduler=SchedulerSettings(schedule=arm.schedule, race_drafts=RaceDrafting.OFF),
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

    result = run(settings, script=look, log=log)
    assert not result.bugs, result.bugs
    answers = result.asked[0]
    for one in answers:
        assert tuple(one.pieces) == settings.target.run(one.request.prompt, TOKENS)
    return asdict(_summed([one.statistics for one in answers if one.statistics], told[0], log))


def _edge(arm: Arm, draft: Draft, *, rtt_ms: int, seed: int) -> EdgeSettings:
    requests = tuple(
        Request(
            prompt=(TokenId(5), TokenId(6 + number)), max_tokens=TOKENS, seed=1000 * seed + number
        )
        for number in range(REQUESTS)
    )
    if arm.drafting is None:
        return EdgeSettings(requests=requests, draft=None)
    drafting = arm.drafting
    if arm.knows_pace and drafting.growth is not None:
        pace = Pace(rtt_s=rtt_ms / 1000, step_s=0.06, forward_s=FORWARD.fixed_s, slack_s=0.0012)
        drafting = replace(drafting, growth=replace(drafting.growth, pace=pace))
    return EdgeSettings(
        requests=requests,
        make_drafter=tree_drafter(trace_of(draft, temperature=0.0), cost=FORWARD),
        drafting=drafting,
        length_policy=arm.policy,
        byte_s=arm.byte_s,
    )


def _summed(answers: list[Statistics], verifier: VerifierStatistics, log: EventLog) -> Measured:
    committed = sum(one.committed for one in answers)

    def per_token(name: str) -> float:
        return float(sum(getattr(one, name) for one in answers)) / committed

    bare_s, covered_s, covered, stretches = _steps(log)
    drafted, accepted = per_token("drafted"), per_token("accepted")
    late, stale = per_token("late"), per_token("stale")
    return Measured(
        tokens_per_s=committed / sum(one.duration_s for one in answers),
        payload_bytes=per_token("proposal_bytes"),
        uplink_bytes=per_token("payload_bytes_up"),
        messages=per_token("proposals"),
        guesses=drafted,
        rows=verifier.steps.num_rows / committed,
        steps=per_token("steps"),
        accepted=accepted,
        late=late,
        stale=stale,
        rejected=drafted - accepted - late - stale,
        unsent=per_token("unsent"),
        covered_tokens_per_s=covered / covered_s if covered_s else 0.0,
        uncovered=stretches / committed,
        bare_step_s=bare_s,
    )


def _steps(log: EventLog) -> tuple[float, float, int, int]:
    """Return the mean time of a step without guesses, the time and tokens of those with, and how often the former began."""
    bare_s: list[float] = []
    covered_s, covered, stretches, was_covered = 0.0, 0, 0, True
    for event in log:
        told = dict(event.fields)
        if event.kind != "sent" or told.get("message") != "commit" or not told["steps"]:
            continue
        rows, tokens, took_ns = told["rows"], told["tokens"], told["verify_ns"]
        assert isinstance(rows, int)
        assert isinstance(tokens, tuple)
        assert isinstance(took_ns, int)
        if rows > 1:
            covered_s += took_ns / 1e9
            covered += len(tokens)
        else:
            bare_s.append(took_ns / 1e9)
            stretches += was_covered
        was_covered = rows > 1
    return sum(bare_s) / max(1, len(bare_s)), covered_s, covered, stretches
