"""The simulated broker by itself: its packets, its bounds, and what it does with clients that break the rules.

What it has in common with real brokers is in tests/contract/test_broker.py.
"""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from harness.brokers import VirtualRig, rig_link, running_rig
from harness.control import away, eventually, here, policy, until

from paceline.errors import ConfigError, LinkClosed, RemoteProtocolError
from paceline.mqtt.lanes import Letter
from paceline.mqtt.link import Will
from paceline.topics import EDGE_POLICY, EDGE_PRESENCE
from simulator.notation import parse_network
from simulator.virtual.loop import run_virtually
from simulator.virtual.mqtt.house import BrokerSettings, House, matches
from simulator.virtual.mqtt.packets import (
    Connack,
    Connect,
    Disconnect,
    Packet,
    Puback,
    Publish,
    Suback,
    Subscribe,
    decode,
    encode,
)

WILL = Letter(name="a/b", payload=b"gone", retain=True)
PACKETS: tuple[tuple[Packet, str], ...] = (
    (Connect(identifier="me", will=None), "100e00044d5154540402000f00026d65"),
    (
        Connect(identifier="me", will=WILL, keepalive_s=60),
        "101900044d515454042e003c00026d650003612f620004676f6e65",
    ),
    (Connack(code=3), "20020003"),
    (Subscribe(number=7, filters=(("a/+", 1), ("#", 0))), "820c00070003612f2b0100012300"),
    (Suback(number=7, codes=(1, 0x80)), "900400070180"),
    (Publish(name="a", payload=b"\x00\xff", qos=0, retain=True), "310500016100ff"),
    (Publish(name="a", payload=b"", qos=1, retain=False, number=258), "32050001610102"),
    (Puback(number=258), "40020102"),
    (Disconnect(), "e000"),
)


@pytest.mark.parametrize(("packet", "wire"), PACKETS, ids=[wire for _, wire in PACKETS])
def test_a_packet_is_what_the_standard_says(packet: Packet, wire: str) -> None:
    assert encode(packet).hex() == wire
    assert decode(bytes.fromhex(wire)) == packet


def test_a_long_packet_has_a_long_length() -> None:
    packet = Publish(name="a", payload=bytes(300), qos=0, retain=False)
    assert encode(packet)[:3].hex() == "30af02"
    assert decode(encode(packet)) == packet


@pytest.mark.parametrize("packet", [packet for packet, _ in PACKETS])
def test_part_of_a_packet_is_none(packet: Packet) -> None:
    data = encode(packet)
    for wrong in (*(data[:size] for size in range(len(data))), data + b"\x00"):
        with pytest.raises(RemoteProtocolError, match="packet: "):
            decode(wrong)


@pytest.mark.parametrize("wire", ["c000", "100600044d515454", "100700044d51545403", "40030102ff"])
def test_what_nobody_should_say_is_refused(wire: str) -> None:
    with pytest.raises(RemoteProtocolError, match="packet: "):
        decode(bytes.fromhex(wire))


@pytest.mark.parametrize(
    ("wanted", "name", "is_so"),
    [
        ("a/b", "a/b", True),
        ("a/b", "a/b/c", False),
        ("a/+", "a/b", True),
        ("a/+", "a", False),
        ("a/+", "a/b/c", False),
        ("+/b/+", "a/b/c", True),
        ("+/b/+", "a/c/c", False),
        ("a/#", "a", True),
        ("a/#", "a/b/c", True),
        ("a/#", "b/a", False),
        ("#", "a/b", True),
        ("#", "$SYS/x", False),
        ("+/x", "$SYS/x", False),
        ("$SYS/#", "$SYS/x", True),
    ],
)
def test_filters(wanted: str, name: str, is_so: bool) -> None:
    assert matches(wanted, name) is is_so


def test_a_client_that_is_slow_loses_the_newest() -> None:
    house = House(BrokerSettings(max_queued=3, max_inflight=2))
    guest = house.enter("slow", will=None)
    house.subscribe(guest, (("#", 2),))
    for number in range(6):
        letter = Letter(name=f"n{number}", payload=b"x", retain=False)
        assert house.publish(letter, qos=1) == [guest]
    assert (house.num_shed, house.most_waiting) == (3, 3)
    first, second = house.next(guest), house.next(guest)
    assert first is not None
    assert second is not None
    assert [first.name, second.name] == ["n0", "n1"]
    assert house.next(guest) is None  # two are under way
    guest.unacknowledged.discard(first.number)
    third = house.next(guest)
    assert third is not None
    assert third.name == "n2"
    assert house.next(guest) is None


