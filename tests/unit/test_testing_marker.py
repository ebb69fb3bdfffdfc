"""What the markers of a test say, and networks as they are written and changed."""

from typing import Any

import pytest

from paceline.errors import ConfigError
from simulator.notation import parse_network
from simulator.testing import network
from simulator.testing.marker import Mark, Time, described
from simulator.testing.relayed import server_address
from simulator.testing.written import WrittenNetwork, seconds


def test_each_option_and_the_network_are_those_of_the_nearest_marker_that_has_them() -> None:
    marks = [
        Mark(keys={"seed": 3}),
        Mark(args=("lte",), keys={"loss": "1%"}),
        Mark(args=("wan",), keys={"jitter": "5ms", "time": "real", "seed": 9}),
    ]
    got = described(marks)
    assert got.written == "lte"
    assert got.keys == {"loss": "1%"}
    assert got.times == (Time.REAL,)
    assert got.seeds == (3,)


def test_a_marker_that_says_nothing_is_somebody_else_s() -> None:
    got = described([Mark(keys={})])
    assert (got.written, got.keys, got.times, got.seeds) == (None, {}, (), ())


def test_times_and_seeds_may_be_several() -> None:
    got = described([Mark(keys={"time": ["virtual", "real"], "seed": range(2, 5)})])
    assert got.times == (Time.VIRTUAL, Time.REAL)
    assert got.seeds == (2, 3, 4)


@pytest.mark.parametrize(
    ("args", "keys", "told"),
    [
        (("lte", "wan"), {}, "network: got 2 arguments without a name, 'lte', 'wan'"),
        ((80,), {}, "network: got 80, expected a profile"),
        (("moon",), {}, "network: profile 'moon' is not known"),
        ((), {"rtt": "80"}, "network: rtt: "),
        ((), {"lose": "1%"}, "network: key 'lose' is not known; did you mean 'loss'"),
        ((), {"loss": 1.5}, "loss: got 1.5"),
        ((), {"up": {"rate": "1mbit"}}, "network: key 'up.rate' is not known"),
        ((), {"up": 5}, "network: up: got 5, expected a table"),
        ((), {"time": "unreal"}, 'time: got \'unreal\', expected "virtual", "real"'),
        ((), {"time": []}, "time: got []"),
        ((), {"time": 5}, "time: got 5"),
        ((), {"time": ["real", "real"]}, "time: got ['real', 'real']"),
        ((), {"seed": -1}, "seed: got -1, expected a whole number from 0 on"),
        ((), {"seed": True}, "seed: got True"),
        ((), {"seed": "7"}, "seed: got '7'"),
        ((), {"seed": range(0)}, "seed: got range(0, 0)"),
        ((), {"seed": [1, 1]}, "seed: got [1, 1]"),
        ((), {"seed": range(2)}, "seed: got 2 values, expected one"),
    ],
)
def test_nonsense_is_told_by_the_name_of_its_field(
    args: tuple[Any, ...], keys: dict[str, Any], told: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        network(*args, **keys)
    assert told in str(raised.value)


def test_keys_change_a_profile_and_a_network_that_is_there() -> None:
    first = WrittenNetwork.read("lte,loss=1%", {"up": {"bandwidth": "1mbit"}})
    assert first.settings == parse_network(
        {"profile": "lte", "loss": "1%", "up": {"bandwidth": "1mbit"}}
    )
    then = first.changed(None, {"rtt": "200ms", "up": {"jitter": "1ms"}})
    assert then.settings == parse_network(
        {
            "profile": "lte",
            "loss": "1%",
            "rtt": "200ms",
            "up": {"bandwidth": "1mbit", "jitter": "1ms"},
        }
    )
    assert then.label == "lte,loss=1%,up.bandwidth=1mbit,up.jitter=1ms,rtt=200ms"
    assert parse_network(then.label).up == then.settings.up
    # Half a round trip, written in the other way.
    assert then.changed(None, {"delay": 0.05}).settings.down.delay_s == 0.05
    assert then.changed("wan", {}).settings == parse_network("wan")


def test_a_profile_alone_keeps_its_name() -> None:
    assert WrittenNetwork.read("lte", {}).settings.name == "lte"
    assert WrittenNetwork.read(None, {}).settings == parse_network({})


def test_durations_are_written_or_seconds() -> None:
    assert seconds("250ms") == 0.25
    assert seconds(2) == 2.0


@pytest.mark.parametrize(
    ("to", "expected"),
    [
        ("127.0.0.1:80", "127.0.0.1:80"),
        (8000, "127.0.0.1:8000"),
        (("0.0.0.0", 8000), "127.0.0.1:8000"),
        (("::1", 8000, 0, 0), "[::1]:8000"),
    ],
)
def test_a_server_is_named_as_it_comes(to: Any, expected: str) -> None:
    assert str(server_address(to)) == expected


@pytest.mark.parametrize("to", [0, True, 70000, None, ("host",), "nowhere"])
def test_what_is_no_server_is_refused(to: Any) -> None:
    with pytest.raises(ConfigError, match=r"link: got|address: got"):
        server_address(to)
