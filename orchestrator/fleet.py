"""The fleet as one value, and how events change it. Pure: time arrives in the events.

Messages come over a broker, so any of them may be late, doubled, lost, or a lie:

 - A program draws its incarnation at random when it starts. What comes from one that is known to be over is late and ignored;
   so is the offer of a will that belongs to a program other than the one that runs.
 - Within an incarnation the sequence must grow; what does not is a copy or has been overtaken.
 - Counters must not fall. A message in which they do is ignored; after `BACKWARDS_MOST` in a row the edge is believed again, and
   its rates start anew: a liar hurts only its own figures, a mended one is not shut out.
 - Whoever is online and tells nothing for three intervals is silent.
 - Members are bounded. For a newcomer the one offline for longest is forgotten, or else the one silent for longest; if all are
   online the newcomer is refused.

Everything ignored is counted.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import assert_never

from orchestrator.members import (
    PAST_INCARNATIONS,
    Edge,
    MemberState,
    Sample,
    Verifier,
    has_fallen,
    sampled,
)
from paceline.control.messages import (
    EdgePolicy,
    EdgeTelemetry,
    Presence,
    VerifierStatus,
)

SILENT_INTERVALS = 3
"""Intervals without a message after which a member is silent."""

BACKWARDS_MOST = 3
"""Messages in a row with falling counters after which the lower ones are believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeSeen:
    """An edge's presence, or its will."""

    edge_id: str
    presence: Presence
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry:
    """What an edge measured."""

    edge_id: str
    telemetry: EdgeTelemetry
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class EdgeGone:
    """Somebody removed the edge for good."""

    edge_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSeen:
    """A verifier's status, or its will."""

    verifier_id: str
    status: VerifierStatus
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierGone:
    """Somebody removed the verifier for good."""

    verifier_id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicySeen:
    """A policy that stands at the broker: our own of an earlier life."""

    edge_id: str
    policy: EdgePolicy


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """We decided on a policy just now and publish it."""

    edge_id: str
    policy: EdgePolicy
    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Considered:
    """A plan was made of everything folded before; what did not change then need not be looked at again."""

    at_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Pinned:
    """An operator fixes the draft length of an edge; None lets it go."""

    edge_id: str
    draft_length: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """Time has passed."""

    at_s: float


Event = (
    EdgeSeen
    | Telemetry
    | EdgeGone
    | VerifierSeen
    | VerifierGone
    | PolicySeen
    | Decided
    | Considered
    | Pinned
    | Tick
)


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetSettings:
    """Bounds and expectations."""

    edges_most: int = 20_000
    """Most edges remembered. One takes about 8 KiB with its samples."""
    verifiers_most: int = 256
    edge_interval_s: float = 5.0
    """How often an edge tells its telemetry, in seconds."""
    verifier_interval_s: float = 2.0
    """How often a verifier tells its status, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ignored:
    """What was not taken in, since the orchestrator started."""

    stale: int = 0
    """From a program that is over."""
    repeated: int = 0
    """Telemetry or status that is no newer than what is known."""
    backwards: int = 0
    """Telemetry whose counters had fallen."""
    refused: int = 0
    """Messages of newcomers, the fleet being full."""
    forgotten: int = 0
    """Members that were offline and made room for others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fleet:
    """Everything known. The mappings are never changed: a fold makes new ones."""

    edges: Mapping[str, Edge] = field(default_factory=dict)
    verifiers: Mapping[str, Verifier] = field(default_factory=dict)
    ignored: Ignored = Ignored()
    settings: FleetSettings = FleetSettings()
    considered_at_s: float = -math.inf
    """When the last plan was made: telemetry older than that is no news."""


def fold(fleet: Fleet, events: Sequence[Event]) -> Fleet:
    """Return the fleet after the events, in their order. Copies the mappings once, not per event."""
    folding = _Folding(fleet)
    for event in events:
        folding.take(event)
    return folding.fleet()


