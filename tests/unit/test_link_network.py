"""The model as a whole: jitter and capacity through a link, profiles, and how a network is written."""

import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import ConfigError
from simulator.link import Link, LinkSettings, OneWay
from simulator.network import Network, NetworkSettings
from simulator.notation import parse_network, refuse_recordings
from simulator.profiles import PROFILES
from simulator.traces import DeliveryTrace, RttSeries, RttSummary
from simulator.transmitter import VaryingRate
from simulator.weather import Noise

SERIES = RttSeries(
    summaries=(RttSummary(best_s=0.04, mean_s=0.05, stddev_s=0.01, loss=0.0),), interval_s=1.0
)


def varying(rate_bps: float = 1e6) -> VaryingRate:
    return VaryingRate(rate_bps, noise=Noise(num_squares=4, correlation_s=0.5, seed=(1,)))


def test_jitter_comes_on_top_and_messages_sent_at_once_still_arrive_together() -> None:
    link = Link(LinkSettings(delay_s=0.25, jitter_s=0.01), seed=(3,))
    assert len({link.send(50, now_s=1.0) for _ in range(100)}) == 1
    trips_s = [link.send(0, now_s=2.0 + number) - 2.0 - number for number in range(500)]
    assert min(trips_s) >= 0.25
    # Exponential, 10 correlation times apart: 500 independent values; 6 standard errors, chance 2e-9.
    assert sum(trips_s) / 500 - 0.25 == pytest.approx(0.01, rel=6 / math.sqrt(500))


def test_up_and_down_have_weather_of_their_own() -> None:
    way = LinkSettings(jitter_s=0.01)
    network = Network(NetworkSettings(up=way, down=way), seed=1)
    up_s, down_s = (link.conditions.travel_s(1.0) for link in (network.up, network.down))
    assert up_s != down_s
    assert network.round_trip_s(1.0) == pytest.approx(
        up_s + network.down.conditions.travel_s(1.0 + up_s)
    )


@given(
    sizes=st.lists(st.integers(0, 100_000), min_size=1, max_size=10), begins_s=st.floats(0.0, 50.0)
)
@settings(max_examples=30)
def test_a_varying_rate_sends_in_parts_as_in_one_and_backwards_as_forwards(
    sizes: list[int], begins_s: float
) -> None:
    transmitter = varying()
    ends_s = begins_s
    for size in sizes:
        ends_s = transmitter.ends_s(size, begins_s=ends_s)
    assert ends_s == pytest.approx(transmitter.ends_s(sum(sizes), begins_s=begins_s), abs=1e-6)
    assert transmitter.began_s(sum(sizes), ends_s=ends_s) == pytest.approx(begins_s, abs=1e-6)


def test_a_varying_rate_has_its_mean() -> None:
    # 400 s are 400 / (2 * 0.5) independent values of relative deviation 0.71: 6 standard errors are 21 %.
    ends_s = varying().ends_s(int(400 * 1e6 / 8), begins_s=0.0)
    assert ends_s == pytest.approx(400.0, rel=6 * math.sqrt(0.5) / math.sqrt(400))


