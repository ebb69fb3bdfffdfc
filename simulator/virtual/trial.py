"""Tries one schedule: runs its world, and says what is wrong with what came of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from simulator.virtual.coverage import Coverage
from simulator.virtual.edge import Asked
from simulator.virtual.events import EventLog
from simulator.virtual.faults import LIVENESS_S, MANGLES, Schedule
from simulator.virtual.loop import StandstillError
from simulator.virtual.plane import FOLLOW_S
from simulator.virtual.trouble import make_trouble
from simulator.virtual.world import Result, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What came of a schedule."""

    seed: int
    wrongs: tuple[str, ...]
    """What is wrong; empty if nothing is."""
    num_tokens: int = 0
    num_messages: int = 0
    """Carried by links."""


def tried(
    schedule: Schedule, *, log: EventLog | None = None, coverage: Coverage | None = None
) -> Verdict:
    """Run a schedule and check what came of it.

    Args:
        schedule: the world and what goes wrong in it.
        log: takes what happens.
        coverage: is told which fault met which state.
    """
    try:
        result = run(
            schedule.world,
            script=partial(make_trouble, schedule=schedule, coverage=coverage),
            log=log,
        )
    except StandstillError as error:
        return Verdict(seed=schedule.seed, wrongs=(f"stuck: {error}",))
    except (Exception, AssertionError) as error:  # noqa: BLE001 - whatever broke is the finding
        return Verdict(seed=schedule.seed, wrongs=tuple(_leaves(error)))
    return Verdict(
        seed=schedule.seed,
        wrongs=tuple(_wrongs(schedule, result)),
        num_tokens=sum(len(one.pieces) for asked in result.asked for one in asked),
        num_messages=result.num_messages,
    )


def _wrongs(schedule: Schedule, result: Result) -> Sequence[str]:
    """Return what is wrong with a world that came to its end."""
    wrongs = [f"a verifier's service raised {bug!r}" for bug in result.bugs]
    late_s = result.duration_s - result.healed_s - LIVENESS_S
    if late_s > 0.0:
        wrongs.append(
            f"stuck: answered {late_s:.1f} s later than {LIVENESS_S:g} s after all healed"
        )
    if schedule.world.orchestrator is not None and result.followed_s is None:
        wrongs += [
            f"after {FOLLOW_S:g} s of health {text}" for text in result.astray or ("nobody looked",)
        ]
    for number, (edge, asked) in enumerate(zip(schedule.world.edges, result.asked, strict=True)):
        num_mangles = sum(
            1 for one in schedule.faults if one.kind in MANGLES and one.edge == number
        )
        failed = [one for one in asked if one.error is not None]
        if len(failed) > num_mangles:
            wrongs += [f"edge{number}: a generation failed: {one.error!r}" for one in failed]
        # A program that is killed while it says goodbye has its answer and asks again.
        if {one.request for one in asked if one.reason is not None} != set(edge.requests):
            wrongs.append(f"edge{number}: not every request was answered")
        for attempt, one in enumerate(asked):
            told = [*_text(schedule, one), *_counts(one, num_mangles=num_mangles)]
            wrongs += [f"edge{number}, attempt {attempt + 1}: {text}" for text in told]
    return wrongs


def _text(schedule: Schedule, asked: Asked) -> Sequence[str]:
    """Return what is wrong with one text."""
    request = asked.request
    expected = schedule.world.target.run(request.prompt, request.max_tokens)
    got, wrongs = tuple(asked.pieces), []
    if got != expected[: len(got)]:
        at = next(
            (
                i
                for i, (ours, right) in enumerate(zip(got, expected, strict=False))
                if ours != right
            ),
            len(expected),
        )
        wrongs.append(
            f"token {at} is {got[at]}, expected {expected[at] if at < len(expected) else 'none'}"
        )
    elif asked.reason is not None and got != expected:
        wrongs.append(f"got {len(got)} tokens, expected {len(expected)}")
    if asked.first_position not in {None, len(request.prompt)}:
        wrongs.append(f"the first token is at {asked.first_position}, not behind the prompt")
    return wrongs


def _counts(asked: Asked, *, num_mangles: int) -> Sequence[str]:
    """Return what is wrong with the counts; a commit that comes twice is counted twice."""
    counts = asked.statistics
    if counts is None or num_mangles or counts.accepted <= counts.judged <= counts.drafted:
        return []
    return [f"counts do not add up: {counts}"]


def _leaves(error: BaseException) -> Sequence[str]:
    """Return what is in a group of errors, in words."""
    if isinstance(error, BaseExceptionGroup):
        return [text for inner in error.exceptions for text in _leaves(inner)]
    place = ""
    trace = error.__traceback__
    while trace is not None:
        place = f"{trace.tb_frame.f_code.co_filename.rpartition('/')[2]}:{trace.tb_lineno}"
        trace = trace.tb_next
    return [f"{type(error).__name__} at {place}: {error}"]
