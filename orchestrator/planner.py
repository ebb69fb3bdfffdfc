"""What each edge should do, from what the fleet knows. Pure: a fleet goes in, the policies that change come out.

An edge's policy is decided anew when it has told something since the last decision, when an operator orders it, or when the verifier it
was sent to takes no sessions any more; never otherwise, so no policy moves without new evidence. One that does not arrive is sent again,
under the next number. The length is chosen by
`paceline.control.drafting`, the same function that the edge's own controller uses; the verifiers by `orchestrator.placement`.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from orchestrator.fleet import SILENT_INTERVALS, Fleet
from orchestrator.members import Edge, MemberState
from orchestrator.placement import Placement, place
from paceline.control.drafting import (
    Bounds,
    Decision,
    Drafting,
    choose,
    measured_from,
    window_for,
)
from paceline.control.messages import (
    MAX_DRAFT_LENGTH,
    MAX_EXPLANATION_BYTES,
    MAX_WINDOW,
    EdgeGauges,
    EdgePolicy,
)

BOUNDS = Bounds(least=1, most=64, window_most=128)
"""What the planner may order. 64 tokens cover 600 ms at 10 ms per token; more would be worth its rows at an acceptance above 96 % only."""

PIN_BOUNDS = Bounds(least=0, most=MAX_DRAFT_LENGTH, window_most=MAX_WINDOW)
"""What an operator may order: whatever a policy can say."""

RESEND_S = 5.0
"""An edge that so long after a decision does not tell that it has the policy has not got it: it is sent again."""

REVISION_MOST = 2**53
"""What claims a higher one is no policy of ours; a count never gets there, and our next must still fit the wire."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A policy to publish."""

    edge_id: str
    policy: EdgePolicy
    sentence: str
    """Why; the same as in the policy."""


def plan(fleet: Fleet, now_s: float, *, bounds: Bounds = BOUNDS) -> tuple[Plan, ...]:
    """Return the policies that change. Fold a `Decided` for each that is published, then a `Considered`.

    Args:
        fleet: what is known.
        now_s: the time; policies of edges unheard of for long are left alone, whatever the last tick said.
        bounds: what a draft length and a window may be.
    """
    fresh = {
        edge_id
        for edge_id, edge in fleet.edges.items()
        if has_news(fleet, edge)
        and now_s - edge.telemetry_at_s <= SILENT_INTERVALS * fleet.settings.edge_interval_s
    }
    ordered = {edge_id for edge_id, edge in fleet.edges.items() if _pin_differs(edge)}
    placements = place(fleet, fresh | ordered)
    plans = []
    for edge_id, placement in placements.items():
        edge = fleet.edges[edge_id]
        policy = _policy(edge, placement, bounds, is_fresh=edge_id in fresh)
        if policy is not None:
            plans.append(Plan(edge_id=edge_id, policy=policy, sentence=policy.explanation))
    return tuple(plans)


def explain(fleet: Fleet, edge_id: str, *, now_s: float, bounds: Bounds = BOUNDS) -> str:
    """Return why the edge does what it does, and why that would change now or not; some lines for people."""
    edge = fleet.edges.get(edge_id)
    if edge is None:
        return f"edge {edge_id!r} is not known: it has told nothing since this orchestrator started"
    lines = [_state(edge, now_s)]
    lines.append(_told(edge))
    lines.append(_decided(edge, now_s))
    lines.append(_measured(edge, now_s))
    if edge.pinned is not None:
        lines.append(f"an operator has fixed its draft length at {edge.pinned}")
    lines.append(f"now: {_now(fleet, edge, now_s, bounds)}")
    return "\n".join(line for line in lines if line)


def _state(edge: Edge, now_s: float) -> str:
    if edge.presence is None:
        return f"edge {edge.edge_id} is {edge.state}: it has told nothing since this orchestrator started"
    return f"edge {edge.edge_id} is {edge.state}, for {_ago(now_s - edge.changed_at_s)}"


def has_news(fleet: Fleet, edge: Edge) -> bool:
    """Return whether the edge has told something that no plan has seen yet."""
    return (
        edge.evidence is not None
        and edge.evidence != edge.decided_on
        and edge.telemetry_at_s >= fleet.considered_at_s
    )


def _pin_differs(edge: Edge) -> bool:
    if edge.pinned is None:
        return False
    return edge.policy is None or edge.policy.draft_length != edge.pinned


def _policy(
    edge: Edge, placement: Placement, bounds: Bounds, *, is_fresh: bool
) -> EdgePolicy | None:
    """Return the edge's next policy, or None if it would say the same."""
    drafting, why = _draft(edge, bounds, is_fresh=is_fresh)
    before = edge.policy
    if before is None:
        if not placement.verifiers and edge.pinned is None and _is_unknown(edge):
            return None  # there is nothing to tell yet
    elif (
        _followed(edge) <= before.revision
        and not _is_lost(edge, before)
        and before.draft_length == drafting.draft_length
        and before.window == drafting.window
        and before.verifiers == placement.verifiers
    ):
        return None
    return EdgePolicy(
        revision=1 + max(0 if before is None else before.revision, _followed(edge)),
        draft_length=drafting.draft_length,
        window=drafting.window,
        verifiers=placement.verifiers,
        explanation=_cut(f"{_sentence(why)} | {placement.sentence}"),
    )


