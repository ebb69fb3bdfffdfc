"""Who belongs to the fleet: what the last messages of an edge and of a verifier say, and its recent past."""

from dataclasses import dataclass, fields, replace
from enum import StrEnum
from operator import attrgetter, lt

from paceline.control.messages import (
    EdgeCounters,
    EdgeGauges,
    EdgePolicy,
    EdgeTelemetry,
    Presence,
    VerifierStatus,
)

Evidence = tuple[int, int]
"""Incarnation and sequence of a message: which telemetry a decision rests on."""


PAST_INCARNATIONS = 4
"""Ended incarnations remembered per member."""

SAMPLES_S = 30.0
"""How far back samples reach, in seconds."""

SAMPLES_MOST = 8
"""Most samples kept for that, whatever the pace of an edge."""

_counts = attrgetter(*(item.name for item in fields(EdgeCounters)))


class MemberState(StrEnum):
    """How an edge or a verifier is."""

    ONLINE = "online"
    SILENT = "silent"
    """It should be there, but tells nothing."""
    OFFLINE = "offline"
    """It said so, or its broker did; or only its retained policy is known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """Counters, and when they came."""

    at_s: float
    counters: EdgeCounters


@dataclass(frozen=True, slots=True, kw_only=True)
class Edge:
    """What is known of one edge. Times are seconds of the orchestrator's clock."""

    edge_id: str
    state: MemberState = MemberState.OFFLINE
    changed_at_s: float = 0.0
    """When `state` changed last."""
    presence: Presence | None = None
    heard_at_s: float = 0.0
    """When it was heard of last; forgetting starts with the smallest."""
    telemetry: EdgeTelemetry | None = None
    telemetry_at_s: float = 0.0
    samples: tuple[Sample, ...] = ()
    """Counters of the recent past, the oldest first, all of one incarnation."""
    past: tuple[int, ...] = ()
    """Incarnations that are over: what comes from them is late."""
    num_backwards: int = 0
    """Messages in a row whose counters were below earlier ones."""
    policy: EdgePolicy | None = None
    """What it was told last."""
    decided_at_s: float | None = None
    """When that was decided; None if an orchestrator before this one did."""
    decided_on: Evidence | None = None
    """The telemetry that it was decided on."""
    pinned: int | None = None
    """Draft length fixed by an operator; None if there is no such order."""

    @property
    def incarnation(self) -> int | None:
        """The program that runs now, as far as is known."""
        if self.presence is not None:
            return self.presence.incarnation
        return self.telemetry.incarnation if self.telemetry is not None else None

    @property
    def gauges(self) -> EdgeGauges | None:
        """How it is doing; None before its first telemetry."""
        return self.telemetry.gauges if self.telemetry is not None else None

    @property
    def evidence(self) -> Evidence | None:
        """Which telemetry is the latest."""
        if self.telemetry is None:
            return None
        return self.telemetry.incarnation, self.telemetry.sequence

    def moved(self, state: MemberState, at_s: float) -> "Edge":
        """Return the edge in that state."""
        return self if self.state is state else replace(self, state=state, changed_at_s=at_s)

    def restarted(self) -> "Edge":
        """Return the edge with what was measured by a program that is over let go; policy and pin stay."""
        over = self.incarnation
        past = self.past if over is None else (over, *self.past)[:PAST_INCARNATIONS]
        return replace(self, presence=None, telemetry=None, samples=(), past=past, num_backwards=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifier:
    """What is known of one verifier."""

    verifier_id: str
    status: VerifierStatus
    """The last one; once it is offline, the last with content, `online` taken back."""
    state: MemberState
    changed_at_s: float
    heard_at_s: float
    past: tuple[int, ...] = ()

    @property
    def address(self) -> str:
        """Where edges reach it."""
        return self.status.address

    @property
    def is_usable(self) -> bool:
        """It takes sessions."""
        return (
            self.state is MemberState.ONLINE
            and not self.status.draining
            and bool(self.status.address)
        )


def has_fallen(now: EdgeCounters, before: EdgeCounters) -> bool:
    """Return whether any counter is below an earlier one."""
    return any(map(lt, _counts(now), _counts(before)))


def sampled(samples: tuple[Sample, ...], new: Sample) -> tuple[Sample, ...]:
    """Return the samples with a new one; the oldest ones go when they are too old."""
    kept = (*samples, new)
    start = 0
    # The last one before the span stays: it is where the span begins.
    while len(kept) - start > 2 and kept[start + 1].at_s <= new.at_s - SAMPLES_S:
        start += 1
    if len(kept) - start <= SAMPLES_MOST:
        return kept[start:]
    # Of an edge that tells often every second one goes, and the newest stays: detail is lost, not the span.
    return (*kept[start:-1:2], new)
