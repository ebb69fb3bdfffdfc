"""Loss as TCP shows it: which delay a lost segment makes, and for whom."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.link import LinkSettings
from simulator.network import Network, NetworkSettings
from simulator.tcp import MAX_TIMEOUT_S, SEGMENT_BYTES, RoundTrips
from simulator.traces import RttSeries, RttSummary

DELAY_S = 0.03
RTT_S = 2 * DELAY_S


def broken(*, from_s: float, to_s: float) -> Network:
    """Return a network that loses everything for a while on the way up; round trip 60 ms."""
    works, fails = (
        RttSummary(best_s=RTT_S, mean_s=RTT_S, stddev_s=0.0, loss=loss) for loss in (0.0, 1.0)
    )
    step_s = to_s - from_s
    before = round(from_s / step_s)
    series = RttSeries(summaries=(*[works] * before, fails, *[works] * 10_000), interval_s=step_s)
    return Network(
        NetworkSettings(up=LinkSettings(series=series), down=LinkSettings(delay_s=DELAY_S))
    )


def lossy(
    loss: float, *, seed: int = 0, burst_s: float = 0.0, bandwidth_bps: float | None = None
) -> Network:
    way = LinkSettings(
        delay_s=DELAY_S, loss=loss, loss_burst_s=burst_s, bandwidth_bps=bandwidth_bps
    )
    return Network(NetworkSettings(up=way, down=LinkSettings(delay_s=DELAY_S)), seed=seed)


def test_nothing_lost_is_no_delay() -> None:
    connection = broken(from_s=10.0, to_s=20.0).connect()
    assert connection.opens_at(0.0) == RTT_S
    assert connection.up.leaves_at(1.0, 100) == 1.0 + DELAY_S
    assert connection.num_lost == 0


def test_a_message_after_a_pause_waits_for_the_time_out_which_doubles() -> None:
    connection = broken(from_s=10.0, to_s=20.0).connect()
    connection.opens_at(0.0)
    connection.up.leaves_at(1.0, 100)
    connection.up.leaves_at(5.0, 100)
    # Sent 10 ms after everything fails; back at 20 s. The time-out is 200 ms: srtt + 4 rttvar is less.
    # Copies at 0.2, 0.6, 1.4, 3.0, 6.2 and 12.6 s after it; the last one gets through.
    assert connection.up.leaves_at(10.01, 100) == pytest.approx(10.01 + 12.6 + DELAY_S)
    assert connection.num_lost == 6


def test_a_lost_segment_of_a_stream_costs_a_round_trip_after_the_third_one_behind_it() -> None:
    # The failure lasts 5 ms and takes one message of a stream that sends every 10 ms.
    connection = broken(from_s=0.105, to_s=0.11).connect()
    connection.opens_at(0.0)
    for number in range(1, 10):
        assert connection.up.leaves_at(0.01 * number, 100) == pytest.approx(0.01 * number + DELAY_S)
    leaves_s = connection.up.leaves_at(0.106, 100)
    # The last three were 16, 26 and 36 ms before it, so the next ones are expected at 16, 26 and 36 ms after it.
    assert leaves_s == pytest.approx(0.106 + 0.036 + RTT_S + DELAY_S)


def test_what_is_behind_a_lost_segment_waits_and_other_connections_do_not() -> None:
    network = broken(from_s=0.005, to_s=0.01)
    blocked, other = network.connect(), network.connect()
    for connection in (blocked, other):
        connection.opens_at(0.0)
    late_s = blocked.up.leaves_at(0.006, 100)
    assert late_s == pytest.approx(0.006 + 0.2 + DELAY_S)
    assert blocked.up.leaves_at(0.01, 100) == late_s
    assert other.up.leaves_at(0.01, 100) == pytest.approx(0.01 + DELAY_S)
    assert blocked.up.leaves_at(0.3, 100) == pytest.approx(0.3 + DELAY_S)


def test_a_large_message_tells_of_its_own_losses() -> None:
    # 100 segments in 100 ms; one lost in the middle is told of by the three behind it: no time-out.
    network = lossy(0.01, seed=4, bandwidth_bps=SEGMENT_BYTES * 8 / 1e-3)
    connection = network.connect()
    connection.opens_at(0.0)
    leaves_s = connection.up.leaves_at(1.0, 100 * SEGMENT_BYTES)
    assert connection.num_lost > 0
    assert 1.1 + DELAY_S <= leaves_s <= 1.1 + 0.003 + RTT_S + DELAY_S + 1e-9


def test_opening_is_tried_again_after_a_second() -> None:
    connection = broken(from_s=10.0, to_s=20.0).connect()
    assert connection.opens_at(19.5) == pytest.approx(19.5 + 1.0 + RTT_S)


def test_round_trips_are_kept_as_the_rfc_says() -> None:
    known = RoundTrips()
    assert known.timeout_s == 1.0
    known.note(0.1)
    assert known.timeout_s == pytest.approx(0.1 + 4 * 0.05)
    known.note(0.2)
    # rttvar = 0.75 * 0.05 + 0.25 * 0.1; srtt = 0.875 * 0.1 + 0.125 * 0.2 (RFC 6298, section 2.3)
    assert known.timeout_s == pytest.approx(0.1125 + 4 * 0.0625)
    for _ in range(200):
        known.note(0.01)
    assert known.timeout_s == 0.2
    known.note(1e6)
    assert known.timeout_s == MAX_TIMEOUT_S


def test_single_losses_have_their_rate_and_are_independent() -> None:
    # 5 % of 20,000: 1,000 +- 31; 6 standard errors are left with probability 2e-9.
    connection = lossy(0.05, seed=2).connect()
    was_lost: list[bool] = []
    for number in range(20_000):
        before = connection.num_lost
        connection.up.leaves_at(number * 100.0, 100)  # far apart: copies come before the next one
        was_lost.append(connection.num_lost > before)
    assert abs(sum(was_lost) - 1000) < 6 * math.sqrt(20_000 * 0.05 * 0.95)
    after_loss = [now for before, now in itertools.pairwise(was_lost) if before]
    assert abs(sum(after_loss) / len(after_loss) - 0.05) < 6 * math.sqrt(
        0.05 * 0.95 / len(after_loss)
    )


@pytest.mark.slow
@given(
    seed=st.integers(0, 1000),
    loss=st.sampled_from([0.0, 0.05, 0.5, 0.9]),
    burst_s=st.sampled_from([0.0, 0.05, 2.0]),
    jitter_s=st.sampled_from([0.0, 0.02]),
    spread=st.sampled_from([0.0, 1.0]),
    steps=st.lists(
        st.tuples(st.floats(0.0, 2.0), st.integers(0, 20_000), st.integers(0, 2)), max_size=40
    ),
)
@settings(max_examples=60)
def test_order_is_kept_within_a_stream_and_nothing_is_faster_than_light(
    seed: int,
    loss: float,
    burst_s: float,
    jitter_s: float,
    spread: float,
    steps: list[tuple[float, int, int]],
) -> None:
    way = LinkSettings(
        delay_s=DELAY_S,
        jitter_s=jitter_s,
        loss=loss,
        loss_burst_s=burst_s,
        bandwidth_bps=1e6,
        bandwidth_spread=spread,
    )

    def times() -> list[list[float]]:
        network = Network(NetworkSettings(up=way, down=way), seed=seed)
        connections = [network.connect() for _ in range(3)]
        leaves_s: list[list[float]] = [[], [], []]
        now_s = 0.0
        for pause_s, size, which in steps:
            now_s += pause_s
            leaves_s[which].append(connections[which].up.leaves_at(now_s, size))
            assert leaves_s[which][-1] >= now_s + DELAY_S
        return leaves_s

    first = times()
    assert all(stream == sorted(stream) for stream in first)
    assert times() == first  # the seed decides everything


def test_more_messages_change_nothing_for_the_weather_of_others() -> None:
    way = LinkSettings(delay_s=DELAY_S, jitter_s=0.01, loss=0.3, loss_burst_s=0.5)
    quiet, busy = (Network(NetworkSettings(up=way, down=way), seed=1) for _ in range(2))
    seldom, chatter = busy.connect(), busy.connect()
    alone = quiet.connect()
    for number in range(200):
        chatter.up.leaves_at(number * 1.0, 10)
        assert seldom.up.leaves_at(number + 0.5, 10) == alone.up.leaves_at(number + 0.5, 10)
