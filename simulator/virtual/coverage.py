"""Which fault met which state of a session: a matrix without empty cells is what a campaign must show."""

from collections import Counter
from collections.abc import Mapping

from paceline.session.cloud import CloudSession
from paceline.session.table import CloudState, EdgeState
from simulator.virtual.edge import SimulatedEdge
from simulator.virtual.faults import FaultKind
from simulator.virtual.verifier import SimulatedVerifier

NO_SESSION = "none"

EDGE_STATES = (
    NO_SESSION,
    *(f"edge {state}" for state in EdgeState if state not in {EdgeState.DONE, EdgeState.FAILED}),
)
CLOUD_STATES = tuple(f"cloud {state}" for state in CloudState if state is not CloudState.CLOSED)
BRANCHES = "cloud branches"
"""Guesses that exclude each other are at the verifier for one position, and wait to be verified."""

STATES = (*EDGE_STATES, *CLOUD_STATES, BRANCHES)

_MOST = 64
"""Guesses of a session that are looked at."""


def _has_branches(session: CloudSession) -> bool:
    """Return whether two of a session's guesses are for one position."""
    parents = session.offer(_MOST).parents
    return len(set(parents)) < len(parents)


class Coverage:
    """Counts; two can be added up."""

    def __init__(self, counts: Mapping[tuple[str, str], int] | None = None) -> None:
        self.counts: Counter[tuple[str, str]] = Counter(counts or {})

    def note(self, kind: FaultKind, edge: SimulatedEdge, verifier: SimulatedVerifier) -> None:
        """A fault happens now to these, or between them."""
        states = edge.states
        for state in states or (NO_SESSION,):
            self.counts[kind, f"edge {state}" if states else NO_SESSION] += 1
        for entry in verifier.core.registry.entries if verifier.core else ():
            session = entry.session
            self.counts[kind, f"cloud {session.state}"] += 1
            if session.has_drafts and _has_branches(session):
                self.counts[kind, BRANCHES] += 1

    def add(self, counts: Mapping[tuple[str, str], int]) -> None:
        """Take what another one counted."""
        self.counts.update(counts)

    @property
    def empty(self) -> list[tuple[str, str]]:
        """Cells that nothing fell into."""
        return [
            (kind, state) for kind in FaultKind for state in STATES if not self.counts[kind, state]
        ]

    def lines(self) -> list[str]:
        """Return the matrix as a table of text."""
        names = [state.replace("cloud ", "c:").replace("edge ", "e:") for state in STATES]
        head = f"{'':28}" + "".join(f"{name:>12}" for name in names)
        rows = [
            f"{kind:28}" + "".join(f"{self.counts[kind, state]:>12}" for state in STATES)
            for kind in FaultKind
        ]
        return [head, *rows]
