"""Tries many schedules, on several processes, and reports the first ones that go wrong."""

import gc
import logging
import multiprocessing
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass

from simulator.virtual.coverage import Coverage
from simulator.virtual.events import EventLog
from simulator.virtual.faults import Schedule, drawn
from simulator.virtual.shrink import shrunk
from simulator.virtual.trial import Verdict, tried

MAX_CPU_S = 60.0
"""Processor time of a schedule; a thousand times what one takes."""

PER_TASK = 50
"""Seeds that a process takes at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came of a campaign."""

    first: int
    count: int
    failures: tuple[Verdict, ...]
    coverage: Coverage
    num_tokens: int
    num_messages: int
    num_faults: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Part:
    """What came of some seeds."""

    failures: tuple[Verdict, ...]
    counts: Counter[tuple[str, str]]
    num_tokens: int
    num_messages: int
    num_faults: int


def campaign(
    *,
    first: int,
    count: int,
    num_processes: int,
    progress: Callable[[int], None] = lambda _: None,
) -> Report:
    """Try the schedules of `count` seeds from `first` on.

    Args:
        first: seed.
        count: how many.
        num_processes: 1 tries them in this one.
        progress: is told how many more are done, now and then.
    """
    tasks = [
        (begin, min(PER_TASK, first + count - begin))
        for begin in range(first, first + count, PER_TASK)
    ]
    coverage = Coverage()
    failures: list[Verdict] = []
    num_tokens = num_messages = num_faults = 0
    for part, (_, size) in zip(_parts(tasks, num_processes), tasks, strict=True):
        coverage.add(part.counts)
        failures += part.failures
        num_tokens += part.num_tokens
        num_messages += part.num_messages
        num_faults += part.num_faults
        progress(size)
    return Report(
        first=first,
        count=count,
        failures=tuple(failures),
        coverage=coverage,
        num_tokens=num_tokens,
        num_messages=num_messages,
        num_faults=num_faults,
    )


def _parts(tasks: Sequence[tuple[int, int]], num_processes: int) -> Iterator[_Part]:
    if num_processes == 1:
        yield from map(_part, tasks)
        return
    # A fork would inherit the threads of gRPC and PyTorch half.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        yield from pool.map(_part, tasks)


def _part(task: tuple[int, int]) -> _Part:
    first, count = task
    coverage = Coverage()
    schedules = [drawn(seed) for seed in range(first, first + count)]
    with quiet(), thrifty():
        verdicts = []
        for schedule in schedules:
            with limited(MAX_CPU_S):
                verdicts.append(tried(schedule, coverage=coverage))
    return _Part(
        failures=tuple(verdict for verdict in verdicts if verdict.wrongs),
        counts=coverage.counts,
        num_tokens=sum(verdict.num_tokens for verdict in verdicts),
        num_messages=sum(verdict.num_messages for verdict in verdicts),
        num_faults=sum(len(schedule.faults) for schedule in schedules),
    )


@contextmanager
def limited(cpu_s: float) -> Iterator[None]:
    """Break off what goes in circles without ever waiting, which no event loop notices. In the main thread only.

    Args:
        cpu_s: processor time that is enough.
    """

    def stop(*_: object) -> None:
        raise RuntimeError(f"goes in circles: not over after {cpu_s:g} s of processor time")

    before = signal.signal(signal.SIGPROF, stop)
    # Again and again after that: another task may go in circles as well.
    signal.setitimer(signal.ITIMER_PROF, cpu_s, cpu_s / 10.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.signal(signal.SIGPROF, before)


@contextmanager
def thrifty() -> Iterator[None]:
    """Look for garbage less often: what is imported stays, and a world is small."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()


@contextmanager
def quiet() -> Iterator[None]:
    """Keep the programs from logging what they meet: it is what they are here for."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(before)


def explained(schedule: Schedule, *, smaller: bool) -> Sequence[str]:
    """Return the whole story of a schedule: what it expanded to, what is wrong, the last events, a smaller one.

    Args:
        schedule: may fail or not.
        smaller: look for a smaller one if it fails.
    """
    with quiet():
        log = EventLog()
        verdict = tried(schedule, log=log)
        lines = [
            *schedule.lines(),
            f"replay it: {replay_command(schedule.seed)}",
            *(f"WRONG: {wrong}" for wrong in verdict.wrongs or ()),
        ]
        if not verdict.wrongs:
            return [*lines, "nothing is wrong"]
        lines += ["the last events:", *(f"  {line}" for line in log.story())]
        if smaller:
            found = shrunk(schedule, fails=lambda one: bool(tried(one).wrongs))
            lines += [
                "a smaller schedule that goes wrong as well:",
                *(f"  {line}" for line in found.lines()),
                *(f"  WRONG: {wrong}" for wrong in tried(found).wrongs),
            ]
    return lines


def replay_command(seed: int) -> str:
    """Return what a user types to see this seed again."""
    return f"paceline simulate faults --seed {seed}"
