"""The timeline as a value: spans on lanes, what was committed, what led to what. Pure.

Times are seconds from the session's start. Positions count the output, from 0.
"""

from dataclasses import dataclass, field
from enum import StrEnum

Detail = str | int | float | bool | tuple[int, ...]


class Lane(StrEnum):
    """Where something happens, from top to bottom."""

    DRAFT = "edge draft"
    UPLINK = "uplink"
    QUEUE = "cloud queue"
    VERIFY = "cloud verify"
    DOWNLINK = "downlink"
    TEXT = "text"


class Fate(StrEnum):
    """What became of a proposal's tokens, all in all."""

    NONE = "no drafts"
    ACCEPTED = "all accepted"
    PARTLY = "partly accepted"
    LATE = "right, but late"
    WASTED = "wrong, or built on a wrong one"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Something that takes time."""

    lane: Lane
    row: int = 0
    """On a lane where several things go on at once each of them has a row; on one row nothing overlaps."""
    begin_s: float
    end_s: float
    name: str
    fate: Fate = Fate.NONE
    details: tuple[tuple[str, Detail], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """Tokens that became text at the edge at one moment."""

    at_s: float
    position: int
    accepted: tuple[bool, ...]
    """For each token: an accepted draft, else the target's own."""
    rejected: tuple[int, ...] = ()
    """Positions at which drafts were compared and refused."""
    tokens: tuple[int, ...] = ()
    """Ids, if they are to be shown."""

    @property
    def end(self) -> int:
        """Length of the text with it."""
        return self.position + len(self.accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One span led to another; indices into the timeline's spans."""

    source: int
    target: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Happening:
    """Something worth a line through all lanes: a stream was lost, the verifier drains."""

    at_s: float
    name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """How the text of another way of doing the same grew."""

    name: str
    times_s: tuple[float, ...]
    """When each token was there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """Sums over a session."""

    tokens: int = 0
    accepted: int = 0
    judged: int = 0
    drafted: int = 0
    """Tokens sent, each once per stream."""
    steps: int = 0
    duration_s: float = 0.0
    """To the last token."""
    first_token_s: float = 0.0
    rtt_s: float = 0.0
    """Median of what was measured; 0 if nothing was."""

    @property
    def tokens_per_s(self) -> float:
        """From the start."""
        return self.tokens / self.duration_s if self.duration_s else 0.0

    @property
    def acceptance_probability(self) -> float:
        """Accepted / judged."""
        return self.accepted / self.judged if self.judged else 0.0

    @property
    def waste(self) -> float:
        """Part of the drafted tokens sent that did not become text as drafts."""
        return 1 - self.accepted / self.drafted if self.drafted else 0.0

    def sentence(self) -> str:
        """Return them in one line."""
        parts = [
            f"{self.tokens} tokens in {self.duration_s * 1000:.0f} ms: {self.tokens_per_s:.1f} tokens/s"
        ]
        if self.rtt_s:
            parts.append(f"RTT {self.rtt_s * 1000:.0f} ms")
        if self.drafted:
            parts.append(
                f"acceptance {self.acceptance_probability:.0%} ({self.accepted} of {self.judged} judged)"
            )
            parts.append(f"waste {self.waste:.0%} of {self.drafted} drafted")
        parts.append(f"{self.steps} steps of the target")
        return ", ".join(parts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeline:
    """One session."""

    title: str
    spans: tuple[Span, ...]
    commits: tuple[Committed, ...]
    flows: tuple[Flow, ...] = ()
    happenings: tuple[Happening, ...] = ()
    figures: Figures = field(default_factory=Figures)
    notes: tuple[str, ...] = ()
    """What a reader must know: what is inferred, what is missing."""
    reference: Reference | None = None

    @property
    def end_s(self) -> float:
        """When the last thing ended."""
        ends = [span.end_s for span in self.spans]
        ends += [commit.at_s for commit in self.commits]
        ends += [happening.at_s for happening in self.happenings]
        return max(ends, default=0.0)

    def num_rows(self, lane: Lane) -> int:
        """Return how many rows a lane has."""
        return max((span.row for span in self.spans if span.lane is lane), default=0) + 1
