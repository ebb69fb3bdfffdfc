"""What the orchestrator makes of messages that are late, doubled, lost or untrue."""

from collections.abc import Sequence
from dataclasses import replace

import pytest
from harness.fleets import TARGET, fleet_of, gauges_of, status_of, telemetry_of, told, verifier_seen
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fleet import (
    BACKWARDS_MOST,
    Decided,
    EdgeGone,
    EdgeSeen,
    Event,
    Fleet,
    FleetSettings,
    Pinned,
    PolicySeen,
    Telemetry,
    Tick,
    VerifierGone,
    VerifierSeen,
    fold,
)
from orchestrator.members import SAMPLES_MOST, MemberState
from paceline.control.messages import EdgeCounters, EdgePolicy, Presence, VerifierStatus

POLICY = EdgePolicy(revision=4, draft_length=6, window=12, verifiers=("a:50051",))


def seen(edge_id: str, *, online: bool = True, incarnation: int = 1, at_s: float = 0.0) -> EdgeSeen:
    presence = Presence(online=online, incarnation=incarnation)
    return EdgeSeen(edge_id=edge_id, presence=presence, at_s=at_s)


def at(sequence: int, *, at_s: float | None = None, incarnation: int = 1) -> Telemetry:
    telemetry = telemetry_of(sequence=sequence, incarnation=incarnation)
    return told("e", at_s=5.0 * sequence if at_s is None else at_s, telemetry=telemetry)


# --- presence


def test_an_edge_comes_and_goes() -> None:
    fleet = fleet_of(seen("e", at_s=1.0))
    assert fleet.edges["e"].state is MemberState.ONLINE
    fleet = fold(fleet, [seen("e", online=False, at_s=3.0)])
    edge = fleet.edges["e"]
    assert (edge.state, edge.changed_at_s) == (MemberState.OFFLINE, 3.0)
    assert not fold(fleet, [EdgeGone(edge_id="e")]).edges


def test_the_will_of_a_program_that_is_over_is_ignored() -> None:
    fleet = fleet_of(seen("e", incarnation=1), seen("e", incarnation=2), seen("e", online=False))
    assert fleet.edges["e"].state is MemberState.ONLINE
    assert fleet.ignored.stale == 1


def test_telemetry_of_a_program_that_is_over_is_ignored() -> None:
    fleet = fleet_of(at(7), seen("e", incarnation=2), at(8))
    assert fleet.edges["e"].telemetry is None
    assert fleet.ignored.stale == 1


def test_a_restarted_edge_counts_from_the_start_again() -> None:
    fleet = fleet_of(at(7), at(8), at(1, at_s=50.0, incarnation=2), at(2, at_s=55.0, incarnation=2))
    edge = fleet.edges["e"]
    assert edge.evidence == (2, 2)
    assert [sample.at_s for sample in edge.samples] == [50.0, 55.0]
    assert edge.past == (1,)
    assert fleet.ignored.backwards == 0


def test_telemetry_before_the_presence_tells_as_much() -> None:
    fleet = fleet_of(at(1), seen("e", at_s=6.0))
    assert fleet.edges["e"].state is MemberState.ONLINE
    assert fleet.edges["e"].evidence == (1, 1)


def test_telemetry_after_a_late_will_says_that_the_edge_is_there() -> None:
    fleet = fleet_of(seen("e"), at(1), seen("e", online=False), at(2))
    assert fleet.edges["e"].state is MemberState.ONLINE
    presence = fleet.edges["e"].presence
    assert presence is not None
    assert presence.online


# --- telemetry


@pytest.mark.parametrize("order", [(1, 1), (2, 1), (3, 2, 3)])
def test_copies_and_overtaken_telemetry_are_ignored(order: Sequence[int]) -> None:
    fleet = fleet_of(*(at(sequence, at_s=9.0) for sequence in order))
    assert fleet.edges["e"].evidence == (1, max(order))
    assert fleet.ignored.repeated == len(order) - 1


