"""Which verifiers each edge should use, and in which order. Pure and deterministic.

Fit
---
A verifier fits an edge if it takes sessions and has the same tokenizer. Edges are kept on one target: if the verifier in use, or else the
cheapest, has certain weights, only verifiers with the same weights, type and quantisation are named. Another target would be
another text. An edge on a verifier that the fleet does not know is left there, for the same reason.

Cost
----
What a token waits for between edge and verifier, in seconds:

    cost = rtt + queue + step * (1 + busy) / room        room = 1 - sessions / max_sessions, at least `LEAST_ROOM`

A draft waits for the step under way, if there is one, and for its own. Steps become longer as more sessions share them; how much is
not known before, so the room that is left stands for it: with half of the sessions taken a step counts double.
An unmeasured verifier has no cost: it is named behind the others, so that the edge comes to know and measure it; one that did not
answer the edge comes last.

Calm
----
An edge moves only for a gain of `GAIN` of its cost and at least `GAIN_S`. Edges are placed one after the other, and each counts where it
is placed at once: a fast verifier that stands empty gets as many as pay, not all. Sessions that were sent elsewhere but still run at
the old place count at the new one, or the next round would send more of them after the first.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from orchestrator.fleet import Fleet
from orchestrator.members import Edge, MemberState, Verifier
from paceline.control.messages import MAX_POLICY_VERIFIERS, EdgeTelemetry, VerifierStatus

GAIN = 0.2
"""Part of its cost that an edge must gain to move."""

GAIN_S = 0.005
"""And at least so much, in seconds: below that round trips measured within a building differ by noise."""

LEAST_ROOM = 0.05
"""Room that a full verifier is counted with, so that costs stay finite and full ones are still told apart."""

IDLE_SESSIONS = 0.1
"""What an edge without a generation counts where it is placed: it may start one."""

Target = tuple[bytes, bytes, str, str]
"""Tokenizer, weights, type, quantisation: what must be equal for the same text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """Where an edge should go."""

    verifiers: tuple[str, ...]
    """Addresses, the preferred one first; at most 16. Empty if none is known to fit."""
    is_urgent: bool
    """The verifier that the edge was told first no longer takes sessions."""
    sentence: str
    """One line for people."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Guest:
    """An edge that is placed."""

    edge_id: str
    telemetry: EdgeTelemetry
    before: tuple[str, ...]
    """What its policy names."""
    current: str
    """Where it was sent, or is; empty if nobody knows."""
    may_gain: bool

    @property
    def sessions(self) -> float:
        """What it counts where it is placed."""
        return float(self.telemetry.gauges.num_generations) or IDLE_SESSIONS

    @property
    def rtts(self) -> dict[str, float]:
        """Round trips in seconds; 0 for what did not answer."""
        rtts = {distance.address: distance.rtt_s for distance in self.telemetry.verifiers}
        gauges = self.telemetry.gauges
        # Measured by traffic, which is newer than a probe; without traffic it is older.
        if gauges.num_generations and gauges.rtt_s > 0.0 and gauges.verifier:
            rtts[gauges.verifier] = gauges.rtt_s
        return rtts


@dataclass(slots=True, kw_only=True)
class _Place:
    """A verifier and what was placed on it in this round."""

    address: str
    status: VerifierStatus
    target: Target
    sessions: float

    def cost_s(self, rtt_s: float, more: float) -> float:
        """Return the cost for an edge so far away that brings `more` sessions."""
        status = self.status
        room = max(LEAST_ROOM, 1.0 - (self.sessions + more) / max(1, status.max_sessions))
        return rtt_s + status.queue_s + status.step_s * (1.0 + status.busy) / room


def place(fleet: Fleet, movable: Collection[str]) -> dict[str, Placement]:
    """Return where the edges go that may move or must, of those that are online and have told their telemetry.

    Args:
        fleet: what is known.
        movable: edges that may go elsewhere for a gain. The others are placed only if the verifier that they were sent
            to takes no sessions any more; until then they count where they are.
    """
    targets = {
        verifier.address: target
        for _, verifier in sorted(fleet.verifiers.items())
        if (target := target_of(verifier)) is not None
    }
    places = {
        verifier.address: _Place(
            address=verifier.address,
            status=verifier.status,
            target=targets[verifier.address],
            sessions=float(verifier.status.num_sessions),
        )
        for _, verifier in sorted(fleet.verifiers.items())
        if verifier.is_usable and verifier.status.target is not None
    }
    guests = [
        _Guest(
            edge_id=edge.edge_id,
            telemetry=edge.telemetry,
            before=edge.policy.verifiers if edge.policy is not None else (),
            current=_sent_to(edge, edge.telemetry, targets),
            may_gain=edge.edge_id in movable,
        )
        for _, edge in sorted(fleet.edges.items())
        if edge.state is MemberState.ONLINE and edge.telemetry is not None
    ]
    for guest in guests:
        _count_where_sent(guest, places)
    # Whoever has lost its verifier chooses first; the others need not move.
    guests.sort(key=lambda guest: guest.current in places)
    return {
        guest.edge_id: _place(guest, places, targets)
        for guest in guests
        if guest.may_gain or _is_lost(guest, places, targets)
    }


def target_of(verifier: Verifier) -> Target | None:
    """Return what an edge must agree on with this verifier; None before it has told."""
    target = verifier.status.target
    if target is None:
        return None
    return (
        target.tokenizer_fingerprint,
        target.weights_fingerprint,
        target.dtype,
        target.quantisation,
    )


def _sent_to(edge: Edge, telemetry: EdgeTelemetry, known: Mapping[str, Target]) -> str:
    """Return where the edge was sent if the fleet knows that, or else where it is; empty if neither is known."""
    used = telemetry.gauges.verifier
    if edge.policy is None or not edge.policy.verifiers:
        return used
    sent = edge.policy.verifiers[0]
    return used if sent not in known and used in known else sent


def _count_where_sent(guest: _Guest, places: Mapping[str, _Place]) -> None:
    """Count an edge's sessions where it was sent; running ones are in the status of the verifier in use."""
    gauges = guest.telemetry.gauges
    used, sent = places.get(gauges.verifier), places.get(guest.current)
    runs = gauges.num_generations > 0
    if runs and used is sent:
        return
    if runs and used is not None:
        used.sessions = max(0.0, used.sessions - guest.sessions)
    if sent is not None:
        sent.sessions += guest.sessions


