"""What a step of the verifier took while benchmarks/distance.py ran, from the steps that its lines tell of. Pure.

How fast a machine is changes by the hour, so a prediction needs costs of the same hours. What is predicted from them is everything else: how
many steps a text takes, how many rows are in them, how long the verifier waits.
"""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from distance_cells import CLOUD_ONLY, SYSTEMS
from distance_lines import Line

from simulator.calibration.fit import Sample, Subject, fit
from simulator.cost import FittedCost, Work
from simulator.virtual.metering import PAUSE_S

CONTEXT_TOKENS = 32
"""Steps whose texts differ by less are of one kind."""
TOGETHER = 8
"""Steps of a kind of which the middle one counts, so that a kind counts as often as it occurs; fewer say too little, but of prompts."""
SYSTEMS_BY_NAME = {system.name: system for system in SYSTEMS}


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One step, as a line tells of it."""

    rows: int
    context: int
    """Tokens of the text before it; 0 where the prompt is computed."""
    took_s: float
    since_s: float
    """From the end of the step before to its beginning, with what the way to the user adds and takes away; of a prompt 0."""
    has_rested: bool
    """There was a pause before it."""
    is_plain: bool
    """Of plain streaming."""


def steps(lines: Iterable[Line]) -> list[Step]:
    """Return every step whose time is told by itself."""
    return [step for line in lines for step in _of(line)]


def fitted(found: Sequence[Step], *, rested: Sequence[Step], name: str, dtype: str) -> FittedCost:
    """Return what steps cost.

    A step after a pause takes longer: others used the caches. By how much is told apart from the rest.

    Args:
        found: steps of the same hours; some must be without a pause, and some of those of plain streaming.
        rested: steps of which those after a pause tell what that costs, and of prompts what those cost.
        name: of the target.
        dtype: its arithmetic.
    """
    subject = Subject(name=name, dtype=dtype, threads=1, left_out=0.0)
    steady = [step for step in found if not step.has_rested]
    cost = fit(subject, _samples(steady))
    after = [step for step in rested if step.has_rested]
    paused = [step for step in after if step.context]
    rested_s = max(0.0, _excess_s(paused, cost) - _excess_s(steady, cost)) if paused else 0.0
    alike = [replace(step, took_s=step.took_s - rested_s) for step in after]
    # What a link adds to one gap it takes from the next.
    between_s = statistics.fmean(step.since_s for step in steady if step.is_plain)
    return replace(
        fit(subject, _samples([*steady, *alike])),
        between_s=max(0.0, between_s),
        rested_s=rested_s,
    )


def _of(line: Line) -> list[Step]:
    """Return the steps of one answer; a commit of several steps tells only their sum."""
    system = SYSTEMS_BY_NAME[line["system"]]
    commits, found = line["commits"], []
    context = line["prompt_tokens"]
    for before, commit in pairwise([None, *commits]):
        since_s = 0.0
        if before is not None:
            context += before["tokens"]
            since_s = commit["at_s"] - before["at_s"] - commit["verify_s"]
        if commit["steps"] == 1:
            found.append(
                Step(
                    rows=commit["rows"],
                    context=context if before else 0,
                    took_s=commit["verify_s"],
                    since_s=since_s,
                    # What streams without a pause may still arrive with one.
                    has_rested=before is None or (not system.streams and since_s >= PAUSE_S),
                    is_plain=system is CLOUD_ONLY,
                )
            )
    return found


def _samples(found: Iterable[Step]) -> list[Sample]:
    kinds: dict[tuple[int, int], list[Step]] = defaultdict(list)
    for step in found:
        part = max(1, round(step.context / CONTEXT_TOKENS)) if step.context else 0
        kinds[step.rows, part].append(step)
    return [
        Sample(
            work=_work(replace(some[0], context=part * CONTEXT_TOKENS)),
            times_s=tuple(step.took_s for step in some),
        )
        for (_, part), of_kind in kinds.items()
        for begin in range(0, len(of_kind), TOGETHER)
        if len(some := of_kind[begin : begin + TOGETHER]) == TOGETHER or not part
    ]


def _excess_s(found: Sequence[Step], cost: FittedCost) -> float:
    """Return how much longer steps took than they should have, on the average."""
    return statistics.fmean(step.took_s - cost.seconds(_work(step)) for step in found)


def _work(step: Step) -> Work:
    is_prompt = not step.context
    return Work().with_sequence(num_rows=step.rows, context=step.context, prefill=is_prompt)
