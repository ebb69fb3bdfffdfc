"""What is kept of what comes between two folds, and what has to go."""

from dataclasses import replace

from harness.fleet_world import SimulatedEdge, SimulatedVerifier

from orchestrator.fleet import EdgeGone, EdgeSeen, PolicySeen, Telemetry, VerifierGone, VerifierSeen
from orchestrator.intake import Intake
from orchestrator.planner import REVISION_MOST
from paceline.control.messages import EdgePolicy, Presence
from paceline.topics import (
    EDGE_POLICY,
    EDGE_PRESENCE,
    EDGE_TELEMETRY,
    ORCHESTRATOR_PRESENCE,
    VERIFIER_STATUS,
    Received,
)

HERE = Presence(online=True, incarnation=1)
POLICY = EdgePolicy(revision=1, draft_length=4, window=8)


def telemetry(name: str, *, times: int = 1) -> Received:
    edge = SimulatedEdge(edge_id=name)
    for _ in range(times):
        value = edge.advance(5.0)
    return Received(topic=EDGE_TELEMETRY, member=name, value=value)


def test_the_newest_telemetry_of_each_edge_wins_and_the_rest_is_counted() -> None:
    intake = Intake()
    for number in range(1, 101):
        intake.add(telemetry("flood", times=min(number, 3)), at_s=number)
        if number == 50:
            intake.add(telemetry("calm"), at_s=50.5)
    events = intake.take()
    assert [(event.edge_id, event.at_s) for event in events if isinstance(event, Telemetry)] == [
        ("calm", 50.5),
        ("flood", 100),
    ]
    assert intake.statistics.num_shed == 99
    assert intake.statistics.num_telemetry == 101
    assert intake.is_empty


def test_too_many_edges_push_out_the_one_that_waits_longest() -> None:
    intake = Intake(max_edges=3)
    for number in range(5):
        intake.add(telemetry(f"e{number}"), at_s=number)
    kept = [event.edge_id for event in intake.take() if isinstance(event, Telemetry)]
    assert kept == ["e2", "e3", "e4"]
    assert intake.statistics.num_shed == 2


def test_who_is_there_is_never_shed_and_comes_first_in_order() -> None:
    intake = Intake(max_edges=1, max_certain=6)
    gone = replace(HERE, online=False)
    status = SimulatedVerifier(verifier_id="v", address="v:1").advance(2.0)
    intake.add(telemetry("a"), at_s=0.0)
    for presence in (HERE, gone, replace(HERE, incarnation=2)):
        intake.add(Received(topic=EDGE_PRESENCE, member="a", value=presence), at_s=1.0)
    intake.add(Received(topic=VERIFIER_STATUS, member="v", value=status), at_s=2.0)
    intake.add(Received(topic=EDGE_POLICY, member="a", value=POLICY), at_s=3.0)
    assert not intake.is_full
    for _ in range(100):
        intake.add(telemetry("b"), at_s=4.0)
    intake.add(Received(topic=EDGE_PRESENCE, member="b", value=HERE), at_s=5.0)
    assert intake.is_full, "whoever reads must wait now"
    events = intake.take()
    kinds = [type(event) for event in events]
    assert kinds == [EdgeSeen] * 3 + [VerifierSeen, PolicySeen, EdgeSeen, Telemetry]
    assert not intake.is_full


def test_a_cleared_topic_means_that_the_member_is_gone() -> None:
    intake = Intake()
    intake.add(Received(topic=EDGE_PRESENCE, member="a", value=None), at_s=1.0)
    intake.add(Received(topic=VERIFIER_STATUS, member="v", value=None), at_s=1.0)
    intake.add(Received(topic=EDGE_POLICY, member="a", value=None), at_s=1.0)
    assert intake.take() == (EdgeGone(edge_id="a"), VerifierGone(verifier_id="v"))
    assert intake.statistics.num_received == 3


def test_what_is_not_about_members_is_left_out() -> None:
    intake = Intake()
    intake.add(Received(topic=ORCHESTRATOR_PRESENCE, member="", value=HERE), at_s=1.0)
    assert intake.is_empty


def test_a_revision_that_no_next_one_could_follow_is_not_ours() -> None:
    intake = Intake()
    absurd = replace(POLICY, revision=2**64 - 1)
    intake.add(Received(topic=EDGE_POLICY, member="a", value=absurd), at_s=1.0)
    assert intake.take() == ()
    real = replace(POLICY, revision=REVISION_MOST - 1)
    intake.add(Received(topic=EDGE_POLICY, member="a", value=real), at_s=1.0)
    assert intake.take() == (PolicySeen(edge_id="a", policy=real),)
