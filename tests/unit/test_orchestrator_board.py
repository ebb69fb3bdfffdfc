"""What pages are shown: rows, changes, figures, and hostile texts."""

import asyncio
import contextlib
import json
from dataclasses import replace
from typing import Any

import pytest
from harness.fleet_world import TARGET, SimulatedEdge, SimulatedVerifier

from orchestrator.board import Board
from orchestrator.feed import MAX_READERS, MAX_WAITING, Feed, sent_event
from orchestrator.figures import OwnFigures, Timings, counted
from orchestrator.fleet import (
    EdgeGone,
    EdgeSeen,
    Event,
    Fleet,
    Ignored,
    Pinned,
    PolicySeen,
    Telemetry,
    Tick,
    VerifierSeen,
    fold,
)
from orchestrator.history import HistoryStatistics
from orchestrator.intake import IntakeStatistics
from orchestrator.metrics import FIGURES
from paceline.control.messages import EdgePolicy, Presence
from paceline.errors import OverloadedError
from paceline.metrics.figures import Figures, new_registry
from paceline.metrics.serving import exposition
from paceline.mqtt.link import Statistics

HOSTILE = "<script>alert(1)</script>\"'&\u202e\x00:1"


def figures(fleet: Fleet, **changes: Any) -> OwnFigures:
    timings = Timings()
    for latency_s in (0.05, 0.06, 0.9):
        timings.decided(latency_s)
    edges, verifiers = counted(fleet)
    median_s, p99_s = timings.quantiles(0.5, 0.99)
    own = OwnFigures(
        uptime_s=10.0,
        is_connected=True,
        edges=edges,
        verifiers=verifiers,
        intake=IntakeStatistics(num_telemetry=7, num_status=2, num_shed=3),
        link=Statistics(malformed=4, shed=5),
        feed=Feed().statistics,
        history=HistoryStatistics(num_written=9, num_shed=0, num_failed=1, num_waiting=0),
        ignored=Ignored(stale=6),
        num_policies=3,
        latency=timings.latency.spread,
        fold=timings.fold.spread,
        plan=timings.plan.spread,
        latency_median_s=median_s,
        latency_p99_s=p99_s,
    )
    return replace(own, **changes)


def world(*more: Event) -> Fleet:
    """A fleet with an edge of three messages, a pinned one that is gone, and two verifiers."""
    edge = SimulatedEdge(edge_id="here", verifier="v:1")
    draining = SimulatedVerifier(verifier_id="old", address="old:1", draining=True).advance(2.0)
    policy = EdgePolicy(revision=3, draft_length=9, window=18, explanation="because")
    return fold(
        Fleet(),
        [
            *(
                Telemetry(edge_id="here", telemetry=edge.advance(5.0), at_s=5.0 * n)
                for n in range(3)
            ),
            PolicySeen(edge_id="here", policy=policy),
            EdgeSeen(edge_id="gone", presence=Presence(online=False, incarnation=5), at_s=1.0),
            Pinned(edge_id="gone", draft_length=2),
            VerifierSeen(
                verifier_id="v",
                status=SimulatedVerifier(verifier_id="v", address="v:1").advance(2.0),
                at_s=9.0,
            ),
            VerifierSeen(verifier_id="old", status=draining, at_s=9.0),
            *more,
        ],
    )


def board() -> Board:
    return Board(broker="b:1883", history="in memory", unix_offset_s=1000.0)


def test_a_page_gets_the_whole_fleet_with_sums_and_states() -> None:
    fleet, shown = world(), board()
    shown.note(fleet, now_s=10.0)
    page = json.loads(shown.everything(fleet, figures(fleet), now_s=10.0))
    here, gone = page["edges"]
    assert (here["id"], here["state"], here["verifier"], here["explanation"]) == (
        "here",
        "online",
        "v:1",
        "because",
    )
    assert here["tokens_per_s"] > 0.0
    assert here["heard_at_s"] == 1010.0
    assert (gone["state"], gone["pinned"], gone["acceptance_probability"]) == ("offline", 2, None)
    assert [row["state"] for row in page["verifiers"]] == ["online", "draining"]
    totals = page["totals"]
    assert (totals["num_edges"], totals["num_online"], totals["num_verifiers"]) == (2, 1, 2)
    assert totals["tokens_per_s"] == here["tokens_per_s"]
    own = page["orchestrator"]
    assert (own["num_shed"], own["num_malformed"], own["broker"]) == (8, 4, "b:1883")
    assert (own["decision_latency_median_s"], own["decision_latency_p99_s"]) == (0.06, 0.9)
    assert len(page["trend"]) == 1


