"""What a timeline comes to: its figures, and what a reader must know. Pure."""

from collections.abc import Sequence
from statistics import median

from paceline.timeline.facts import Downward, Facts, RoundTrip, Upward
from paceline.timeline.placing import is_one_way_known
from paceline.timeline.value import Committed, Figures, Lane, Span

INFERRED = (
    "One-way times are not measured: both ways are drawn as half of the last measured round trip. "
    "Queue and verify last as long as the verifier says; where they stand follows from that."
)
UNKNOWN_RTT = "No round trip was measured: both ways are drawn as if they took no time."


def figures_of(
    facts: Facts, *, told: Sequence[Downward], spans: Sequence[Span], commits: Sequence[Committed]
) -> Figures:
    """Return the sums.

    Args:
        facts: all of the session.
        told: the commits that the edge took.
        spans: made from them.
        commits: the same.
    """
    sent = [fact for fact in facts.facts if isinstance(fact, Upward)]
    return Figures(
        tokens=sum(len(commit.accepted) for commit in commits),
        accepted=sum(sum(commit.accepted) for commit in commits),
        judged=sum(fact.num_judged for fact in told),
        drafted=sum(len(fact.tokens) for fact in sent),
        steps=sum(fact.num_steps for fact in told),
        duration_s=commits[-1].at_s if commits else 0.0,
        first_token_s=commits[0].at_s if commits else 0.0,
        rtt_s=_rtt_s(facts, spans),
    )


def notes_of(facts: Facts) -> tuple[str, ...]:
    """Return what a reader must know: what is inferred, what is missing."""
    notes = []
    is_known = is_one_way_known(facts)
    if not is_known:
        has_trip = any(isinstance(fact, RoundTrip) for fact in facts.facts)
        notes.append(INFERRED if has_trip else UNKNOWN_RTT)
    lost = sum(isinstance(fact, Upward) and fact.arrives_s is None for fact in facts.facts)
    if is_known and lost:
        notes.append(f"{lost} messages to the verifier were lost with their connection.")
    if facts.num_left_out:
        notes.append(f"The recording was full: the last {facts.num_left_out} facts are missing.")
    return tuple(notes)


def _rtt_s(facts: Facts, spans: Sequence[Span]) -> float:
    """Return the median of what was measured, or of what messages took both ways."""
    if is_one_way_known(facts):
        there, back = (
            [span.end_s - span.begin_s for span in spans if span.lane is lane]
            for lane in (Lane.UPLINK, Lane.DOWNLINK)
        )
        return median(there or [0.0]) + median(back or [0.0])
    trips = [fact.rtt_s for fact in facts.facts if isinstance(fact, RoundTrip)]
    return median(trips) if trips else 0.0
