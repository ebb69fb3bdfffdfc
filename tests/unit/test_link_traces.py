"""Recorded links: what their files may hold, and that they drive the link as recorded."""

import itertools
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import default_rng

from paceline.errors import ConfigError
from simulator.conditions import Recorded
from simulator.link import Link, LinkSettings
from simulator.traces import (
    OPPORTUNITY_BYTES,
    DeliveryTrace,
    RttSeries,
    RttSummary,
    parse_delivery_trace,
    parse_rtt_series,
)

STARLINK = Path(__file__).parents[1] / "data" / "links" / "starlink_rtt_excerpt.csv"


def trace(*times_ms: int) -> DeliveryTrace:
    return DeliveryTrace(times_ms=times_ms)


def phone_trace(num: int = 5000) -> DeliveryTrace:
    """Return a trace with pauses and several opportunities in one millisecond, as phones have them."""
    generator = default_rng(1)
    gaps = generator.choice(
        [0, 0, 1, 1, 2, 3, 8, 200], size=num, p=[0.2, 0.2, 0.2, 0.2, 0.1, 0.05, 0.045, 0.005]
    )
    return DeliveryTrace(times_ms=tuple(gaps.cumsum().tolist()))


def test_throughput_under_a_trace_is_the_traces() -> None:
    recorded = phone_trace()
    link = Link(LinkSettings(trace=recorded))
    size = 3 * len(recorded.times_ms) * OPPORTUNITY_BYTES  # three times around
    chunk = 1000  # no divisor of an opportunity: what one chunk leaves of it is the next one's
    ends_s = [link.send(chunk, now_s=0.0) for _ in range(size // chunk)]
    assert ends_s[-1] == 3 * recorded.times_ms[-1] / 1e3
    assert size * 8 / ends_s[-1] == pytest.approx(recorded.mean_bps)
    # At no time more or less than the trace had, to one opportunity.
    sent = dict(zip(ends_s, itertools.count(1), strict=False))
    for end_s, count in list(sent.items())[::97]:
        had = sum(1 for number in range(5000) if recorded.time_s(number) <= end_s)
        if had < 5000:
            assert abs(count * chunk - had * OPPORTUNITY_BYTES) < OPPORTUNITY_BYTES + chunk


def test_what_is_not_used_of_an_opportunity_is_lost() -> None:
    link = Link(LinkSettings(trace=trace(10, 20, 30)))
    assert link.send(100, now_s=0.0) == 0.01
    assert link.send(100, now_s=0.005) == 0.01  # the same opportunity has room
    assert link.send(1500, now_s=0.008) == 0.02
    assert link.send(100, now_s=0.0101) == 0.02
    assert link.send(1, now_s=0.021) == 0.03
    assert link.send(1, now_s=0.031) == 0.04  # from the start again
    assert link.send(0, now_s=0.055) == 0.055


def test_the_queue_before_a_trace_is_bounded_in_bytes() -> None:
    link = Link(LinkSettings(trace=trace(*range(1, 101)), queue_bytes=15_000))
    assert link.room_in_s(now_s=0.0) == 0.0
    link.send(30_000, now_s=0.0)
    assert link.room_in_s(now_s=0.0) == pytest.approx(0.010)
    assert link.room_in_s(now_s=0.010) == 0.0


@given(st.integers(min_value=0, max_value=10_000))
def test_the_first_opportunity_from_a_time_is_found_in_every_repetition(number: int) -> None:
    recorded = trace(0, 3, 3, 7, 20)
    found = recorded.first_from(recorded.time_s(number))
    assert recorded.time_s(found) == recorded.time_s(number)
    assert found <= number
    assert found == 0 or recorded.time_s(found - 1) < recorded.time_s(found)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("1\n2.5\n", "line 2: got '2.5'"),
        ("-1\n", "line 1"),
        ("5\n4\n", "times fall"),
        ("\n", "no opportunity"),
        ("0\n0\n", "no opportunity"),
        ("999999999999\n", "line 1"),
    ],
)
def test_a_wrong_trace_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_delivery_trace(text.splitlines(), name="t")


