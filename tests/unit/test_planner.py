"""Which policies change, on what evidence, and how that is explained."""

from dataclasses import replace
from itertools import pairwise

import pytest
from harness.fleets import fleet_of, gauges_of, telemetry_of, told, verifier_seen
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fleet import (
    Considered,
    Decided,
    EdgeSeen,
    Event,
    Fleet,
    Pinned,
    PolicySeen,
    Telemetry,
    Tick,
    fold,
)
from orchestrator.planner import BOUNDS, Plan, explain, plan
from paceline.control.drafting import Drafting, choose, measured_from
from paceline.control.messages import (
    MAX_DRAFT_LENGTH,
    MAX_EXPLANATION_BYTES,
    MAX_POLICY_VERIFIERS,
    MAX_WINDOW,
    EdgePolicy,
    Presence,
)

A, B = "a:50051", "b:50051"


def word(sequence: int, **gauges: float | str) -> Telemetry:
    """Return the `sequence`-th telemetry of edge e, which is 5 s after the one before."""
    telemetry = telemetry_of(
        sequence=sequence, gauges=gauges_of(**gauges), distances={A: 0.02, B: 0.09}
    )
    return told("e", at_s=5.0 * sequence, telemetry=telemetry)


def carried_out(fleet: Fleet, now_s: float) -> tuple[Fleet, tuple[Plan, ...]]:
    """Plan, and fold what follows as the service does."""
    plans = plan(fleet, now_s)
    decided: list[Event] = [
        Decided(edge_id=item.edge_id, policy=item.policy, at_s=now_s) for item in plans
    ]
    return fold(fleet, [*decided, Considered(at_s=now_s)]), plans


def policy_after(fleet: Fleet, now_s: float) -> EdgePolicy:
    """Return the policy of edge e after a plan that must change it."""
    (item,) = plan(fleet, now_s)
    assert item.edge_id == "e"
    assert item.sentence == item.policy.explanation
    return item.policy


def lengths_of(fleet: Fleet, first: int, num: int, **gauges: float) -> tuple[Fleet, list[int]]:
    """Let the edge tell the same `num` times and follow every policy; return the lengths ordered."""
    lengths = []
    for sequence in range(first, first + num):
        policy = fleet.edges["e"].policy if "e" in fleet.edges else None
        follows = {} if policy is None else {
            "draft_length": policy.draft_length,
            "window": policy.window,
            "policy_revision": policy.revision,
        }  # fmt: skip
        fleet = fold(fleet, [word(sequence, **gauges, **follows)])
        fleet, _ = carried_out(fleet, 5.0 * sequence + 0.1)
        policy = fleet.edges["e"].policy
        assert policy is not None
        lengths.append(policy.draft_length)
    return fleet, lengths


def test_the_first_word_of_an_edge_brings_its_first_policy() -> None:
    policy = policy_after(fleet_of(verifier_seen("a"), verifier_seen("b"), word(1)), 5.1)
    assert policy.revision == 1
    assert (policy.draft_length, policy.window) == (10, 20)  # (20 + 1 + 2 * 40) / 10, by 2 from 8
    assert policy.verifiers == (A, B)
    assert policy.explanation == (
        "draft 10 tokens ahead: 11 cover 20 ms round trip, 1 ms jitter and two 40 ms steps at 10 ms per token; "
        "at 94 % acceptance 40 keep a chance of 10 % to be used; moved by 2 from 8 on the way to 11 | "
        "use a:50051: kept, 60 ms for way, queue and steps is the least of 2"
    )


def test_it_is_the_function_that_the_edge_uses_itself() -> None:
    fleet = fleet_of(word(1, rtt_s=0.3))
    gauges = fleet.edges["e"].gauges
    assert gauges is not None
    current = Drafting(draft_length=gauges.draft_length, window=gauges.window)
    decision = choose(measured_from(gauges), current=current, bounds=BOUNDS)
    assert policy_after(fleet, 5.1).draft_length == decision.drafting.draft_length