def test_a_change_tells_what_differs_and_who_is_gone() -> None:
    fleet, shown = world(), board()
    own = figures(fleet)

    def change(now: Fleet, *, has_joined: bool = False) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(shown.change(now, own, now_s=10.0, has_joined=has_joined))
        return told

    assert len(change(fleet)["edges"]) == 2
    assert change(fleet)["edges"] == []
    assert len(change(fleet, has_joined=True)["edges"]) == 2
    silent = fold(fleet, [Tick(at_s=100.0), EdgeGone(edge_id="gone")])
    told = change(silent)
    assert [(row["id"], row["state"]) for row in told["edges"]] == [("here", "silent")]
    assert told["gone"] == ["gone"]


def test_a_trend_is_bounded_and_not_too_dense() -> None:
    fleet, shown = world(), board()
    for second in range(2000):
        shown.note(fleet, now_s=float(second))
    page = json.loads(shown.everything(fleet, figures(fleet), now_s=2000.0))
    moments = [point["at_s"] for point in page["trend"]]
    assert len(moments) == 120
    assert moments[1] - moments[0] == 5.0


def test_hostile_texts_stay_texts() -> None:
    verifier = SimulatedVerifier(
        verifier_id="v", address=HOSTILE, target=replace(TARGET, name=HOSTILE)
    )
    policy = EdgePolicy(revision=9, draft_length=1, window=2, explanation=HOSTILE)
    edge = SimulatedEdge(edge_id="here", verifier=HOSTILE, seed=9)
    fleet = world(
        VerifierSeen(verifier_id="evil", status=verifier.advance(2.0), at_s=9.0),
        Telemetry(edge_id="evil", telemetry=edge.advance(5.0), at_s=9.0),
        PolicySeen(edge_id="evil", policy=policy),
    )
    text = board().everything(fleet, figures(fleet), now_s=10.0)
    assert "\n" not in sent_event("fleet", text).decode()[len("event: fleet\n") : -2]
    page = json.loads(text)
    evil = next(row for row in page["edges"] if row["id"] == "evil")
    assert (evil["verifier"], evil["explanation"]) == (HOSTILE, HOSTILE)
    assert page["verifiers"][-1]["model"] == HOSTILE


def test_details_tell_policy_and_distances() -> None:
    fleet, shown = world(), board()
    details = shown.edge_details(fleet.edges["here"], explanation="all of it", now_s=10.0)
    assert details["explanation"] == "all of it"
    assert details["policy"]["revision"] == 3
    assert [known["address"] for known in details["verifiers"]] == ["v:1"]
    bare = shown.edge_details(fleet.edges["gone"], explanation="", now_s=10.0)
    assert (bare["policy"], bare["verifiers"]) == (None, [])


def test_prometheus_is_told_the_same() -> None:
    fleet = world()
    registry = new_registry("orchestrator")
    registry.register(Figures(lambda: figures(fleet), FIGURES))
    text = exposition(registry).text
    assert text is not None
    for line in (
        'paceline:orchestrator_edges{state="online"} 1.0',
        'paceline:orchestrator_edges{state="silent"} 0.0',
        'paceline:orchestrator_verifiers{state="draining"} 1.0',
        'paceline:orchestrator_messages_total{kind="telemetry"} 7.0',
        "paceline:orchestrator_messages_shed_total 8.0",
        "paceline:orchestrator_messages_malformed_total 4.0",
        'paceline:orchestrator_messages_ignored_total{reason="stale"} 6.0',
        "paceline:orchestrator_policies_total 3.0",
        "paceline:orchestrator_decision_latency_seconds_count 3.0",
        'paceline:orchestrator_history_rows_total{fate="failed"} 1.0',
    ):
        assert line in text.splitlines()


def test_a_slow_reader_is_dropped_and_the_others_read_on() -> None:
    async def scenario() -> None:
        feed, dropped = Feed(), []
        assert not feed.is_read
        with (
            feed.reading(lambda: dropped.append("slow")),
            feed.reading(lambda: dropped.append("quick")) as quick,
        ):
            assert feed.take_joined()
            assert not feed.take_joined()
            events = quick.events()
            for number in range(MAX_WAITING + 3):
                feed.publish(b"%d" % number)
                assert await anext(events) == b"%d" % number
            assert dropped == ["slow"]
            assert feed.statistics.num_dropped == 1
            assert feed.statistics.num_readers == 1
        assert not feed.is_read

    asyncio.run(scenario())


def test_readers_are_bounded() -> None:
    async def scenario() -> None:
        feed = Feed()
        with contextlib.ExitStack() as stack:
            for _ in range(MAX_READERS):
                stack.enter_context(feed.reading(lambda: None))
            with pytest.raises(OverloadedError, match="limit"), feed.reading(lambda: None):
                pass
        with feed.reading(lambda: None):
            assert feed.statistics.num_readers == 1

    asyncio.run(scenario())
