"""Rates and rows of history from sums."""

from dataclasses import replace

import pytest
from harness.fleet_world import SimulatedEdge, SimulatedVerifier

from orchestrator.fleet import Fleet, Telemetry, Tick, VerifierSeen, fold
from orchestrator.rates import (
    NOTHING,
    Done,
    EdgeRecorder,
    VerifierMeter,
    lately,
    total,
    verifier_rows,
)
from paceline.control.messages import EdgeCounters, EdgeTelemetry

EDGE = SimulatedEdge(edge_id="e").advance(5.0)


def told(
    at_s: float, sequence: int, *, incarnation: int = EDGE.incarnation, **counters: int
) -> Telemetry:
    value: EdgeTelemetry = replace(
        EDGE, incarnation=incarnation, sequence=sequence, counters=EdgeCounters(**counters)
    )
    return Telemetry(edge_id="e", telemetry=value, at_s=at_s)


def test_lately_divides_sums_over_the_last_quarter_of_a_minute() -> None:
    fleet = fold(
        Fleet(),
        [
            told(0.0, 1),
            told(5.0, 2, committed=1000),
            told(10.0, 3, committed=1100, drafted=100, judged=80, accepted=40, late=5, stale=5),
            told(15.0, 4, committed=1150, drafted=300, judged=180, accepted=135, late=5, stale=25),
            told(18.0, 5, committed=1330, drafted=400, judged=230, accepted=175, late=9, stale=36),
        ],
    )
    done = lately(fleet.edges["e"], now_s=18.0)
    assert done.interval_s == 13.0
    assert done.tokens_per_s == pytest.approx(330 / 13)
    assert done.acceptance_probability == pytest.approx(175 / 230)
    assert done.waste == pytest.approx((55 + 9 + 36) / 400)


def test_a_silent_edge_does_nothing() -> None:
    fleet = fold(Fleet(), [told(0.0, 1), told(5.0, 2, committed=100)])
    edge = fleet.edges["e"]
    assert lately(edge, now_s=20.0).committed == 100
    assert lately(edge, now_s=26.0) == NOTHING
    silent = fold(fleet, [Tick(at_s=22.0)]).edges["e"]
    assert lately(silent, now_s=22.0) == NOTHING
    assert (NOTHING.tokens_per_s, NOTHING.acceptance_probability, NOTHING.waste) == (None,) * 3


def test_a_total_adds_sums_up() -> None:
    parts = [
        Done(interval_s=5.0, committed=1, drafted=10, judged=10, accepted=1, wasted=9),
        Done(interval_s=9.0, committed=2, drafted=90, judged=90, accepted=81, wasted=9),
    ]
    assert total(parts).acceptance_probability == pytest.approx(0.82)
    assert total(parts).waste == pytest.approx(0.18)


def test_rows_come_per_message_and_not_too_often() -> None:
    recorder = EdgeRecorder()
    fleet = fold(Fleet(), [told(100.0, 1, committed=50)])
    (first,) = recorder.rows(fleet, unix_s=1000.0, now_s=100.5)
    assert (first.at_s, first.interval_s, first.committed) == (999.5, 0.0, 0)
    assert list(recorder.rows(fleet, unix_s=1005.0, now_s=105.5)) == []
    fleet = fold(fleet, [told(102.0, 2, committed=60)])
    assert list(recorder.rows(fleet, unix_s=1002.0, now_s=102.0)) == []
    fleet = fold(fleet, [told(105.0, 3, committed=90, drafted=20)])
    (second,) = recorder.rows(fleet, unix_s=1005.0, now_s=105.0)
    assert (second.interval_s, second.committed, second.drafted) == (5.0, 40, 20)
    assert second.draft_length == EDGE.gauges.draft_length


def test_neither_a_restart_nor_a_long_silence_makes_a_peak() -> None:
    recorder = EdgeRecorder()
    fleet = fold(Fleet(), [told(0.0, 1, committed=50)])
    list(recorder.rows(fleet, unix_s=0.0, now_s=0.0))
    fleet = fold(fleet, [told(60.0, 2, committed=9000)])
    (row,) = recorder.rows(fleet, unix_s=60.0, now_s=60.0)
    assert (row.interval_s, row.committed) == (0.0, 0)
    fleet = fold(fleet, [told(65.0, 1, incarnation=EDGE.incarnation + 1, committed=20_000)])
    (row,) = recorder.rows(fleet, unix_s=65.0, now_s=65.0)
    assert (row.interval_s, row.committed) == (0.0, 0)


def test_verifiers_have_rates_and_rows_while_they_are_there() -> None:
    verifier, meter = SimulatedVerifier(verifier_id="v", address="v:1"), VerifierMeter()
    first, second = verifier.advance(2.0), verifier.advance(2.0)
    meter.add(first, at_s=0.0)
    meter.add(first, at_s=0.0)
    assert meter.tokens_per_s(now_s=0.0) is None
    meter.add(second, at_s=2.0)
    made = second.counters.committed - first.counters.committed
    assert meter.tokens_per_s(now_s=2.0) == pytest.approx(made / 2.0)
    assert meter.tokens_per_s(now_s=30.0) is None
    meter.add(replace(first, incarnation=7), at_s=4.0)
    assert meter.tokens_per_s(now_s=4.0) is None
    fleet = fold(Fleet(), [VerifierSeen(verifier_id="v", status=first, at_s=0.0)])
    (row,) = verifier_rows(fleet, unix_s=5.0)
    assert (row.verifier, row.at_s, row.max_sessions) == ("v", 5.0, first.max_sessions)
    assert list(verifier_rows(fold(fleet, [Tick(at_s=60.0)]), unix_s=65.0)) == []