def test_a_series_is_read_with_its_units() -> None:
    with STARLINK.open(encoding="utf-8", newline="") as lines:
        series = parse_rtt_series(lines, interval_s=25.0, name="starlink")
    assert len(series.summaries) == 40
    assert series.at(40) == series.at(0)
    first = series.at(0)
    told = (first.best_s, first.mean_s, first.stddev_s, first.loss)
    assert told == pytest.approx((0.0461, 0.057737, 0.00818, 0.004))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("ping_best,ping_avg\n1,2\n", "ping_stddev: got nothing"),
        ("ping_best,ping_avg,ping_stddev,packet_loss\n1,x,1,0\n", "line 2: ping_avg: got 'x'"),
        ("ping_best,ping_avg,ping_stddev,packet_loss\n3,2,1,0\n", "best 3.0, average 2.0"),
        ("ping_best,ping_avg,ping_stddev,packet_loss\n1,2,1,101\n", "loss 101"),
        ("ping_best,ping_avg,ping_stddev,packet_loss\n1,2,nan,0\n", "ping_stddev: got 'nan'"),
        ("ping_best,ping_avg,ping_stddev,packet_loss\n", "got 0 summaries"),
    ],
)
def test_a_wrong_series_is_told(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        parse_rtt_series(text.splitlines(), interval_s=25.0, name="s")


@pytest.mark.slow
def test_what_is_made_up_between_summaries_has_their_figures() -> None:
    """Pings 0.1 s apart, as recorded: best, mean, deviation and loss over all runs.

    A run's mean is off by 1 / sqrt(250 (1 - r) / (1 + r)) of the deviation, with r = exp(-2): 7 %; the sum over 40 runs by
    1.2 %, and 7 % are 6 standard errors. The deviation is off by sqrt(kurtosis - 1) / 2 of that, 2 % for the kurtosis of
    9 or more that these tails have, and a little low for each finite run: 15 %.
    """
    with STARLINK.open(encoding="utf-8", newline="") as lines:
        series = parse_rtt_series(lines, interval_s=25.0, name="starlink")
    up, down = (Recorded(series, seed=(1, is_down), is_down=is_down) for is_down in (False, True))
    excess, deviations, wanted_excess, wanted_deviations = 0.0, 0.0, 0.0, 0.0
    for index, summary in enumerate(series.summaries):
        times_s = [index * 25.0 + number * 0.1 for number in range(250)]
        trips_s = [up.travel_s(time_s) + down.travel_s(time_s) for time_s in times_s]
        lost = sum(up.loses_all(time_s) for time_s in times_s)
        assert [up.loses_all(t) for t in times_s] == [down.loses_all(t) for t in times_s]
        assert abs(lost - summary.loss * 250) <= 1
        assert min(trips_s) >= summary.best_s
        mean_s = sum(trips_s) / 250
        excess += mean_s - summary.best_s
        wanted_excess += summary.mean_s - summary.best_s
        deviations += math.sqrt(sum((trip_s - mean_s) ** 2 for trip_s in trips_s) / 250)
        wanted_deviations += summary.stddev_s
    assert excess == pytest.approx(wanted_excess, rel=0.07)
    assert deviations == pytest.approx(wanted_deviations, rel=0.15)


def test_an_outage_lasts_as_long_as_the_lost_share() -> None:
    summary = RttSummary(best_s=0.04, mean_s=0.04, stddev_s=0.0, loss=0.5)
    series = RttSeries(summaries=(summary,), interval_s=10.0)
    one_way = Recorded(series, seed=(9, False), is_down=False)
    for repetition in range(20):
        lost = [one_way.loses_all(repetition * 10.0 + i * 0.01) for i in range(1000)]
        assert abs(sum(lost) - 500) <= 1
        assert sum(a != b for a, b in itertools.pairwise([False, *lost, False])) == 2