def test_samples_are_of_the_recent_past_only() -> None:
    fleet = fleet_of(*(at(sequence) for sequence in range(1, 30)))
    edge = fleet.edges["e"]
    assert [sample.at_s for sample in edge.samples] == [115.0 + 5.0 * n for n in range(7)]


def test_an_edge_that_tells_often_keeps_a_bounded_number_of_samples() -> None:
    fleet = fleet_of(*(at(sequence, at_s=sequence * 0.1) for sequence in range(1, 200)))
    edge = fleet.edges["e"]
    assert len(edge.samples) <= SAMPLES_MOST
    assert edge.samples[0].at_s == pytest.approx(0.1)
    assert edge.samples[-1].at_s == pytest.approx(19.9)


def test_falling_counters_are_ignored_until_they_persist() -> None:
    fleet = fleet_of(at(8), at(9))
    for time in range(BACKWARDS_MOST):
        assert fleet.edges["e"].evidence == (1, 9)
        lower = replace(telemetry_of(sequence=10 + time), counters=EdgeCounters(committed=time))
        fleet = fold(fleet, [told("e", at_s=50.0 + time, telemetry=lower)])
    edge = fleet.edges["e"]
    assert edge.evidence == (1, 9 + BACKWARDS_MOST)
    assert len(edge.samples) == 1
    assert edge.num_backwards == 0
    assert fleet.ignored.backwards == BACKWARDS_MOST


# --- silence


def test_an_edge_that_tells_nothing_for_three_intervals_is_silent() -> None:
    fleet = fold(fleet_of(at(1), seen("gone", online=False)), [Tick(at_s=20.0)])
    assert fleet.edges["e"].state is MemberState.ONLINE
    fleet = fold(fleet, [Tick(at_s=20.5)])
    edge = fleet.edges["e"]
    assert (edge.state, edge.changed_at_s) == (MemberState.SILENT, 20.5)
    assert fleet.edges["gone"].state is MemberState.OFFLINE
    fleet = fold(fleet, [Tick(at_s=30.0), at(2, at_s=31.0)])
    edge = fleet.edges["e"]
    assert (edge.state, edge.changed_at_s) == (MemberState.ONLINE, 31.0)


# --- verifiers


def test_a_verifier_comes_drains_and_goes() -> None:
    fleet = fleet_of(verifier_seen("a"))
    assert fleet.verifiers["a"].is_usable
    fleet = fold(fleet, [verifier_seen("a", sequence=2, draining=True)])
    assert not fleet.verifiers["a"].is_usable
    will = VerifierStatus(online=False, incarnation=1)
    fleet = fold(fleet, [VerifierSeen(verifier_id="a", status=will, at_s=9.0)])
    verifier = fleet.verifiers["a"]
    assert (verifier.state, verifier.changed_at_s) == (MemberState.OFFLINE, 9.0)
    assert verifier.status.target == TARGET  # what a dashboard goes on showing
    assert not verifier.status.online
    assert not fold(fleet, [VerifierGone(verifier_id="a")]).verifiers


def test_a_verifier_ignores_what_an_earlier_one_of_its_name_left() -> None:
    will = VerifierSeen(
        verifier_id="a", status=VerifierStatus(online=False, incarnation=1), at_s=2.0
    )
    fleet = fleet_of(verifier_seen("a", sequence=9), verifier_seen("a", incarnation=2), will)
    fleet = fold(fleet, [verifier_seen("a", sequence=10), verifier_seen("a", incarnation=2)])
    assert fleet.verifiers["a"].is_usable
    assert fleet.verifiers["a"].status.incarnation == 2
    assert (fleet.ignored.stale, fleet.ignored.repeated) == (2, 1)


def test_a_verifier_is_back_after_a_late_will() -> None:
    will = VerifierStatus(online=False, incarnation=1)
    fleet = fleet_of(
        verifier_seen("a"),
        VerifierSeen(verifier_id="a", status=will, at_s=1.0),
        verifier_seen("a", sequence=2, at_s=2.0),
    )
    assert fleet.verifiers["a"].is_usable


