"""What an edge's session tells of its drafts: what to guess next, and what became of guesses."""

from dataclasses import dataclass

from paceline.errors import LocalProtocolError
from paceline.messages import Commit
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
    answers: int = 0
    """How often commits settled all that was in flight. A tree stream does not count them."""
    prepared: int = 0
    """After how many of these the next proposal was there at once."""

    def add(self, commit: Commit) -> None:
        """Count what a commit says."""
        self.judged += commit.num_judged
        self.accepted += commit.num_accepted
        self.late += commit.num_late
        self.stale += commit.num_stale
        self.steps += commit.num_steps


def check_reach(*, draft_length: int, window: int) -> None:
    """Check how far ahead the shell wants to draft.

    Raises:
        LocalProtocolError: so far nobody can.
    """
    if draft_length < 0 or window < 1:
        raise LocalProtocolError(
            f"draft_length, window: got {draft_length}, {window}, expected at least 0 and 1"
        )
