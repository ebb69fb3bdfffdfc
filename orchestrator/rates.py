"""What members did lately, and the rows of history: sums are subtracted and divided once, never two ratios averaged. Pure."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from orchestrator.fleet import Fleet
from orchestrator.history_file import EdgeSample, VerifierSample
from orchestrator.members import Edge, MemberState, Sample
from paceline.control.messages import EdgeGauges, VerifierStatus

SPAN_S = 14.0
"""Lately: three messages at the usual interval of 5 s. The planner looks back farther, a page should show what is going on."""

STALE_S = 20.0
"""An edge that has told nothing for so long is not counted as doing anything."""

SAMPLE_EVERY_S = 4.5
"""Least time between two rows of history; a little below the interval of telemetry, whose arrival strays."""

MAX_READINGS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was done in an interval. Zero if nothing is known of one."""

    interval_s: float = 0.0
    committed: int = 0
    drafted: int = 0
    judged: int = 0
    accepted: int = 0
    wasted: int = 0
    """Drafted tokens that came to nothing: rejected, late or stale."""

    @property
    def tokens_per_s(self) -> float | None:
        """Committed tokens over the interval; None if there is none."""
        return self.committed / self.interval_s if self.interval_s > 0.0 else None

    @property
    def acceptance_probability(self) -> float | None:
        """Accepted / judged; None if nothing was judged."""
        return min(1.0, self.accepted / self.judged) if self.judged > 0 else None

    @property
    def waste(self) -> float | None:
        """Wasted / drafted; None if nothing was drafted. A token may be drafted before the interval and wasted in it."""
        return min(1.0, self.wasted / self.drafted) if self.drafted > 0 else None


NOTHING = Done()


def lately(edge: Edge, *, now_s: float) -> Done:
    """Return what an edge did lately; nothing if it has been silent."""
    samples = edge.samples
    if (
        len(samples) < 2
        or now_s - samples[-1].at_s > STALE_S
        or edge.state is not MemberState.ONLINE
    ):
        return NOTHING
    start = len(samples) - 2
    while start > 0 and samples[-1].at_s - samples[start - 1].at_s <= SPAN_S:
        start -= 1
    return between(samples[start], samples[-1])


def between(earlier: Sample, later: Sample) -> Done:
    """Return what happened between two samples of one incarnation."""
    counters = later.counters.minus(earlier.counters)
    rejected = counters.judged - counters.accepted
    return Done(
        interval_s=later.at_s - earlier.at_s,
        committed=counters.committed,
        drafted=counters.drafted,
        judged=counters.judged,
        accepted=counters.accepted,
        wasted=max(0, rejected + counters.late + counters.stale),
    )


def total(parts: Iterable[Done]) -> Done:
    """Return the sums of several edges. Intervals are not summed: rates are those of the parts, added up."""
    committed = drafted = judged = accepted = wasted = 0
    for part in parts:
        committed += part.committed
        drafted += part.drafted
        judged += part.judged
        accepted += part.accepted
        wasted += part.wasted
    return Done(
        committed=committed, drafted=drafted, judged=judged, accepted=accepted, wasted=wasted
    )


class EdgeRecorder:
    """Turns what the fleet knows into rows of history: one per edge and message, not more often than SAMPLE_EVERY_S."""

    def __init__(self) -> None:
        self._recorded: dict[str, tuple[int, Sample]] = {}

    def rows(self, fleet: Fleet, *, unix_s: float, now_s: float) -> Iterator[EdgeSample]:
        """Give the rows that are due.

        Args:
            fleet: as it is now.
            unix_s: now, as seconds since 1970.
            now_s: the same by the clock of the fleet's samples.
        """
        for gone in self._recorded.keys() - fleet.edges.keys():
            del self._recorded[gone]
        for edge_id, edge in fleet.edges.items():
            if edge.telemetry is None or not edge.samples:
                continue
            newest, incarnation = edge.samples[-1], edge.telemetry.incarnation
            known = self._recorded.get(edge_id)
            if known is not None and newest.at_s - known[1].at_s < SAMPLE_EVERY_S:
                continue
            self._recorded[edge_id] = (incarnation, newest)
            done = NOTHING
            # After a restart there is nothing to subtract; after a long silence the sums say what was done, but not when.
            if (
                known is not None
                and known[0] == incarnation
                and newest.at_s - known[1].at_s <= STALE_S
            ):
                done = between(known[1], newest)
            at_s = unix_s - (now_s - newest.at_s)
            yield _row(edge_id, edge.telemetry.gauges, done=done, at_s=at_s)


class VerifierMeter:
    """Follows one verifier's committed tokens."""

    def __init__(self) -> None:
        self._recent: deque[tuple[float, int, int]] = deque(maxlen=MAX_READINGS)

    def add(self, status: VerifierStatus, *, at_s: float) -> None:
        """Take in the status that was heard at a moment; one that is known already changes nothing."""
        committed = status.counters.committed
        if self._recent:
            last_s, incarnation, before = self._recent[-1]
            if last_s == at_s:
                return
            if incarnation != status.incarnation or before > committed:
                self._recent.clear()
        self._recent.append((at_s, status.incarnation, committed))
        while len(self._recent) > 2 and at_s - self._recent[0][0] > SPAN_S:
            self._recent.popleft()

    def tokens_per_s(self, *, now_s: float) -> float | None:
        """Return committed tokens per second lately; None if nothing is known."""
        if len(self._recent) < 2 or now_s - self._recent[-1][0] > STALE_S:
            return None
        (start_s, _, before), (end_s, _, after) = self._recent[0], self._recent[-1]
        return (after - before) / (end_s - start_s)


def verifier_rows(fleet: Fleet, *, unix_s: float) -> Iterator[VerifierSample]:
    """Give a row of history for every verifier that is there."""
    for verifier_id, verifier in fleet.verifiers.items():
        status = verifier.status
        if verifier.state is MemberState.ONLINE:
            yield VerifierSample(
                at_s=unix_s,
                verifier=verifier_id,
                num_sessions=status.num_sessions,
                max_sessions=status.max_sessions,
                step_s=status.step_s,
                queue_s=status.queue_s,
                busy=status.busy,
            )


def _row(edge_id: str, gauges: EdgeGauges, *, done: Done, at_s: float) -> EdgeSample:
    return EdgeSample(
        at_s=at_s,
        edge=edge_id,
        interval_s=done.interval_s,
        rtt_s=gauges.rtt_s,
        jitter_s=gauges.rtt_jitter_s,
        draft_length=gauges.draft_length,
        window=gauges.window,
        committed=done.committed,
        drafted=done.drafted,
        judged=done.judged,
        accepted=done.accepted,
        wasted=done.wasted,
        verifier=gauges.verifier,
    )