def test_a_verifier_that_hangs_is_silent() -> None:
    fleet = fold(fleet_of(verifier_seen("a")), [Tick(at_s=6.1)])
    assert fleet.verifiers["a"].state is MemberState.SILENT
    assert not fleet.verifiers["a"].is_usable


def test_a_verifier_whose_will_alone_is_known_is_offline() -> None:
    will = VerifierStatus(online=False, incarnation=1)
    fleet = fleet_of(VerifierSeen(verifier_id="a", status=will, at_s=1.0))
    assert fleet.verifiers["a"].state is MemberState.OFFLINE


# --- policies and pins


def test_a_retained_policy_comes_back_and_its_revision_with_it() -> None:
    edge = fleet_of(PolicySeen(edge_id="e", policy=POLICY), at(1)).edges["e"]
    assert edge.policy == POLICY
    assert (edge.decided_at_s, edge.decided_on) == (None, None)


def test_a_policy_that_somebody_else_forged_is_what_the_edge_has() -> None:
    decided = Decided(edge_id="e", policy=POLICY, at_s=6.0)
    fleet = fleet_of(seen("e"), at(1), decided)
    ours = PolicySeen(edge_id="e", policy=replace(POLICY, explanation="in other words"))
    assert fold(fleet, [ours]).edges == fleet.edges
    # An edge takes what has the same number and says something else.
    forged = replace(POLICY, draft_length=7)
    edge = fold(fleet, [PolicySeen(edge_id="e", policy=forged)]).edges["e"]
    assert edge.policy == forged
    assert edge.decided_on is None


def test_a_decision_remembers_what_it_rests_on() -> None:
    fleet = fleet_of(at(1), Decided(edge_id="e", policy=POLICY, at_s=6.0))
    echo = PolicySeen(edge_id="e", policy=POLICY)
    older = PolicySeen(edge_id="e", policy=replace(POLICY, revision=3, draft_length=1))
    edge = fold(fleet, [echo, older]).edges["e"]
    assert edge.policy == POLICY
    assert (edge.decided_at_s, edge.decided_on) == (6.0, (1, 1))


def test_a_pin_and_the_policy_survive_a_restart_of_the_edge() -> None:
    edge = fleet_of(
        at(1),
        PolicySeen(edge_id="e", policy=POLICY),
        Pinned(edge_id="e", draft_length=3),
        seen("e", incarnation=2),
    ).edges["e"]
    assert (edge.policy, edge.pinned, edge.telemetry) == (POLICY, 3, None)
    released = fold(fleet_of(at(1)), [Pinned(edge_id="e", draft_length=None)])
    assert released.edges["e"].pinned is None


# --- bounds


def test_the_edge_offline_for_longest_makes_room_then_newcomers_are_refused() -> None:
    small = Fleet(settings=FleetSettings(edges_most=3))
    fleet = fold(
        small,
        [
            seen("old", online=False, at_s=1.0),
            seen("older", online=False, at_s=0.0),
            seen("on", at_s=0.0),
            seen("x"),
        ],
    )
    assert set(fleet.edges) == {"old", "on", "x"}
    fleet = fold(
        fleet,
        [
            seen("y"),
            seen("z"),
            told("z"),
            Pinned(edge_id="z", draft_length=1),
            PolicySeen(edge_id="z", policy=POLICY),
        ],
    )
    assert set(fleet.edges) == {"on", "x", "y"}
    assert (fleet.ignored.forgotten, fleet.ignored.refused) == (2, 4)


def test_who_came_back_within_a_batch_is_not_forgotten_in_it() -> None:
    small = Fleet(settings=FleetSettings(edges_most=2))
    fleet = fold(small, [seen("a", online=False), seen("b", online=False, at_s=1.0)])
    fleet = fold(fleet, [seen("c"), seen("b", at_s=2.0), seen("d")])
    assert set(fleet.edges) == {"b", "c"}