def test_nothing_moves_without_new_evidence() -> None:
    fleet, plans = carried_out(fleet_of(verifier_seen("a"), word(1, rtt_s=0.3)), 5.1)
    assert len(plans) == 1
    for now_s in (5.2, 6.0, 9.0):
        assert plan(fleet, now_s) == ()
    fleet = fold(fleet, [word(2, rtt_s=0.3, draft_length=10, policy_revision=1)])
    assert policy_after(fleet, 10.1).draft_length == 12


def test_without_a_considered_event_it_decides_the_same() -> None:
    fleet = fleet_of(verifier_seen("a"), word(1, rtt_s=0.3))
    (first,) = plan(fleet, 5.1)
    fleet = fold(fleet, [Decided(edge_id="e", policy=first.policy, at_s=5.1)])
    assert plan(fleet, 5.2) == ()


def test_follows_the_round_trip_both_ways() -> None:
    fleet, near = lengths_of(fleet_of(verifier_seen("a")), 1, 6, acceptance_probability=1.0)
    fleet, far = lengths_of(fleet, 7, 15, rtt_s=0.2, acceptance_probability=1.0)
    fleet, back = lengths_of(fleet, 22, 15, acceptance_probability=1.0)
    assert far[-1] >= near[-1] + 3
    assert abs(back[-1] - near[-1]) <= 1
    steps = [abs(after - before) for before, after in pairwise(far)]
    assert max(steps) <= 2
    assert near[-2:] == [near[-1]] * 2
    assert far[-2:] == [far[-1]] * 2
    assert back[-2:] == [back[-1]] * 2


def test_revisions_go_on_from_what_an_earlier_orchestrator_left() -> None:
    left = EdgePolicy(revision=41, draft_length=20, window=40, verifiers=(A,))
    fleet = fleet_of(PolicySeen(edge_id="e", policy=left), verifier_seen("a"), word(1, policy_revision=41, draft_length=20))  # fmt: skip
    policy = policy_after(fleet, 5.1)
    assert (policy.revision, policy.draft_length) == (42, 18)


def test_an_edge_that_follows_a_later_revision_than_we_know_gets_one_above_it() -> None:
    # The broker has lost what it retained: to the edge our next revision would be an old one.
    fleet = fleet_of(verifier_seen("a"), word(1, policy_revision=41))
    fleet, plans = carried_out(fleet, 5.1)
    assert plans[0].policy.revision == 42
    assert plan(fleet, 5.2) == ()
    # One that no orchestrator ever reached is not believed: it would leave no room for ours.
    fleet = fleet_of(verifier_seen("a"), word(1, policy_revision=2**64 - 1))
    assert policy_after(fleet, 5.1).revision == 1


def test_a_policy_that_an_edge_has_not_got_is_sent_again() -> None:
    fleet, _ = lengths_of(fleet_of(verifier_seen("a")), 1, 6)
    sent = fleet.edges["e"].policy
    assert sent is not None
    does = {"draft_length": sent.draft_length, "window": sent.window}
    got = {"policy_revision": sent.revision, **does}
    assert plan(fold(fleet, [word(7, **got)]), 35.1) == ()
    fleet, (again,) = carried_out(fold(fleet, [word(7, **does)]), 35.1)
    same = replace(sent, revision=sent.revision + 1, explanation=again.policy.explanation)
    assert again.policy == same
    # It may have crossed what the edge has just told.
    fleet, plans = carried_out(fold(fleet, [word(8, **does)]), 40.1)
    assert plans == ()
    _, plans = carried_out(fold(fleet, [word(9, **does)]), 45.1)
    assert len(plans) == 1


def test_goes_on_from_what_the_edge_found_by_itself_meanwhile() -> None:
    left = EdgePolicy(revision=41, draft_length=40, window=80, verifiers=(A,))
    fleet = fleet_of(PolicySeen(edge_id="e", policy=left), verifier_seen("a"), word(1, draft_length=11))  # fmt: skip
    policy = policy_after(fleet, 5.1)
    assert (policy.revision, policy.draft_length) == (42, 11)


def test_an_edge_that_has_measured_nothing_gets_no_policy() -> None:
    fleet = fleet_of(word(1, rtt_s=0.0, draft_s=0.0, verifier=""))
    assert plan(fleet, 5.1) == ()