def _is_lost(guest: _Guest, places: Mapping[str, _Place], targets: Mapping[str, Target]) -> bool:
    """Whether the edge was sent to a verifier of the fleet that takes no sessions any more."""
    return bool(guest.before) and guest.current in targets and guest.current not in places


def _place(guest: _Guest, places: Mapping[str, _Place], targets: Mapping[str, Target]) -> Placement:
    current = guest.current
    if current and current not in targets:
        sentence = f"stays at {current}, which tells the fleet nothing: its text may be another"
        return Placement(verifiers=guest.before, is_urgent=False, sentence=sentence)
    tokenizer = guest.telemetry.tokenizer_fingerprint
    same = targets.get(current)
    if same is not None and same[0] != tokenizer:
        same = None
    fitting = [
        place
        for place in places.values()
        if place.target == same or (same is None and place.target[0] == tokenizer)
    ]
    if not fitting:
        sentence = "no verifier that fits takes sessions: stays as it is"
        return Placement(verifiers=guest.before, is_urgent=False, sentence=sentence)
    rtts = guest.rtts
    costs = {
        place.address: place.cost_s(rtt_s, 0.0 if place.address == current else guest.sessions)
        for place in fitting
        if (rtt_s := rtts.get(place.address, 0.0)) > 0.0
    }
    ranked = sorted(costs, key=lambda address: (costs[address], address))
    fits = any(place.address == current for place in fitting)
    is_there = fits and rtts.get(current) != 0.0
    first, reason = _choose(current, ranked, costs, is_there=is_there)
    unmeasured = [place.address for place in fitting if place.address not in costs]
    unmeasured.sort(key=lambda address: address in rtts)  # those that did not answer are in it
    first = first or unmeasured[0]
    same = places[first].target
    others = (address for address in (*ranked, *unmeasured) if address != first)
    verifiers = (first, *(address for address in others if places[address].target == same))
    verifiers = verifiers[:MAX_POLICY_VERIFIERS]
    if current != first:
        if current in places:
            places[current].sessions = max(0.0, places[current].sessions - guest.sessions)
        places[first].sessions += guest.sessions
    elif set(guest.before) == set(verifiers) and guest.before[0] == first:
        verifiers = guest.before  # nobody cares for the order of those not used
    return Placement(
        verifiers=verifiers,
        is_urgent=_is_lost(guest, places, targets),
        sentence=f"use {first}: {reason}",
    )


def _choose(
    current: str,
    ranked: list[str],
    costs: Mapping[str, float],
    *,
    is_there: bool,
) -> tuple[str, str]:
    """Return the verifier to use first, empty if nothing speaks for any, and why."""
    if is_there and current not in costs:
        return current, "kept, it is not measured yet"
    if not ranked:
        return "", "none is measured yet"
    best = ranked[0]
    cost = f"{_ms(costs[best])} for way, queue and steps"
    if not is_there:
        gone = f", {current} takes no sessions" if current else ""
        return best, f"{cost}, the least of {len(ranked)}{gone}"
    if best == current:
        return current, f"kept, {cost} is the least of {len(ranked)}"
    gain = costs[current] - costs[best]
    needed = max(GAIN * costs[current], GAIN_S)
    if gain < needed:
        saved = f"{_ms(gain)} of {_ms(costs[current])}"
        return current, f"kept, {best} would save {saved}, too little to move"
    return best, f"{cost}, {_ms(gain)} less than {current}"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.0f} ms" if seconds >= 0.01 else f"{seconds * 1e3:.2g} ms"