def test_what_is_retained_is_bounded_and_told_as_such() -> None:
    house = House(BrokerSettings(max_retained=1))
    for name, payload in (("a", b"1"), ("b", b"1"), ("a", b"2")):
        house.publish(Letter(name=name, payload=payload, retain=True), qos=1)
    assert house.retained == {"a": b"2"}
    guest = house.enter("late", will=None)
    house.subscribe(guest, (("+", 0),))
    assert house.next(guest) == Publish(name="a", payload=b"2", qos=0, retain=True)
    house.publish(Letter(name="a", payload=b"", retain=True), qos=1)
    assert not house.retained


def test_a_bound_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match="max_queued: got 0"):
        BrokerSettings(max_queued=0)


def _run(
    body: Callable[[VirtualRig], Awaitable[None]], *, settings: BrokerSettings | None = None
) -> None:
    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            rig = VirtualRig(group, settings=settings)
            async with running_rig(rig):
                await body(rig)

    run_virtually(main())


def test_who_comes_too_many_is_refused_and_let_in_when_there_is_room() -> None:
    async def body(rig: VirtualRig) -> None:
        async with rig_link(rig, name="first") as first:
            await first.connected()
            async with rig_link(rig, name="second") as second:
                await eventually(lambda: second.statistics.attempts > 3)
                assert not second.is_connected
                await first.leave()
                await second.connected()

    _run(body, settings=BrokerSettings(max_clients=1))


def test_who_says_too_much_is_put_out_and_its_will_is_published() -> None:
    async def body(rig: VirtualRig) -> None:
        will = Letter(
            name=EDGE_PRESENCE.name("loud"), payload=EDGE_PRESENCE.encode(away()), retain=True
        )
        async with rig_link(rig, name="reader", subscriptions=(EDGE_PRESENCE,)) as reader:
            messages = reader.messages()
            await reader.connected()
            async with rig.raw("loud", will=will) as loud:
                with pytest.raises(LinkClosed, match="broke"):
                    await loud.publish("x", bytes(2000), qos=1, retain=False)
            assert (await anext(messages)).value == away()

    _run(body, settings=BrokerSettings(max_packet_bytes=1000))


def test_a_client_in_a_black_hole_is_given_up_and_comes_back() -> None:
    async def body(rig: VirtualRig) -> None:
        loop, path = asyncio.get_running_loop(), rig.path(parse_network("rtt=100ms"))
        will = Will(topic=EDGE_PRESENCE, member="kiosk", value=away())
        async with (
            rig_link(rig, name="reader", subscriptions=(EDGE_PRESENCE,)) as reader,
            rig_link(rig, name="kiosk", will=will, transport=rig.over(path)) as kiosk,
        ):
            messages = reader.messages()
            kiosk.publish(EDGE_PRESENCE, "kiosk", here())
            await until(messages, here())
            began_s = loop.time()
            path.black_hole(keepalive_s=15.0)
            kiosk.publish(EDGE_PRESENCE, "kiosk", here(2))
            await until(messages, away())
            assert loop.time() - began_s == pytest.approx(22.5, abs=0.5)
            path.heal()
            await until(messages, here(2))
            assert kiosk.statistics.connections == 2

    _run(body)


def test_one_unacknowledged_message_at_a_time_takes_a_round_trip_each() -> None:
    async def body(rig: VirtualRig) -> None:
        path = rig.path(parse_network("rtt=100ms"))
        async with (
            rig_link(rig, name="writer") as writer,
            rig_link(
                rig, name="far", subscriptions=(EDGE_POLICY,), transport=rig.over(path)
            ) as far,
        ):
            await far.connected()
            await writer.connected()
            began_s = asyncio.get_running_loop().time()
            for number in range(5):
                writer.publish(EDGE_POLICY, f"edge-{number}", policy(number + 1))
            await until(far.messages(), policy(5))
            took_s = asyncio.get_running_loop().time() - began_s
            assert took_s == pytest.approx(0.05 + 4 * 0.1, abs=0.005)

    _run(body, settings=BrokerSettings(max_inflight=1))
