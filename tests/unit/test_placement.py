"""Which verifier an edge should use: the nearest with room, calmly, and never another text."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

import pytest
from harness.fleets import TARGET, fleet_of, gauges_of, telemetry_of, told, verifier_seen
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fleet import Decided, Fleet, Telemetry, Tick, fold
from orchestrator.placement import Placement, place
from paceline.control.messages import EdgePolicy

A, B, C = "a:50051", "b:50051", "c:50051"


def edge_at(
    verifier: str, distances: Mapping[str, float], *, edge_id: str = "e", generations: int = 1
) -> Telemetry:
    """Return telemetry of an edge that uses `verifier`, with round trips in milliseconds; 0 did not answer."""
    rtts = {address: rtt_ms / 1e3 for address, rtt_ms in distances.items()}
    gauges = gauges_of(
        verifier=verifier, rtt_s=rtts.get(verifier, 0.0), num_generations=generations
    )
    return told(edge_id, telemetry=telemetry_of(gauges=gauges, distances=rtts))


def sent(fleet: Fleet, *verifiers: str, edge_id: str = "e") -> Fleet:
    """Return the fleet after a policy that names these verifiers."""
    known = fleet.edges[edge_id].policy
    revision = 1 if known is None else known.revision + 1
    policy = EdgePolicy(revision=revision, draft_length=8, window=16, verifiers=verifiers)
    return fold(fleet, [Decided(edge_id=edge_id, policy=policy, at_s=0.0)])


def placed(fleet: Fleet, edge_id: str = "e") -> Placement:
    return place(fleet, fleet.edges.keys())[edge_id]


def test_a_new_edge_gets_the_nearest_first_and_the_others_behind() -> None:
    near = edge_at("", {A: 80, B: 10, C: 200})
    placement = placed(fleet_of(verifier_seen("a"), verifier_seen("b"), verifier_seen("c"), near))
    assert placement.verifiers == (B, A, C)
    assert placement.sentence == "use b:50051: 53 ms for way, queue and steps, the least of 3"
    assert not placement.is_urgent


def test_moves_for_a_stated_gain_only() -> None:
    both = (verifier_seen("a"), verifier_seen("b"))
    # Cost at A: 100 + 40 * 1 / (1 - 0) = 140; at B with one session: rtt + 40 / (15 / 16).
    for rtt_b, first in ((80, A), (70, A), (60, B), (20, B)):
        fleet = sent(fleet_of(*both, edge_at(A, {A: 100, B: rtt_b})), A, B)
        assert placed(fleet).verifiers[0] == first
    kept = placed(sent(fleet_of(*both, edge_at(A, {A: 100, B: 80})), A, B))
    assert "would save" in kept.sentence
    assert "too little to move" in kept.sentence


def test_within_a_building_nobody_moves_for_noise() -> None:
    tiny = {"step_s": 0.001}
    fleet = fleet_of(
        verifier_seen("a", **tiny), verifier_seen("b", **tiny), edge_at(A, {A: 3, B: 0.5})
    )
    assert placed(sent(fleet, A, B)).verifiers[0] == A


@pytest.mark.parametrize(
    "worse",
    [{"num_sessions": 15}, {"queue_s": 0.1}, {"step_s": 0.3}, {"busy": 1.0, "step_s": 0.1}],
)
def test_load_counts(worse: dict[str, float]) -> None:
    fleet = fleet_of(verifier_seen("a", **worse), verifier_seen("b"), edge_at("", {A: 10, B: 30}))
    assert placed(fleet).verifiers[0] == B
    even = fleet_of(verifier_seen("a"), verifier_seen("b"), edge_at("", {A: 10, B: 30}))
    assert placed(even).verifiers[0] == A


@pytest.mark.parametrize("how", ["drain", "will", "hang"])
def test_a_verifier_that_takes_no_sessions_falls_out_at_once(how: str) -> None:
    fleet = sent(fleet_of(verifier_seen("a"), verifier_seen("b"), edge_at(A, {A: 10, B: 90})), A, B)
    if how == "hang":
        fleet = fold(fleet, [verifier_seen("b", sequence=2, at_s=7.0), Tick(at_s=7.0)])
    else:
        lost = {"draining": True} if how == "drain" else {"online": False}
        fleet = fold(fleet, [verifier_seen("a", sequence=2, **lost)])
    placement = place(fleet, ())["e"]  # without a new word of the edge
    assert placement.verifiers == (B,)
    assert placement.is_urgent
    assert "a:50051 takes no sessions" in placement.sentence


def test_with_no_verifier_left_everything_stays() -> None:
    fleet = sent(fleet_of(verifier_seen("a"), edge_at(A, {A: 10})), A)
    fleet = fold(fleet, [verifier_seen("a", sequence=2, draining=True)])
    placement = placed(fleet)
    assert placement.verifiers == (A,)


def test_only_who_has_news_or_lost_its_verifier_is_placed() -> None:
    fleet = sent(fleet_of(verifier_seen("a"), edge_at(A, {A: 10})), A)
    assert place(fleet, ()) == {}


def test_another_tokenizer_never_fits() -> None:
    other = replace(TARGET, tokenizer_fingerprint=b"o" * 32)
    fleet = fleet_of(verifier_seen("a", target=other), edge_at("", {A: 1}))
    assert placed(fleet).verifiers == ()


def test_a_policy_that_names_what_can_not_serve_the_edge_is_mended() -> None:
    other = replace(TARGET, tokenizer_fingerprint=b"o" * 32)
    fleet = fleet_of(
        verifier_seen("a", target=other), verifier_seen("b"), edge_at("", {A: 1, B: 90})
    )
    assert placed(sent(fleet, A, B)).verifiers == (B,)


def test_a_verifier_of_which_only_the_will_is_known_is_not_named() -> None:
    gone = verifier_seen("b", online=False, target=None)
    assert placed(fleet_of(verifier_seen("a"), gone, edge_at("", {A: 9}))).verifiers == (A,)


@pytest.mark.parametrize(
    "other",
    [
        replace(TARGET, weights_fingerprint=b"o" * 32),
        replace(TARGET, dtype="bfloat16"),
        replace(TARGET, quantisation="q4"),
    ],
)
def test_another_target_is_another_text_and_not_named(other: object) -> None:
    verifiers = (verifier_seen("a"), verifier_seen("b", target=other), verifier_seen("c"))
    fleet = fleet_of(*verifiers, edge_at(A, {A: 300, B: 1, C: 290}))
    assert set(placed(fleet).verifiers) == {A, C}
    # One that has none yet gets the cheapest and those like it.
    fleet = fleet_of(*verifiers, edge_at("", {A: 300, B: 1, C: 290}))
    assert placed(fleet).verifiers == (B,)


def test_who_uses_a_verifier_outside_the_fleet_is_left_there() -> None:
    fleet = fleet_of(verifier_seen("a"), edge_at("private:1", {A: 1, "private:1": 90}))
    placement = placed(fleet)
    assert placement.verifiers == ()
    assert "tells the fleet nothing" in placement.sentence


def test_unmeasured_verifiers_are_named_behind_so_that_they_get_measured() -> None:
    seen = (verifier_seen("a"), verifier_seen("b"), verifier_seen("c"))
    fleet = fleet_of(*seen, edge_at(C, {A: 0, C: 90}))
    assert placed(fleet).verifiers == (C, B, A)  # A did not answer
    fleet = fleet_of(*seen, edge_at("", {}))
    assert set(placed(fleet).verifiers) == {A, B, C}


def test_who_gets_no_answer_from_its_verifier_goes_elsewhere() -> None:
    fleet = fleet_of(verifier_seen("a"), verifier_seen("b"), edge_at("", {A: 0, B: 50}))
    assert placed(sent(fleet, A, B)).verifiers == (B, A)


@pytest.mark.parametrize(("generations", "first"), [(0, B), (1, A)])
def test_an_old_round_trip_does_not_stand_for_a_probe_without_answer(
    generations: int, first: str
) -> None:
    gauges = gauges_of(verifier=A, rtt_s=0.01, num_generations=generations)
    heard = told("e", telemetry=telemetry_of(gauges=gauges, distances={A: 0.0, B: 0.05}))
    fleet = sent(fleet_of(verifier_seen("a"), verifier_seen("b"), heard), A, B)
    assert placed(fleet).verifiers[0] == first


def test_the_order_of_those_not_used_changes_nothing() -> None:
    seen = (verifier_seen("a"), verifier_seen("b"), verifier_seen("c"))
    for rtts in ({A: 10, B: 50, C: 60}, {A: 10, B: 60, C: 50}):
        fleet = sent(fleet_of(*seen, edge_at(A, rtts)), A, C, B)
        assert placed(fleet).verifiers == (A, C, B)


def test_at_most_sixteen_are_named() -> None:
    names = [f"v{number:02}" for number in range(30)]
    rtts = {f"{name}:50051": 10.0 + place for place, name in enumerate(names)}
    fleet = fleet_of(*(verifier_seen(name) for name in names), edge_at("", rtts))
    assert placed(fleet).verifiers == tuple(f"{name}:50051" for name in names[:16])


# --- many edges


def round_of(fleet: Fleet, num_edges: int, *, follows: bool) -> tuple[Fleet, int]:
    """Place all edges once and let them follow; return how many were sent elsewhere."""
    placements = place(fleet, fleet.edges.keys())
    num_moves = 0
    for edge_id, placement in placements.items():
        edge = fleet.edges[edge_id]
        before = edge.policy.verifiers if edge.policy is not None else ()
        if before != placement.verifiers:
            num_moves += before[:1] != placement.verifiers[:1]
            fleet = sent(fleet, *placement.verifiers, edge_id=edge_id)
    if follows:
        fleet = followed(fleet, num_edges)
    return fleet, num_moves


def followed(fleet: Fleet, num_edges: int) -> Fleet:
    """Return the fleet once every edge runs where it was sent and verifiers have told so."""
    at = Counter(edge.policy.verifiers[0] for edge in fleet.edges.values() if edge.policy)
    events: list[object] = []
    for number in range(num_edges):
        edge = fleet.edges[f"e{number:03}"]
        assert edge.telemetry is not None
        assert edge.policy is not None
        gauges = replace(edge.telemetry.gauges, verifier=edge.policy.verifiers[0])
        telemetry = replace(edge.telemetry, sequence=edge.telemetry.sequence + 1, gauges=gauges)
        events.append(told(edge.edge_id, telemetry=telemetry))
    for name, verifier in fleet.verifiers.items():
        status = verifier.status
        events.append(
            verifier_seen(
                name,
                sequence=status.sequence + 1,
                num_sessions=at[status.address],
                max_sessions=status.max_sessions,
            )
        )
    return fold(fleet, events)  # type: ignore[arg-type]


def test_one_fast_verifier_is_not_flooded_in_one_round() -> None:
    rtts = {A: 10, B: 60, C: 60}
    edges = [edge_at("", rtts, edge_id=f"e{number:03}") for number in range(30)]
    fleet = fleet_of(verifier_seen("a"), verifier_seen("b"), verifier_seen("c"), *edges)
    counts = Counter(item.verifiers[0] for item in place(fleet, fleet.edges.keys()).values())
    assert set(counts) == {A, B, C}
    assert max(counts.values()) <= 14  # none above what it takes
    assert counts[A] > counts[B]


@pytest.mark.parametrize("follows", [True, False])
def test_a_fleet_settles_and_then_nobody_moves(follows: bool) -> None:
    num_edges = 40
    edges = [
        edge_at("", {A: 10 + number % 7, B: 12 + number % 5, C: 60}, edge_id=f"e{number:03}")
        for number in range(num_edges)
    ]
    fleet = fleet_of(
        *(verifier_seen(name, max_sessions=20) for name in "abc"),
        *edges,
    )
    moves = []
    for _ in range(8):
        fleet, count = round_of(fleet, num_edges, follows=follows)
        moves.append(count)
    assert moves[0] == num_edges
    assert moves[3:] == [0] * 5, moves


def test_a_new_verifier_takes_only_as_many_as_gain() -> None:
    num_edges = 32
    edges = [edge_at(A, {A: 20, B: 20}, edge_id=f"e{number:03}") for number in range(num_edges)]
    fleet = fleet_of(verifier_seen("a", num_sessions=32, max_sessions=40), *edges)
    fleet, _ = round_of(fleet, num_edges, follows=True)
    fleet = fold(fleet, [verifier_seen("a", sequence=9, num_sessions=32, max_sessions=40), verifier_seen("b", max_sessions=40)])  # fmt: skip
    fleet, moved = round_of(fleet, num_edges, follows=False)
    assert 8 <= moved <= 20
    # Their sessions are still at the old place: nobody else is sent after them.
    _, again = round_of(fleet, num_edges, follows=False)
    assert again == 0


rtts = st.dictionaries(st.sampled_from([A, B, C]), st.sampled_from([0.0, 5.0, 20.0, 100.0]))


@given(st.lists(rtts, min_size=1, max_size=12), st.lists(st.integers(0, 16), min_size=3, max_size=3))  # fmt: skip
def test_is_deterministic_and_settles(distances: list[dict[str, float]], load: list[int]) -> None:
    edges = [edge_at("", rtts, edge_id=f"e{n:03}") for n, rtts in enumerate(distances)]
    seen = [
        verifier_seen(name, num_sessions=count) for name, count in zip("abc", load, strict=True)
    ]
    fleet = fleet_of(*seen, *edges)
    backwards = fleet_of(*reversed(seen), *reversed(edges))
    assert place(fleet, fleet.edges.keys()) == place(backwards, backwards.edges.keys())
    for placement in place(fleet, fleet.edges.keys()).values():
        assert len(set(placement.verifiers)) == len(placement.verifiers)
        assert placement.sentence.isascii()
    for _ in range(6):
        fleet, moves = round_of(fleet, len(edges), follows=False)
    assert moves == 0
