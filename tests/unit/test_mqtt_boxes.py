"""What waits is bounded, goes out in the right order, and is counted when it has to go. Pure, but for the outbox's events."""

import asyncio
import random

from harness.event_loop import run_async
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.fleet import FleetSettings
from paceline.mqtt.backoff import Backoff
from paceline.mqtt.lanes import Lane, Lanes, Letter
from paceline.mqtt.outbox import Outbox


def letter(name: str, payload: bytes = b"x", *, retain: bool = True) -> Letter:
    return Letter(name=name, payload=payload, retain=retain)


def test_the_newest_of_a_retained_name_takes_the_place_of_the_older() -> None:
    box = Lanes(depth=3)
    assert box.put(letter("a", b"1")) == 0
    assert box.put(letter("a", b"2")) == 1
    assert len(box) == 1
    assert box.take() == letter("a", b"2")
    assert box.take() is None


def test_a_whole_fleet_of_policies_finds_room_at_once() -> None:
    fleet = FleetSettings().edges_most
    box = Lanes(depth=1)
    assert sum(box.put(letter(str(edge), bytes(1000))) for edge in range(fleet)) == 0
    assert len(box) == fleet


def test_retained_names_go_first() -> None:
    box = Lanes(depth=3)
    box.put(letter("t", retain=False))
    box.put(letter("s"))
    assert [box.take(), box.take()] == [letter("s"), letter("t", retain=False)]


def test_names_take_turns_and_each_keeps_its_order() -> None:
    lane = Lane(depth=8)
    for name, payload in (("a", b"1"), ("a", b"2"), ("a", b"3"), ("b", b"1"), ("b", b"2")):
        lane.put(name, payload)
    given_out = [lane.take() for _ in range(5)]
    assert given_out == [("a", b"1"), ("b", b"1"), ("a", b"2"), ("b", b"2"), ("a", b"3")]


def test_one_name_that_floods_pushes_out_its_own_only() -> None:
    lane = Lane(depth=2)
    lane.put("quiet", b"q")
    assert sum(lane.put("loud", bytes([number])) for number in range(100)) == 98
    assert [lane.take() for _ in range(3)] == [
        ("quiet", b"q"),
        ("loud", b"\x62"),
        ("loud", b"\x63"),
    ]


def test_names_and_bytes_are_bounded() -> None:
    lane = Lane(depth=4, max_names=2, max_bytes=10)
    assert [lane.put(name, b"12") for name in "abc"] == [0, 0, 1]
    assert lane.put("d", bytes(9)) == 2
    assert lane.take() == ("d", bytes(9))
    assert lane.put("e", bytes(11)) == 1  # itself
    assert len(lane) == 0


@given(
    puts=st.lists(st.tuples(st.sampled_from("abcd"), st.binary(max_size=6)), max_size=60),
    depth=st.integers(1, 3),
)
def test_every_payload_is_given_out_or_counted(puts: list[tuple[str, bytes]], depth: int) -> None:
    lane = Lane(depth=depth, max_names=3, max_bytes=12)
    num_pushed_out = sum(lane.put(name, payload) for name, payload in puts)
    given_out = []
    while (item := lane.take()) is not None:
        given_out.append(item)
    assert len(given_out) + num_pushed_out == len(puts)
    assert sum(len(payload) for _, payload in given_out) <= 12
    for name in "abcd":
        left = [payload for other, payload in given_out if other == name]
        assert len(left) <= depth
        said = [payload for other, payload in puts if other == name]
        assert left == said[len(said) - len(left) :]


def test_the_outbox_says_again_what_is_retained() -> None:
    async def main() -> None:
        box = Outbox()
        box.post(letter("policy", b"1"))
        box.post(letter("policy", b"2"))
        box.post(letter("telemetry", b"t", retain=False))
        first, second = await box.take(), await box.take()
        assert (first, second) == (letter("policy", b"2"), letter("telemetry", b"t", retain=False))
        box.lost(first)
        box.lost(second)
        await box.all_taken()
        assert box.num_dropped == 2  # the older policy, and the telemetry
        box.repost_retained()
        again = await box.take()
        assert again == letter("policy", b"2")
        box.taken(again)
        await box.all_taken()
        assert box.num_taken == 1

    run_async(main())


def test_what_is_cleared_is_said_until_the_broker_has_it() -> None:
    async def main() -> None:
        box = Outbox()
        box.post(letter("policy", b"1"))
        box.post(letter("policy", b""))
        box.lost(await box.take())
        box.repost_retained()
        clearing = await box.take()
        assert clearing == letter("policy", b"")
        box.taken(clearing)
        box.repost_retained()
        async with asyncio.timeout(1.0):
            await box.all_taken()

    run_async(main())


def test_delays_double_up_to_the_longest_and_are_drawn_over_the_whole_range() -> None:
    generator = random.Random(5)
    backoff = Backoff(first_s=0.2, max_s=10.0, generator=generator)
    longest_s = [0.2, 0.4, 0.8, 1.6, 3.2, 6.4, *[10.0] * 200]
    parts = [backoff.next_s() / longest for longest in longest_s]
    assert all(0.0 <= part < 1.0 for part in parts)
    # The chance that 206 draws miss the lowest or the highest tenth is below 2 * 0.9 ** 206 = 8e-10, and the seed is fixed.
    assert min(parts) < 0.1
    assert max(parts) > 0.9


def test_only_a_connection_that_lasted_ends_a_series() -> None:
    class Most:
        def random(self) -> float:
            return 0.999

    backoff = Backoff(first_s=0.2, max_s=10.0, generator=Most())
    for _ in range(100):
        backoff.next_s()
    backoff.lasted(9.9)
    assert backoff.next_s() > 9.0
    backoff.lasted(10.0)
    assert backoff.next_s() < 0.2