def test_a_change_of_settings_keeps_order_and_the_weather() -> None:
    way = LinkSettings(delay_s=0.05, jitter_s=0.01)
    network = Network(NetworkSettings(up=way, down=way), seed=5)
    connection = network.connect()
    late_s = connection.up.leaves_at(1.0, 10)
    network.settings = NetworkSettings()
    assert connection.up.leaves_at(1.001, 10) == late_s
    before_s = network.round_trip_s(3.0)
    network.settings = NetworkSettings(up=way, down=way)
    assert before_s == 0.0
    assert network.round_trip_s(3.0) == Network(network.settings, seed=5).round_trip_s(3.0)


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        (
            {"trace": DeliveryTrace(times_ms=(5,)), "bandwidth_bps": 1e6},
            "trace: got a bandwidth too",
        ),
        ({"series": SERIES, "jitter_s": 0.1}, "series: got a delay, jitter or loss too"),
        ({"bandwidth_spread": 0.5}, "bandwidth_spread: got no bandwidth_bps"),
        ({"bandwidth_bps": 1e6, "bandwidth_spread": 1.1}, "bandwidth_spread: got 1.1"),
        ({"loss": 0.95}, "loss: got 0.95"),
        ({"jitter_correlation_s": 0.0}, "jitter_correlation_s: got 0.0"),
    ],
)
def test_settings_that_exclude_each_other_are_refused(fields: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        LinkSettings(**fields)


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_carries_a_stream_in_order(name: str) -> None:
    network = Network(parse_network(name), seed=1)
    connection = network.connect()
    now_s = connection.opens_at(0.0)
    up: OneWay = connection.up
    leaves_s = [up.leaves_at(now_s + number * 0.05, 200) for number in range(400)]
    assert leaves_s == sorted(leaves_s)
    assert all(
        leaves >= now_s + index * 0.05 + network.up.settings.delay_s
        for index, leaves in enumerate(leaves_s)
    )


@pytest.mark.slow
def test_the_lte_profile_has_the_round_trip_it_is_documented_with() -> None:
    """50 ms and jitter of 5 and 0.8 ms on average; 4,000 trips 0.5 s apart, 25 correlation times."""
    network = Network(parse_network("lte"), seed=2)
    trips_s = [network.round_trip_s(number * 0.5) for number in range(4000)]
    mean_s, deviation_s = 0.0558, math.hypot(0.005, 0.0008)
    assert min(trips_s) >= 0.05
    assert abs(sum(trips_s) / 4000 - mean_s) < 6 * deviation_s / math.sqrt(4000)


def test_a_network_is_written_in_three_ways_that_mean_the_same() -> None:
    text = parse_network("lte,rtt=80ms,loss=1%,up.bandwidth=1mbit,up.jitter=3ms")
    toml = parse_network(
        'profile = "lte"\nrtt = 0.08\nloss = 0.01\n[up]\nbandwidth = 1e6\njitter = "3ms"\n'
    )
    table = parse_network(
        {
            "profile": "lte",
            "rtt": "80ms",
            "loss": "1%",
            "up": {"bandwidth": "1mbit", "jitter": 0.003},
        }
    )
    assert text.up == toml.up == table.up
    assert text.down == toml.down == table.down
    assert (text.up.delay_s, text.up.loss, text.up.bandwidth_bps) == (0.04, 0.01, 1e6)
    assert text.down.bandwidth_bps == PROFILES["lte"].down.bandwidth_bps
    assert text.name == "lte,rtt=80ms,loss=1%,up.bandwidth=1mbit,up.jitter=3ms"
    assert (toml.name, parse_network({"profile": "lte"}).name) == ("lte, changed", "lte")


def test_jitter_of_the_network_is_that_of_the_round_trip() -> None:
    network = parse_network("rtt=60ms,jitter=10ms")
    assert math.hypot(network.up.jitter_s, network.down.jitter_s) == pytest.approx(0.01)


def test_recordings_take_the_place_of_what_a_profile_says(tmp_path: Path) -> None:
    (tmp_path / "a.up").write_text("5\n10\n", encoding="ascii")
    (tmp_path / "pings.csv").write_text(
        "ping_best,ping_avg,ping_stddev,packet_loss\n40,50,9,1\n", encoding="ascii"
    )
    network = parse_network(
        f"lte,up.trace={tmp_path / 'a.up'},series={tmp_path / 'pings.csv'},series_interval=10s"
    )
    assert network.up.trace is not None
    assert network.up.trace.times_ms == (5, 10)
    assert network.down.bandwidth_bps == PROFILES["lte"].down.bandwidth_bps
    assert network.up.series == network.down.series
    assert network.up.series is not None
    assert network.up.series.interval_s == 10.0


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("lt", "profile 'lt' is not known; did you mean 'lte'"),
        ("", "expected KEY=VALUE"),
        ("lte,loss", "got 'loss'"),
        ("lte,los=1%", "key 'los' is not known; did you mean 'loss'"),
        ("up.rtt=5ms", "key 'up.rtt' is not known"),
        ("rtt=5", "rtt: duration: got no unit"),
        ("rtt=5ms,rtt=6ms", "rtt: got it twice"),
        ("rtt=5ms,delay=6ms", "delay: got rtt too"),
        ("loss=x", "loss: got 'x', expected a share"),
        ("loss=95%", "up: loss: got 0.95, expected 0 to 0.9"),
        ("down.jitter=2h", "down: jitter_s: got 7200.0, expected 0 to 60"),
        ("bandwidth=fast", "bandwidth: bandwidth: got 'fast'"),
        ("queue_bytes=1k", "queue_bytes: got '1k'"),
        ("up.bandwidth_spread=50%", "got no bandwidth_bps"),
        ("lte,bandwidth_spread=5%", "bandwidth_spread: got 0.05"),
        ("trace=/does/not/exist", "trace: cannot read /does/not/exist"),
        ("[up\nrtt=5", "not valid TOML"),
        ({"up": 5}, "up: got 5, expected a table"),
        ({"rtt": True}, "rtt: got True"),
        ({"rtt": 10**400}, "delay_s: got inf"),
        ({"rtt": float("nan")}, "delay_s: got"),
        ({"profile": ["lte"]}, "profile"),
        ({"trace": 5}, "trace: got 5, expected the name of a file"),
        ({"queue_bytes": 1.5}, "queue_bytes: got 1.5"),
    ],
)
def test_what_is_wrong_names_the_key(written: str | dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError) as refused:
        parse_network(written)
    assert str(refused.value).startswith("network: ")
    assert told in str(refused.value)


def test_whoever_is_not_at_the_machine_names_no_files() -> None:
    with pytest.raises(ConfigError, match="expected no file"):
        parse_network("series=/etc/passwd", read=refuse_recordings)


@given(st.text(max_size=60))
def test_any_text_is_a_network_or_an_error(text: str) -> None:
    told = "network: "
    try:
        parse_network(text, read=refuse_recordings)
    except ConfigError as error:
        told = str(error)
    assert told.startswith("network: ")


def test_every_profile_is_documented_as_it_is_and_says_where_it_is_from() -> None:
    page = (Path(__file__).parents[2] / "docs" / "link.md").read_text(encoding="utf-8")
    rows = dict(
        re.findall(
            r"^\| ([a-z-]+) \| (.+) \|$", page.split("## Profiles")[1].split("## ")[0], re.MULTILINE
        )
    )
    assert set(PROFILES) <= set(rows)
    for name, profile in PROFILES.items():
        rtt, jitter, bandwidth, _, source = (cell.strip() for cell in rows[name].split(" | "))
        assert float(rtt.removesuffix(" ms")) == pytest.approx(
            (profile.up.delay_s + profile.down.delay_s) * 1e3
        )
        for number in {profile.up.jitter_s, profile.down.jitter_s}:
            assert f"{number * 1e3:g}" in re.findall(r"[\d.]+", jitter)
        for rate_bps in {profile.up.bandwidth_bps, profile.down.bandwidth_bps}:
            assert rate_bps is not None
            assert f"{rate_bps / 1e6:g}" in re.findall(r"[\d.]+", bandwidth)
        assert len(source) > 20
    assert "*What happens inside an interval is made up*" in page
