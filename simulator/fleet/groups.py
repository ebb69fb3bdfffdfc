"""One verifier with the edges placed on it: what a process is handed, and what it hands back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from numpy.random import default_rng

from simulator.cost import Spread
from simulator.fleet.delays import Delays
from simulator.fleet.door import Desk
from simulator.fleet.edge import NUM_FACTORS, Edge, Pace
from simulator.fleet.guesses import GuessBook
from simulator.fleet.people import People
from simulator.fleet.settings import Ask, DrafterModel, VerifierModel
from simulator.fleet.sizes import MessageSizes
from simulator.fleet.tally import Tally
from simulator.fleet.verifier import Verifier

FACTORS, OFFSETS = 4, 5
"""Tell these seeds from others."""

WHOLE_DAY_S = 86400.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Resident:
    """An edge that is placed on a verifier."""

    number: int
    """In the fleet."""
    kind: int = 0
    """Number of its network."""
    slowdown: float = 1.0
    """Factor on the times of its drafter."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """A verifier and its edges, and everything that decides what happens there, but for the networks."""

    number: int
    """Of the verifier."""
    seed: int
    verifier: VerifierModel
    drafter: DrafterModel | None
    """None drafts nothing: plain streaming from the cloud."""
    residents: tuple[Resident, ...]
    people: People | Mapping[int, Sequence[Ask]]
    """What they ask: drawn, or by the number of the edge."""
    measured: tuple[float, float] = (0.0, WHOLE_DAY_S)
    """What ends between these times is counted."""
    token: int = 20_000
    """An id of usual size."""


def run_group(group: Group, networks: Sequence[Delays], *, book: GuessBook | None = None) -> Tally:
    """Return what happens at a verifier: the same for the same arguments, in any process.

    Args:
        group: the verifier and its edges.
        networks: delays by kind.
        book: of the group's drafter, from another group; saves time.
    """
    drafter, seed = group.drafter, (group.seed, group.number)
    pace = None
    if drafter is not None:
        pace = Pace(drafter, factors=_factors(drafter.spread, seed=(FACTORS, *seed, 1)))
    offsets = default_rng((OFFSETS, *seed))
    desks = []
    for resident in group.residents:
        delays = networks[resident.kind]
        edge = Edge(
            number=resident.number,
            kind=resident.kind,
            delays=delays,
            offset=int(offsets.integers(max(len(delays.up), len(delays.down), NUM_FACTORS))),
            pace=pace,
            slowdown=resident.slowdown,
        )
        desks.append(Desk(edge=edge, asks=iter(_asks(group, edge=resident.number))))
    verifier = Verifier(
        group.verifier,
        factors=_factors(group.verifier.spread, seed=(FACTORS, *seed, 0)),
        desks=desks,
        book=book or GuessBook(drafter),
        sizes=MessageSizes(token=group.token),
        measured=group.measured,
    )
    return verifier.run(until_s=group.measured[1])


def _asks(group: Group, *, edge: int) -> Iterable[Ask]:
    if isinstance(group.people, People):
        return group.people.asks(seed=group.seed, edge=edge)
    return group.people[edge]


def _factors(spread: Spread, *, seed: tuple[int, ...]) -> tuple[float, ...]:
    """Return how times scatter, in turn."""
    if len(set(spread.quantiles)) == 1:
        return spread.quantiles[:1]
    drawn: list[float] = default_rng(seed).random(NUM_FACTORS).tolist()
    return tuple(spread.factor(uniform) for uniform in drawn)
