"""What an edge's session tells of its drafts: what to guess next, and what became of guesses."""

from dataclasses import dataclass

from paceline.tokens import Position, TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRequest:
    """What the drafter may go on from: the committed text, then `path`, then its guesses."""

    position: Position
    """Length of the committed text."""

    path: tuple[TokenId, ...]
    """The live guesses to go on from."""

    limit: int
    """Most tokens worth drafting; at least 1."""


@dataclass(slots=True, kw_only=True)
class EdgeCounts:
    """What became of this edge's drafts, over all streams of the session."""

    drafted: int = 0
    """Nodes sent, each once per stream that sent it."""
    unsent: int = 0
    """Guesses that were contradicted before they were sent."""
    judged: int = 0
    accepted: int = 0
    late: int = 0
    stale: int = 0
    steps: int = 0
