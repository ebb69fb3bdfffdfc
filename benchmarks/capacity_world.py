"""One cell of the capacity benchmark: so many edges on one verifier in virtual time, or its co-located counterpart."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from cloud.account import VerifierStatistics
from cloud.admission import SessionSettings
from cloud.scheduler import RaceDrafting, Schedule, SchedulerSettings
from edge.steering import LengthPolicy
from paceline.client import DraftingSettings
from paceline.session.growth import Growth
from paceline.tokens import TokenId
from simulator.acceptance.guess_trace import GuessTrace
from simulator.acceptance.recordings import recorded_costs, recorded_trace
from simulator.acceptance.replay import ReplayedAcceptance
from simulator.cost import StepCost, Work
from simulator.notation import parse_network
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.model import ModelSettings
from simulator.virtual.tree_draft import tree_drafter
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import World, WorldSettings, run

PROMPT = 32
TARGETS = {
    "cpu": recorded_costs("xeon-1-core").target.cost,
    "gpu": StepCost(fixed_s=0.020, per_row_s=0.00015, per_prefill_row_s=0.00002),
    "full": StepCost(fixed_s=0.002, per_row_s=0.0005, per_prefill_row_s=0.0001),
}
"""What a step of the target takes: SmolLM2-135M on one core, as calibrated; a large model on a GPU with arithmetic to spare;
one whose arithmetic is used up, so that a step takes as long as it has rows."""
DRAFTS = {
    "cpu": StepCost(fixed_s=0.004, per_row_s=0.0001),
    "gpu": StepCost(fixed_s=0.002, per_row_s=0.00002),
    "full": StepCost(fixed_s=0.002, per_row_s=0.00005),
}
"""What a pass of the draft takes where it shares the target's processor; at an edge it is the first one everywhere."""
SCHEDULES = {"none": Schedule.EVEN, "marginal": Schedule.GOODPUT}
"""Of arms that are not named after theirs."""
COLOCATED = [(depth, width) for depth in (1, 2, 3, 4, 6, 8) for width in (1, 2, 4)]
"""Depths of the chain, and guesses at each depth, that the co-located arm may choose from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """What is measured."""

    target: str
    trace: str
    edges: int
    arm: str
    """none, colocated, or a schedule; `goodput-patient` with the race off; `marginal`: goodput, with edges that weigh each guess."""
    seed: int
    tokens: int = 64
    """Of each answer."""
    rtt_ms: int = 50
    silent: int = 0
    """So many of the edges draft nothing."""


@dataclass(slots=True, kw_only=True)
class Measured:
    """What a cell yielded while all edges were served."""

    tokens_per_s: float
    """Committed tokens of all sessions."""
    slowest: float
    """Tokens per second of the slowest session."""
    silent_tokens_per_s: float = 0.0
    """Mean of the sessions that draft nothing."""
    rows_per_token: float = 0.0
    """Rows of the target, prompts left out."""
    step_ms: float = 0.0
    expected: float = 0.0
    """Tokens that were expected of draft rows, over those that came of them."""
    choice: str = ""
    """Of the co-located arm."""
    costs: dict[str, float] = field(default_factory=dict)


def measure(cell: Cell) -> Measured:
    """Run one cell."""
    return _colocated(cell) if cell.arm == "colocated" else _streamed(cell)


# --- edges and a verifier


@dataclass(slots=True, kw_only=True)
class _Window:
    """From when every session has its first tokens to when the first one ends."""

    begin: VerifierStatistics | None = None
    end: VerifierStatistics | None = None
    begin_s: float = 0.0
    end_s: float = 0.0
    counts: list[int] = field(default_factory=list)


def _streamed(cell: Cell) -> Measured:
    window = _Window()

    async def script(world: World) -> None:
        world.group.create_task(_watch(world, window))

    result = run(_settings(cell), script=script)
    assert not result.bugs, result.bugs
    assert window.begin is not None
    assert window.end is not None
    seconds = window.end_s - window.begin_s
    begin, end = window.begin, window.end
    steps = end.steps.num_steps - begin.steps.num_steps
    committed = end.committed - begin.committed
    rows = end.steps.num_rows - begin.steps.num_rows
    rows -= end.steps.num_prefill_rows - begin.steps.num_prefill_rows
    real = committed - (end.num_served - begin.num_served)
    rates = [count / seconds for count in window.counts]
    silent = rates[: cell.silent]
    return Measured(
        tokens_per_s=committed / seconds,
        slowest=min(rates),
        silent_tokens_per_s=sum(silent) / len(silent) if silent else 0.0,
        rows_per_token=rows / committed,
        step_ms=1e3 * seconds / max(1, steps),
        expected=(end.drafts_expected - begin.drafts_expected) / real if real else 0.0,
    )


async def _watch(world: World, window: _Window) -> None:
    """Take down what was done while every edge had a text under way."""
    for edge in world.edges:
        await edge.has(2)
    loop, verifier = asyncio.get_running_loop(), world.verifiers[0]
    assert verifier.core is not None
    before = [len(edge.asked[-1].pieces) for edge in world.edges]
    window.begin, window.begin_s = verifier.core.statistics, loop.time()
    most = world.edges[0].settings.requests[0].max_tokens
    # Some margin: the last tokens of a text cannot have drafts any more.
    ends = [loop.create_task(edge.has(most - 8)) for edge in world.edges]
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    window.end, window.end_s = verifier.core.statistics, loop.time()
    after = [len(edge.asked[-1].pieces) for edge in world.edges]
    window.counts = [late - early for early, late in zip(before, after, strict=True)]
    await asyncio.wait(ends)


def _settings(cell: Cell) -> WorldSettings:
    trace = recorded_trace(cell.trace)
    maker = tree_drafter(trace, cost=DRAFTS["cpu"])
    edges = []
    for number in range(cell.edges):
        first = 1 + (cell.seed * 7919 + number * 131) % 400
        asked = Request(
            prompt=tuple(TokenId(1 + (first + place) % 500) for place in range(PROMPT)),
            max_tokens=cell.tokens,
            seed=cell.seed * 1000 + number,
        )
        edge = EdgeSettings(requests=(asked,), draft=None)
        if cell.arm != "none" and number >= cell.silent:
            drafting = DraftingSettings(draft_length=32, window=256, growth=Growth())
            policy = LengthPolicy.MARGINAL if cell.arm == "marginal" else LengthPolicy.FIXED
            edge = replace(edge, make_drafter=maker, drafting=drafting, length_policy=policy)
        edges.append(edge)
    name, _, how = cell.arm.partition("-")
    scheduler = SchedulerSettings(
        schedule=SCHEDULES.get(name) or Schedule(name),
        race=how != "patient",
        patience_s=2 * cell.rtt_ms / 1000,
        # The text of a toy target never repeats itself: there is nothing that they could guess.
        race_drafts=RaceDrafting.OFF,
    )
    verifier = VerifierSettings(
        model=ModelSettings(cost=TARGETS[cell.target]),
        scheduler=scheduler,
        sessions=SessionSettings(max_sessions=cell.edges),
    )
    return WorldSettings(
        edges=tuple(edges),
        verifiers=(verifier,),
        network=parse_network(f"rtt={cell.rtt_ms}ms"),
        seed=cell.seed,
    )


# --- draft and target on one processor


def _colocated(cell: Cell) -> Measured:
    """Return the best of `COLOCATED`: all sessions in step, drafts of all in one pass for each depth, then one step.

    That is stop-and-wait with no round trip, on the processor of the verifier: a round takes `depth` passes of the draft,
    each with a row for every session, and a step of the target with 1 + depth * width rows for every session. Of a chain
    with `width` guesses at each depth, the best one going on, the draft needs no more passes. What would slow it down in a
    real system is left out: texts that end, prompts, memory of the draft, work between the passes.
    """
    trace = recorded_trace(cell.trace)
    found = [(_lockstep(cell, trace, depth, width), depth, width) for depth, width in COLOCATED]
    best, depth, width = max(found, key=lambda one: one[0].tokens_per_s)
    best.choice = f"{depth}x{width}"
    return best


def _lockstep(cell: Cell, trace: GuessTrace, depth: int, width: int) -> Measured:
    target, draft = TARGETS[cell.target], DRAFTS[cell.target]
    texts = [ReplayedAcceptance(trace, seed=cell.seed * 1000 + n) for n in range(cell.edges)]
    lengths = [0] * cell.edges
    seconds = rows = 0.0
    rounds = 0
    while max(lengths) < cell.tokens - 8:
        verified, drafted = Work(), Work()
        for length in lengths:
            context = PROMPT + length
            verified = verified.with_sequence(num_rows=1 + depth * width, context=context)
            drafted = drafted.with_sequence(num_rows=1, context=context)
        seconds += target.seconds(verified) + depth * draft.seconds(drafted)
        rows += verified.num_rows
        rounds += 1
        for number, text in enumerate(texts):
            lengths[number] += _accepted(text, lengths[number], depth, width) + 1
    return Measured(
        tokens_per_s=sum(lengths) / seconds,
        slowest=min(lengths) / seconds,
        rows_per_token=rows / sum(lengths),
        step_ms=1e3 * seconds / rounds,
    )


def _accepted(text: ReplayedAcceptance, position: int, depth: int, width: int) -> int:
    """Return how many drafted tokens the target keeps."""
    for place in range(depth):
        guess = text.at(position + place)
        if not guess.matches(1):
            # A sibling may be right, and nothing hangs from it.
            return place + any(guess.matches(rank) for rank in range(2, width + 1))
    return depth
