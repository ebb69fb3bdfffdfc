"""What is counted while a fleet runs: plain sums and one record for each answer, so that processes can hand them on."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import NamedTuple

BIN_S = 5.0
"""Width of the bins over time."""


class Answered(NamedTuple):
    """One answer that ended."""

    kind: int
    """Which of the fleet's networks."""
    edge: int
    """Number of the edge in the fleet."""
    asked_s: float
    first_token_s: float
    """From the question to the first token."""
    lasted_s: float
    """From the question to the last token."""
    tokens: int
    queued_s: float
    """From the arrival of the question that found a seat to the beginning of its first step."""
    served_s: float
    """From when the verifier began with it to when its last token was there."""


@dataclass(slots=True, kw_only=True)
class Drafts:
    """What became of drafted tokens, summed over answers."""

    drafted: int = 0
    """Sent."""
    accepted: int = 0
    rejected: int = 0
    """Compared, and not equal to the target's token."""
    behind: int = 0
    """Hung on a rejected one: rows perhaps, but never judged."""
    late: int = 0
    """Arrived when the same token was committed already."""
    stale: int = 0
    """Arrived when another token was committed already."""
    ended: int = 0
    """Left over, or still under way, when the text ended."""
    unsent: int = 0
    """Drafted, and overtaken by a commit before they could be sent."""

    def add(self, other: Drafts) -> None:
        """Add the sums of others."""
        for item in fields(Drafts):
            name = item.name
            setattr(self, name, getattr(self, name) + getattr(other, name))

    @property
    def accounted(self) -> int:
        """Sent tokens whose fate is known; `drafted` in the end."""
        return self.accepted + self.rejected + self.behind + self.late + self.stale + self.ended


class Stepped(NamedTuple):
    """One step."""

    ends_s: float
    num_tokens: int
    """Committed."""
    num_served: int
    """Sessions that got tokens."""
    num_roots: int
    num_draft_rows: int
    num_prefill_rows: int
    waited_s: float
    """Sum over those served: from the step before, or since they were let in."""
    num_bytes: int
    """Of what goes down."""


@dataclass(slots=True, kw_only=True)
class Bin:
    """A few seconds of verifiers."""

    busy_s: float = 0.0
    sessions_s: float = 0.0
    """Sum over sessions of how long they were there."""
    tokens: int = 0


@dataclass(slots=True, kw_only=True)
class Tally:
    """Sums of one verifier and its edges over the measured time; what ended in it counts."""

    begins_s: float
    ends_s: float
    answers: list[Answered] = field(default_factory=list)
    drafts: Drafts = field(default_factory=Drafts)
    """Of these answers."""
    bytes_up: int = 0
    """The same."""
    bins: list[Bin] = field(default_factory=list)
    """From the beginning on, the time before the measured one included."""
    busy_s: float = 0.0
    sessions_s: float = 0.0
    num_steps: int = 0
    num_served: int = 0
    tokens: int = 0
    root_rows: int = 0
    draft_rows: int = 0
    prefill_rows: int = 0
    waited_s: float = 0.0
    bytes_down: int = 0
    most_rows: int = 0
    """Of a step."""
    most_sessions: int = 0
    num_refused: int = 0
    num_given_up: int = 0
    """Questions that found no seat for so long that the client gave up."""

    def worked(self, from_s: float, to_s: float, *, num_sessions: int) -> None:
        """A step was made in this time."""
        found = self._bin(from_s)
        found.busy_s += to_s - from_s
        found.sessions_s += (to_s - from_s) * num_sessions
        inside_s = self._inside_s(from_s, to_s)
        self.busy_s += inside_s
        self.sessions_s += inside_s * num_sessions

    def waited(self, from_s: float, to_s: float, *, num_sessions: int) -> None:
        """Nothing was computed in this time."""
        if num_sessions:
            self._bin(from_s).sessions_s += (to_s - from_s) * num_sessions
            self.sessions_s += self._inside_s(from_s, to_s) * num_sessions

    def stepped(self, step: Stepped) -> None:
        """Count a step."""
        self._bin(step.ends_s).tokens += step.num_tokens
        if not self._counts(step.ends_s):
            return
        self.num_steps += 1
        self.num_served += step.num_served
        self.tokens += step.num_tokens
        self.root_rows += step.num_roots
        self.draft_rows += step.num_draft_rows
        self.prefill_rows += step.num_prefill_rows
        self.waited_s += step.waited_s
        self.bytes_down += step.num_bytes
        rows = step.num_roots + step.num_draft_rows + step.num_prefill_rows
        self.most_rows = max(self.most_rows, rows)

    def answered(self, answer: Answered, *, drafts: Drafts, num_bytes: int) -> None:
        """Count an answer that is complete."""
        if self._counts(answer.asked_s + answer.lasted_s):
            self.answers.append(answer)
            self.drafts.add(drafts)
            self.bytes_up += num_bytes

    def refused(self, at_s: float) -> None:
        """Somebody found no seat."""
        self.num_refused += self._counts(at_s)

    def given_up(self, at_s: float) -> None:
        """Somebody found none for too long."""
        self.num_given_up += self._counts(at_s)

    def _counts(self, at_s: float) -> bool:
        return self.begins_s <= at_s <= self.ends_s

    def _inside_s(self, from_s: float, to_s: float) -> float:
        return max(0.0, min(to_s, self.ends_s) - max(from_s, self.begins_s))

    def _bin(self, at_s: float) -> Bin:
        index = int(at_s // BIN_S)
        while len(self.bins) <= index:
            self.bins.append(Bin())
        return self.bins[index]
