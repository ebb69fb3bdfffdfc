"""The rule of the link, without sockets or time."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paceline.errors import ConfigError
from simulator.link import Link, LinkSettings

MEGABYTE = 1_000_000


def test_a_message_without_size_takes_exactly_half_the_round_trip() -> None:
    link = Link(LinkSettings(delay_s=0.25, bandwidth_bps=1e6))
    assert link.send(0, now_s=10.0) == 10.25


def test_a_hundred_small_messages_sent_at_once_arrive_together() -> None:
    link = Link(LinkSettings(delay_s=0.25))
    assert {link.send(50, now_s=1.0) for _ in range(100)} == {1.25}


def test_only_sending_occupies_the_link() -> None:
    # 1000 bytes at 80 kbit/s take 0.1 s to send; the travel of 0.25 s overlaps with the next one's sending.
    link = Link(LinkSettings(delay_s=0.25, bandwidth_bps=80_000))
    arrivals_s = [link.send(1000, now_s=0.0) for _ in range(10)]
    assert arrivals_s == pytest.approx([0.25 + 0.1 * (i + 1) for i in range(10)])


def test_a_ping_waits_behind_a_transfer_that_was_there_first() -> None:
    link = Link(LinkSettings(delay_s=0.03, bandwidth_bps=8e6))
    assert link.send(MEGABYTE, now_s=0.0) == pytest.approx(1.03)
    assert link.backlog_s(now_s=0.4) == pytest.approx(0.6)
    ping_s = link.send(100, now_s=0.4)
    assert ping_s == pytest.approx(1.0 + 100 * 8 / 8e6 + 0.03)


def test_the_link_is_free_again_after_a_transfer() -> None:
    link = Link(LinkSettings(delay_s=0.03, bandwidth_bps=8e6))
    link.send(MEGABYTE, now_s=0.0)
    assert link.send(0, now_s=2.0) == 2.03


def test_nothing_overtakes_when_the_delay_is_lowered() -> None:
    link = Link(LinkSettings(delay_s=1.0))
    first_s = link.send(10, now_s=0.0)
    link.settings = LinkSettings(delay_s=0.1)
    assert link.send(10, now_s=0.5) == first_s
    assert link.send(10, now_s=2.0) == 2.1


def test_the_queue_has_room_again_when_its_excess_is_sent() -> None:
    # 1000 bytes take 0.1 s; the queue holds 2000 bytes, so 5000 waiting bytes must shrink for 0.3 s.
    link = Link(LinkSettings(bandwidth_bps=80_000, queue_bytes=2000))
    link.send(5000, now_s=0.0)
    assert link.room_in_s(now_s=0.0) == pytest.approx(0.3)
    assert link.room_in_s(now_s=0.3) == pytest.approx(0.0)
    assert link.room_in_s(now_s=9.0) == 0.0


@given(
    st.lists(
        st.tuples(
            st.floats(0, 10, allow_nan=False),
            st.integers(0, 100_000),
            st.floats(0, 1),
            st.floats(1e3, 1e9),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_order_delay_and_bandwidth_hold_for_any_traffic(
    messages: list[tuple[float, int, float, float]],
) -> None:
    link = Link(LinkSettings())
    now_s = last_s = 0.0
    for wait_s, size, delay_s, bandwidth_bps in messages:
        now_s += wait_s
        link.settings = LinkSettings(delay_s=delay_s, bandwidth_bps=bandwidth_bps)
        leaves_s = link.send(size, now_s=now_s)
        assert leaves_s >= last_s
        assert leaves_s >= now_s + size * 8 / bandwidth_bps + delay_s - 1e-9
        last_s = leaves_s


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("delay_s", -0.1),
        ("delay_s", 61.0),
        ("delay_s", float("nan")),
        ("bandwidth_bps", 0.0),
        ("bandwidth_bps", float("nan")),
        ("queue_bytes", 0),
        ("drop_idle_after_s", 0.0),
    ],
)
def test_settings_name_the_field_that_is_out_of_range(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=field):
        LinkSettings(**{field: value})  # type: ignore[arg-type]