def test_but_it_is_told_of_verifiers() -> None:
    fleet = fleet_of(verifier_seen("a"), word(1, rtt_s=0.0, draft_s=0.0, verifier=""))
    policy = policy_after(fleet, 5.1)
    assert (policy.draft_length, policy.verifiers) == (8, (A,))
    assert "not known yet" in policy.explanation


@pytest.mark.parametrize("why", ["offline", "silent", "old", "new"])
def test_who_is_not_heard_of_gets_no_policy(why: str) -> None:
    fleet = fleet_of(verifier_seen("a"), word(1))
    if why == "new":
        there = Presence(online=True, incarnation=1)
        fleet = fleet_of(verifier_seen("a"), EdgeSeen(edge_id="e", presence=there, at_s=6.0))
        assert "measured nothing yet" in explain(fleet, "e", now_s=6.0)
    if why == "offline":
        gone = Presence(online=False, incarnation=1)
        fleet = fold(fleet, [EdgeSeen(edge_id="e", presence=gone, at_s=6.0)])
    if why == "silent":
        fleet = fold(fleet, [Tick(at_s=60.0)])
    assert plan(fleet, 60.0 if why == "old" else 6.0) == ()


def test_a_lost_verifier_changes_the_policy_without_a_word_of_the_edge() -> None:
    fleet = fleet_of(verifier_seen("a"), verifier_seen("b"), word(1))
    fleet, _ = carried_out(fleet, 5.1)
    fleet = fold(fleet, [verifier_seen("a", sequence=2, draining=True)])
    policy = policy_after(fleet, 5.2)
    assert policy.verifiers == (B,)
    assert policy.draft_length == 10  # which has no new evidence
    assert "nothing new was measured" in policy.explanation


# --- an operator's order


def test_a_pin_holds_until_it_is_released() -> None:
    fleet, _ = carried_out(fleet_of(verifier_seen("a"), word(1)), 5.1)
    fleet = fold(fleet, [Pinned(edge_id="e", draft_length=3)])
    policy = policy_after(fleet, 5.2)  # at once
    assert (policy.draft_length, policy.window, policy.revision) == (3, 6, 2)
    assert "fixed by an operator" in policy.explanation
    fleet, _ = carried_out(fleet, 5.2)
    fleet = fold(fleet, [word(2, rtt_s=0.5, draft_length=3, policy_revision=2)])
    assert plan(fleet, 10.1) == ()
    fleet = fold(fleet, [Pinned(edge_id="e", draft_length=None)])
    assert policy_after(fleet, 10.2).draft_length == 5


@pytest.mark.parametrize(("order", "length"), [(0, 0), (10**9, MAX_DRAFT_LENGTH), (-4, 0)])
def test_a_pin_is_what_a_policy_can_say(order: int, length: int) -> None:
    fleet = fleet_of(word(1), Pinned(edge_id="e", draft_length=order))
    fleet, plans = carried_out(fleet, 5.1)
    assert plans[0].policy.draft_length == length
    assert 1 <= plans[0].policy.window <= MAX_WINDOW
    assert plan(fleet, 5.2) == ()


# --- explanations


def test_explains_an_edge_that_nobody_knows() -> None:
    assert "not known" in explain(fleet_of(), "x", now_s=0.0)


def test_explains_what_it_was_told_when_and_from_what() -> None:
    fleet, _ = carried_out(fleet_of(verifier_seen("a"), word(1, rtt_s=0.3)), 5.1)
    text = explain(fleet, "e", now_s=8.1)
    for part in (
        "edge e is online",
        "policy 1: draft length 10, window 20, verifiers a:50051",
        "because: draft 10 tokens ahead: 39 cover 300 ms round trip",
        "decided 3 s ago on telemetry 1",
        "its last telemetry follows no policy and drafts 8 ahead",
        "round trip 300 ms, jitter 1 ms, 10 ms per drafted token, step 40 ms, acceptance 95% of 200 judged",
        "now: no change before its next telemetry; if that tells the same: draft",
    ):
        assert part in text, text


def test_explains_what_would_change_now() -> None:
    fleet = fleet_of(verifier_seen("a"), word(1, rtt_s=0.3))
    text = explain(fleet, "e", now_s=5.1)
    assert "no policy: it drafts as it decides by itself" in text
    assert "now: it will get policy 1: draft 10 tokens ahead" in text