def test_ids_that_never_say_anything_again_make_room_as_well() -> None:
    small = Fleet(settings=FleetSettings(edges_most=2))
    fleet = fold(small, [seen("a"), seen("b", at_s=90.0), Tick(at_s=100.0), seen("c", at_s=100.0)])
    assert set(fleet.edges) == {"b", "c"}


def test_verifiers_are_bounded_as_well() -> None:
    small = Fleet(settings=FleetSettings(verifiers_most=2))
    gone = VerifierSeen(verifier_id="g", status=status_of("g:1", online=False), at_s=0.0)
    fleet = fold(small, [gone, verifier_seen("a"), verifier_seen("b"), verifier_seen("c")])
    assert set(fleet.verifiers) == {"a", "b"}
    assert (fleet.ignored.forgotten, fleet.ignored.refused) == (1, 1)


# --- what holds of every sequence of events

names = st.sampled_from(["e", "f", "g", "h"])
times = st.floats(0.0, 100.0)
few = st.integers(1, 4)
events: st.SearchStrategy[Event] = st.one_of(
    st.builds(
        EdgeSeen,
        edge_id=names,
        presence=st.builds(Presence, online=st.booleans(), incarnation=few),
        at_s=times,
    ),
    st.builds(
        Telemetry,
        edge_id=names,
        telemetry=st.builds(
            replace,
            st.just(telemetry_of()),
            incarnation=few,
            sequence=st.integers(1, 9),
            counters=st.builds(EdgeCounters, committed=st.integers(0, 3)),
            gauges=st.just(gauges_of()),
        ),
        at_s=times,
    ),
    st.builds(
        VerifierSeen,
        verifier_id=names,
        status=st.builds(
            replace,
            st.just(status_of("a:1")),
            online=st.booleans(),
            incarnation=few,
            sequence=st.integers(1, 9),
            draining=st.booleans(),
        ),
        at_s=times,
    ),
    st.builds(EdgeGone, edge_id=names),
    st.builds(VerifierGone, verifier_id=names),
    st.builds(PolicySeen, edge_id=names, policy=st.builds(replace, st.just(POLICY), revision=few)),
    st.builds(Pinned, edge_id=names, draft_length=st.none() | st.integers(0, 9)),
    st.builds(Tick, at_s=times),
)


@given(st.lists(events, max_size=40), st.integers(0, 40))
def test_what_holds_of_every_fold(happened: list[Event], cut: int) -> None:
    start = Fleet(settings=FleetSettings(edges_most=3, verifiers_most=3))
    first = fold(start, happened[:cut])
    before = repr(first)
    whole = fold(first, happened[cut:])
    assert repr(first) == before  # folded into a copy
    assert not start.edges
    one_by_one = start
    for event in happened:
        one_by_one = fold(one_by_one, [event])
    for fleet in (whole, one_by_one):
        assert len(fleet.edges) <= 3
        assert len(fleet.verifiers) <= 3
        for edge_id, edge in fleet.edges.items():
            assert edge.edge_id == edge_id
            assert edge.incarnation not in edge.past
            counts = [sample.counters.committed for sample in edge.samples]
            assert counts == sorted(counts)
            if edge.telemetry is not None and edge.samples:
                assert edge.samples[-1].counters == edge.telemetry.counters
            if edge.telemetry is not None:
                assert edge.telemetry.incarnation == edge.incarnation
        for verifier in fleet.verifiers.values():
            assert verifier.status.incarnation not in verifier.past
            assert verifier.status.online == (verifier.state is not MemberState.OFFLINE)


@given(st.lists(st.integers(1, 20), min_size=1, max_size=30))
def test_telemetry_in_any_order_ends_with_the_newest(order: list[int]) -> None:
    edge = fleet_of(*(at(sequence, at_s=1.0) for sequence in order)).edges["e"]
    assert edge.evidence == (1, max(order))