class _Folding:
    """A fleet while it is folded: the only place where it changes."""

    def __init__(self, fleet: Fleet) -> None:
        self._settings = fleet.settings
        self._edges = dict(fleet.edges)
        self._verifiers = dict(fleet.verifiers)
        self._before = fleet.ignored
        self._considered_at_s = fleet.considered_at_s
        self._ignored = {item.name: 0 for item in fields(Ignored)}
        # Who may be forgotten, the one unheard of for longest last. Listed once per fold: a flood of newcomers must not sort anew.
        self._leaving_edges: list[str] | None = None
        self._leaving_verifiers: list[str] | None = None

    def fleet(self) -> Fleet:
        counts = {name: getattr(self._before, name) + n for name, n in self._ignored.items()}
        return Fleet(
            edges=self._edges,
            verifiers=self._verifiers,
            ignored=Ignored(**counts),
            settings=self._settings,
            considered_at_s=self._considered_at_s,
        )

    def take(self, event: Event) -> None:
        match event:
            case Telemetry():
                self._telemetry(event)
            case EdgeSeen():
                self._edge_seen(event)
            case VerifierSeen():
                self._verifier_seen(event)
            case EdgeGone():
                self._edges.pop(event.edge_id, None)
            case VerifierGone():
                self._verifiers.pop(event.verifier_id, None)
            case PolicySeen() | Decided():
                self._policy(event)
            case Considered():
                self._considered_at_s = event.at_s
            case Pinned():
                self._pinned(event)
            case Tick():
                self._tick(event.at_s)
            case _:
                assert_never(event)

    # --- edges

    def _edge(self, edge_id: str) -> Edge | None:
        """Return the edge, a new one if there is room, else None."""
        edge = self._edges.get(edge_id)
        if edge is not None:
            return edge
        if len(self._edges) >= self._settings.edges_most:
            if self._leaving_edges is None:
                self._leaving_edges = _leaving(self._edges)
            if not self._forget(self._edges, self._leaving_edges):
                return None
        return Edge(edge_id=edge_id)

    def _edge_seen(self, event: EdgeSeen) -> None:
        edge = self._edge(event.edge_id)
        if edge is None:
            return
        new, known = event.presence.incarnation, edge.incarnation
        if new in edge.past or (not event.presence.online and known not in {None, new}):
            self._ignored["stale"] += 1
            return
        if new != known:
            edge = edge.restarted()
        state = MemberState.ONLINE if event.presence.online else MemberState.OFFLINE
        edge = edge.moved(state, event.at_s)
        self._edges[event.edge_id] = replace(edge, presence=event.presence, heard_at_s=event.at_s)

    def _telemetry(self, event: Telemetry) -> None:
        edge = self._edge(event.edge_id)
        if edge is None:
            return
        telemetry, known = event.telemetry, edge.telemetry
        if telemetry.incarnation in edge.past:
            self._ignored["stale"] += 1
            return
        if telemetry.incarnation != edge.incarnation:
            # Its presence is still under way: this one tells as much.
            edge = edge.restarted()
            known = None
        elif known is not None and telemetry.sequence <= known.sequence:
            self._ignored["repeated"] += 1
            return
        samples = edge.samples
        if samples and has_fallen(telemetry.counters, samples[-1].counters):
            self._ignored["backwards"] += 1
            if edge.num_backwards + 1 < BACKWARDS_MOST:
                self._edges[event.edge_id] = replace(edge, num_backwards=edge.num_backwards + 1)
                return
            samples = ()
        presence = edge.presence or Presence(online=True, incarnation=telemetry.incarnation)
        edge = edge.moved(MemberState.ONLINE, event.at_s)
        self._edges[event.edge_id] = replace(
            edge,
            presence=presence if presence.online else replace(presence, online=True),
            heard_at_s=event.at_s,
            telemetry=telemetry,
            telemetry_at_s=event.at_s,
            samples=sampled(samples, Sample(at_s=event.at_s, counters=telemetry.counters)),
            num_backwards=0,
        )

    def _policy(self, event: PolicySeen | Decided) -> None:
        edge = self._edge(event.edge_id)
        if edge is None:
            return
        if edge.policy is not None and not _overrules(event.policy, edge.policy):
            return  # our own message comes back, or an older one does
        is_ours = isinstance(event, Decided)
        self._edges[event.edge_id] = replace(
            edge,
            policy=event.policy,
            decided_at_s=event.at_s if isinstance(event, Decided) else None,
            decided_on=edge.evidence if is_ours else None,
        )

    def _pinned(self, event: Pinned) -> None:
        edge = self._edge(event.edge_id)
        if edge is not None:
            self._edges[event.edge_id] = replace(edge, pinned=event.draft_length)

    # --- verifiers

    def _verifier_seen(self, event: VerifierSeen) -> None:
        known, status = self._verifiers.get(event.verifier_id), event.status
        if known is None:
            if len(self._verifiers) >= self._settings.verifiers_most:
                if self._leaving_verifiers is None:
                    self._leaving_verifiers = _leaving(self._verifiers)
                if not self._forget(self._verifiers, self._leaving_verifiers):
                    return
            past: tuple[int, ...] = ()
        else:
            running, past = known.status.incarnation, known.past
            is_other = status.incarnation != running
            if status.incarnation in past or (not status.online and is_other):
                self._ignored["stale"] += 1
                return
            if is_other:
                past = (running, *past)[:PAST_INCARNATIONS]
            elif status.online and status.sequence <= known.status.sequence:
                self._ignored["repeated"] += 1
                return
            if not status.online:
                status = replace(known.status, online=False)  # the will tells nothing else
        state = MemberState.ONLINE if status.online else MemberState.OFFLINE
        changed = known is None or known.state is not state
        self._verifiers[event.verifier_id] = Verifier(
            verifier_id=event.verifier_id,
            status=status,
            state=state,
            changed_at_s=event.at_s if changed or known is None else known.changed_at_s,
            heard_at_s=event.at_s,
            past=past,
        )

    # --- time and room

    def _tick(self, at_s: float) -> None:
        edges_s = at_s - SILENT_INTERVALS * self._settings.edge_interval_s
        for edge_id in list(_unheard(self._edges, edges_s)):
            self._edges[edge_id] = self._edges[edge_id].moved(MemberState.SILENT, at_s)
        verifiers_s = at_s - SILENT_INTERVALS * self._settings.verifier_interval_s
        for verifier_id in list(_unheard(self._verifiers, verifiers_s)):
            verifier = self._verifiers[verifier_id]
            self._verifiers[verifier_id] = replace(
                verifier, state=MemberState.SILENT, changed_at_s=at_s
            )

    def _forget(self, members: dict[str, Edge] | dict[str, Verifier], leaving: list[str]) -> bool:
        """Make room for a newcomer; return whether there is some."""
        while leaving:
            name = leaving.pop()
            member = members.get(name)
            if member is not None and member.state is not MemberState.ONLINE:
                del members[name]
                self._ignored["forgotten"] += 1
                return True
        self._ignored["refused"] += 1
        return False


def _overrules(new: EdgePolicy, known: EdgePolicy) -> bool:
    """Return whether an edge that has one policy would take the other: then so must we, and the next one comes after it."""
    if new.revision != known.revision:
        return new.revision > known.revision
    says = (known.draft_length, known.window, known.verifiers)
    return (new.draft_length, new.window, new.verifiers) != says  # somebody else's


def _leaving(members: Mapping[str, Edge] | Mapping[str, Verifier]) -> list[str]:
    """Return who is not online, silent ones first, and of each kind the one unheard of for longest last."""
    gone = [
        (member.state is MemberState.SILENT, member.heard_at_s, name)
        for name, member in members.items()
        if member.state is not MemberState.ONLINE
    ]
    return [name for _, _, name in sorted(gone, reverse=True)]


def _unheard(members: Mapping[str, Edge] | Mapping[str, Verifier], since_s: float) -> Iterator[str]:
    """Who is online and has told nothing since then."""
    for name, member in members.items():
        if member.heard_at_s < since_s and member.state is MemberState.ONLINE:
            yield name