def test_explains_why_nothing_would_change() -> None:
    fleet = fleet_of(verifier_seen("a"), word(1, draft_length=11, window=22))
    fleet, _ = carried_out(fleet, 5.1)
    fleet = fold(fleet, [word(2, draft_length=11, policy_revision=1)])
    text = explain(fleet, "e", now_s=10.1)
    assert "now: no change: draft 11 tokens ahead" in text
    assert text.endswith("is the least of 1")


def test_explains_an_edge_that_only_left_a_policy() -> None:
    left = EdgePolicy(revision=2, draft_length=20, window=40)
    text = explain(fleet_of(PolicySeen(edge_id="e", policy=left)), "e", now_s=1.0)
    assert text.startswith(
        "edge e is offline: it has told nothing since this orchestrator started\n"
    )
    assert "decided before this orchestrator started" in text
    assert "now: nothing to decide on before its first telemetry" in text


def test_explains_an_edge_that_went() -> None:
    gone = EdgeSeen(edge_id="e", presence=Presence(online=False, incarnation=1), at_s=60.0)
    text = explain(fleet_of(word(1), gone), "e", now_s=90.0)
    assert text.startswith("edge e is offline, for 30 s\n")
    assert text.endswith("now: its policy stays while it is offline")


def test_explains_silence_and_a_pin() -> None:
    fleet = fleet_of(word(1), Pinned(edge_id="e", draft_length=4), Tick(at_s=60.0))
    text = explain(fleet, "e", now_s=61.0)
    assert "fixed its draft length at 4" in text
    assert "its policy stays while it is silent" in text


# --- what holds of every plan

times = st.sampled_from([0.0, 1e-6, 0.004, 0.02, 0.2, 3.0, 1e9])
gauges = st.fixed_dictionaries(
    {
        "rtt_s": times,
        "rtt_jitter_s": times,
        "draft_s": times,
        "step_s": times,
        "acceptance_probability": st.floats(0.0, 1.0),
        "num_judged": st.integers(0, 2**32 - 1),
        "draft_length": st.integers(0, 4096),
        "window": st.integers(0, 4096),
        "policy_revision": st.integers(0, 3),
        "verifier": st.sampled_from(["", A, B, "x" * 256]),
    }
)


@given(st.lists(gauges, min_size=1, max_size=8), st.none() | st.integers(0, 5000))
def test_every_policy_can_be_sent_and_is_decided_once(
    words: list[dict[str, float | str]], pin: int | None
) -> None:
    long_names = [f"{chr(97 + n) * 230}{n:02}" for n in range(20)]
    fleet = fleet_of(*(verifier_seen(name) for name in ["a", "b", *long_names]))
    revision = 0
    for sequence, values in enumerate(words, 1):
        fleet = fold(fleet, [word(sequence, **values)])
        if sequence == 3:
            fleet = fold(fleet, [Pinned(edge_id="e", draft_length=pin)])
        fleet, plans = carried_out(fleet, 5.0 * sequence + 0.1)
        assert plan(fleet, 5.0 * sequence + 0.2) == ()
        for item in plans:
            assert item.policy.revision > max(revision, int(values["policy_revision"]))
            revision = item.policy.revision
            assert 0 <= item.policy.draft_length <= MAX_DRAFT_LENGTH
            assert 1 <= item.policy.window <= MAX_WINDOW
            assert len(item.policy.verifiers) <= MAX_POLICY_VERIFIERS
            assert 0 < len(item.policy.explanation.encode()) <= MAX_EXPLANATION_BYTES
        assert explain(fleet, "e", now_s=5.0 * sequence + 0.3)


def test_edges_are_planned_independently_of_their_order() -> None:
    words = [replace(word(1), edge_id=name) for name in ("c", "a", "b")]
    one = plan(fleet_of(verifier_seen("a"), *words), 5.1)
    other = plan(fleet_of(verifier_seen("a"), *reversed(words)), 5.1)
    assert one == other
    assert [item.edge_id for item in one] == ["a", "b", "c"]
