"""Runs a fleet: networks are sampled, the most that a verifier can do is found, then every verifier with its edges.

Verifiers do not touch each other once edges are placed, so processes share them; what comes out is the same for any number of
processes.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import ClassVar, TypeVar

from paceline.errors import ConfigError
from simulator.fleet.delays import Delays, sampled
from simulator.fleet.groups import Group, run_group
from simulator.fleet.guesses import GuessBook
from simulator.fleet.mix import Mix, placed
from simulator.fleet.people import People
from simulator.fleet.settings import DrafterModel, VerifierModel
from simulator.fleet.tally import Tally

Task = TypeVar("Task")
Result = TypeVar("Result")
Progress = Callable[[int, int], None]
"""Is told how many of how many pieces of work are done."""

SATURATED_WARM_UP_S, SATURATED_S = 30.0, 60.0
AT_ONCE_S = 1e-3
"""Between two questions of edges that always ask."""
EDGES_PER_SEAT = 2
"""Of a verifier whose seats are always taken: those that were refused wait."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Everything that decides what happens.

    Raises:
        ConfigError: a field is out of its range.
    """

    mix: Mix
    verifier: VerifierModel
    drafter: DrafterModel | None
    """None drafts nothing."""
    people: People
    """`every_s` counts only if `load` is None."""
    load: float | None = 0.7
    """Tokens asked for, as a part of the most that the verifiers can commit with all seats taken."""
    num_edges: int = 10_000
    num_verifiers: int = 40
    lasts_s: float = 600.0
    """Of what is counted."""
    warm_up_s: float = 120.0
    """Before that."""
    compare: bool = True
    """Run the same fleet without drafts as well."""
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the fields."""
        for name, least in (("num_edges", 1), ("num_verifiers", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected at least {least}")
        if self.load is not None and not 0.0 < self.load <= 10.0:
            raise ConfigError(f"load: got {self.load}, expected more than 0 and at most 10")
        if not self.lasts_s > 0.0 or self.warm_up_s < 0.0:
            raise ConfigError(
                f"lasts_s, warm_up_s: got {self.lasts_s}, {self.warm_up_s}, expected more than 0, and at least 0"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """A fleet with drafts, or without."""

    tallies: tuple[Tally, ...]
    """By verifier."""
    most_tokens_per_s: float
    """Of one verifier whose seats are always taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRun:
    """What became of a fleet."""

    settings: FleetSettings
    every_s: float
    """Mean time from one question to the next at an edge."""
    drafting: Run
    plain: Run | None
    """The same fleet streaming from the cloud; None if it was not asked for."""


def run_fleet(settings: FleetSettings, *, num_processes: int, progress: Progress) -> FleetRun:
    """Run a fleet.

    Args:
        settings: all that decides.
        num_processes: 1 runs it in this one.
        progress: told how far it is.
    """
    drafters = [settings.drafter]
    if settings.compare and settings.drafter is not None:
        drafters.append(None)
    total = len(settings.mix) + len(drafters) * (1 + settings.num_verifiers)
    steps = iter(range(1, total + 1))

    def watched(results: Iterator[Result]) -> list[Result]:
        found = []
        for one in results:
            found.append(one)
            progress(next(steps), total)
        return found

    with _pool(num_processes) as pool:
        sample = partial(sampled, seed=settings.seed)
        networks = watched(_each(pool, sample, [kind.network for kind in settings.mix]))
        full = [_saturated(settings, drafter=drafter) for drafter in drafters]
        run_one = partial(_run, networks=networks)
        most = [one.tokens / SATURATED_S for one in watched(_each(pool, run_one, full))]
        every_s = _every_s(settings, most_tokens_per_s=most[0])
        groups = [
            group
            for drafter in drafters
            for group in _groups(settings, drafter=drafter, every_s=every_s)
        ]
        tallies = watched(_each(pool, run_one, groups))
    num = settings.num_verifiers
    runs = [
        Run(tallies=tuple(tallies[index * num : (index + 1) * num]), most_tokens_per_s=one)
        for index, one in enumerate(most)
    ]
    return FleetRun(
        settings=settings,
        every_s=every_s,
        drafting=runs[0],
        plain=runs[1] if len(runs) > 1 else None,
    )


def _every_s(settings: FleetSettings, *, most_tokens_per_s: float) -> float:
    """Return how often edges ask for the load that is wanted.

    Raises:
        ConfigError: the verifiers are too slow to say.
    """
    if settings.load is None:
        return settings.people.every_s
    if not most_tokens_per_s:
        raise ConfigError(
            f"load: a full verifier commits nothing within {SATURATED_S:g} s, so it cannot be a part of that; "
            "say how often edges ask instead"
        )
    offered = settings.load * most_tokens_per_s * settings.num_verifiers
    return round(settings.num_edges * settings.people.mean_answer_tokens / offered, 3)


def _groups(
    settings: FleetSettings, *, drafter: DrafterModel | None, every_s: float
) -> list[Group]:
    houses = placed(
        settings.mix, num_edges=settings.num_edges, num_verifiers=settings.num_verifiers
    )
    return [
        Group(
            number=number,
            seed=settings.seed,
            verifier=settings.verifier,
            drafter=drafter,
            residents=residents,
            people=replace(settings.people, every_s=every_s),
            measured=(settings.warm_up_s, settings.warm_up_s + settings.lasts_s),
        )
        for number, residents in enumerate(houses)
    ]


def _saturated(settings: FleetSettings, *, drafter: DrafterModel | None) -> Group:
    """Return a verifier whose edges always ask."""
    num_edges = EDGES_PER_SEAT * settings.verifier.max_sessions
    (residents,) = placed(settings.mix, num_edges=num_edges, num_verifiers=1)
    return Group(
        number=settings.num_verifiers,
        seed=settings.seed,
        verifier=settings.verifier,
        drafter=drafter,
        residents=residents,
        people=replace(settings.people, every_s=AT_ONCE_S),
        measured=(SATURATED_WARM_UP_S, SATURATED_WARM_UP_S + SATURATED_S),
    )


# --- processes


class _Kept:
    """What a process keeps from one group to the next."""

    books: ClassVar[dict[bool, GuessBook]] = {}


def _run(group: Group, *, networks: Sequence[Delays]) -> Tally:
    # All groups that draft have one drafter, so that one book serves them.
    drafts = group.drafter is not None
    book = _Kept.books.setdefault(drafts, GuessBook(group.drafter))
    return run_group(group, networks, book=book)


@contextmanager
def _pool(num_processes: int) -> Iterator[ProcessPoolExecutor | None]:
    _Kept.books = {}
    if num_processes == 1:
        yield None
        return
    # A fork would inherit threads of libraries half.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_processes, mp_context=context) as pool:
        yield pool


def _each(
    pool: ProcessPoolExecutor | None, work: Callable[[Task], Result], tasks: Sequence[Task]
) -> Iterator[Result]:
    """Return what comes of the tasks, in their order."""
    return map(work, tasks) if pool is None else pool.map(work, tasks)