def _draft(edge: Edge, bounds: Bounds, *, is_fresh: bool) -> tuple[Drafting, Decision | str]:
    """Return how far the edge should draft, and why."""
    gauges = edge.gauges
    assert gauges is not None, "it is placed, so it has told"
    if edge.pinned is not None:
        length = min(max(0, edge.pinned), MAX_DRAFT_LENGTH)
        drafting = Drafting(draft_length=length, window=window_for(length, PIN_BOUNDS))
        return drafting, f"draft {length} ahead: fixed by an operator"
    if not is_fresh and edge.policy is not None:
        same = Drafting(draft_length=edge.policy.draft_length, window=edge.policy.window)
        return same, f"draft {same.draft_length} ahead: kept, nothing new was measured"
    current = _current(edge, gauges)
    decision = choose(measured_from(gauges), current=current, bounds=bounds)
    return decision.drafting, decision


def _followed(edge: Edge) -> int:
    """Return the revision that the edge follows.

    It is above our own if the broker has lost what it retained while we were away: an edge ignores what is older than that.
    """
    revision = edge.gauges.policy_revision if edge.gauges is not None else 0
    return revision if revision < REVISION_MOST else 0


def _is_lost(edge: Edge, policy: EdgePolicy) -> bool:
    """Whether the edge had the time to take the policy up, and tells another one, or none.

    Somebody has cleared or overwritten it at the broker, or the broker has shed it.
    """
    since_s = edge.changed_at_s if edge.decided_at_s is None else edge.decided_at_s
    return _followed(edge) != policy.revision and edge.telemetry_at_s - since_s >= RESEND_S


def _sentence(why: Decision | str) -> str:
    return why if isinstance(why, str) else why.sentence


def _is_unknown(edge: Edge) -> bool:
    gauges = edge.gauges
    return gauges is None or not gauges.rtt_s or not gauges.draft_s


def _current(edge: Edge, gauges: EdgeGauges) -> Drafting:
    """Return what the next decision moves from.

    What the edge was told; but what it does if it decides by itself, as it does while no orchestrator is there: a step
    from an old policy would throw away what it has found since.
    """
    if edge.policy is not None and (gauges.policy_revision or not gauges.draft_length):
        return Drafting(draft_length=edge.policy.draft_length, window=edge.policy.window)
    return Drafting(draft_length=gauges.draft_length, window=max(1, gauges.window))


def _told(edge: Edge) -> str:
    policy = edge.policy
    if policy is None:
        return "it has no policy: it drafts as it decides by itself"
    where = f", verifiers {', '.join(policy.verifiers)}" if policy.verifiers else ""
    return (
        f"policy {policy.revision}: draft length {policy.draft_length}, window {policy.window}{where}\n"
        f"  because: {policy.explanation or 'it was not told'}"
    )


def _decided(edge: Edge, now_s: float) -> str:
    if edge.policy is None:
        return ""
    gauges = edge.gauges
    follows = ""
    if gauges is not None and gauges.policy_revision != edge.policy.revision:
        what = f"policy {gauges.policy_revision}" if gauges.policy_revision else "no policy"
        follows = f"; its last telemetry follows {what} and drafts {gauges.draft_length} ahead"
    if edge.decided_at_s is None:
        return f"  decided before this orchestrator started{follows}"
    on = f" on telemetry {edge.decided_on[1]}" if edge.decided_on is not None else ""
    return f"  decided {_ago(now_s - edge.decided_at_s)} ago{on}{follows}"


def _measured(edge: Edge, now_s: float) -> str:
    gauges, telemetry = edge.gauges, edge.telemetry
    if gauges is None or telemetry is None:
        return "it has measured nothing yet"
    return (
        f"telemetry {telemetry.sequence}, {_ago(now_s - edge.telemetry_at_s)} ago: round trip {_ms(gauges.rtt_s)}, "
        f"jitter {_ms(gauges.rtt_jitter_s)}, {_ms(gauges.draft_s)} per drafted token, step {_ms(gauges.step_s)}, "
        f"acceptance {gauges.acceptance_probability:.0%} of {gauges.num_judged} judged, "
        f"{gauges.num_generations} generation{'' if gauges.num_generations == 1 else 's'} at {gauges.verifier or 'no verifier'}"
    )


def _now(fleet: Fleet, edge: Edge, now_s: float, bounds: Bounds) -> str:
    """Return what a plan made now would do with it, and why."""
    if edge.telemetry is None:
        return "nothing to decide on before its first telemetry"
    if edge.state is not MemberState.ONLINE:
        return f"its policy stays while it is {edge.state}"
    changes: Mapping[str, Plan] = {item.edge_id: item for item in plan(fleet, now_s, bounds=bounds)}
    if edge.edge_id in changes:
        policy = changes[edge.edge_id].policy
        return f"it will get policy {policy.revision}: {policy.explanation}"
    _, why = _draft(edge, bounds, is_fresh=True)
    placement = place(fleet, {edge.edge_id})[edge.edge_id]
    what = "no change"
    if edge.evidence == edge.decided_on:
        what = "no change before its next telemetry; if that tells the same"
    return f"{what}: {_sentence(why)} | {placement.sentence}"


def _cut(text: str) -> str:
    """Return the text cut to what a policy may carry; addresses may hold anything, so bytes are counted."""
    raw = text.encode()
    if len(raw) <= MAX_EXPLANATION_BYTES:
        return text
    return raw[: MAX_EXPLANATION_BYTES - 3].decode(errors="ignore") + "..."


def _ms(seconds: float) -> str:
    if not seconds:
        return "not known"
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2g} ms"


def _ago(seconds: float) -> str:
    seconds = max(0.0, seconds)
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
