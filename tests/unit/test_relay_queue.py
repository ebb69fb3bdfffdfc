"""The mistakes that simulators of networks make, with real sockets: see tests/unit/test_relay_link.py for the rule itself."""

import asyncio

import pytest
from harness.echo import connected, echo, ping, run, server

from simulator.link import Link, LinkSettings
from simulator.network import NetworkSettings
from simulator.relay import Relay


@pytest.mark.slow
def test_many_messages_in_flight_do_not_wait_for_each_other() -> None:
    async def test() -> None:
        async with (
            server(echo) as to,
            Relay(to=to, settings=LinkSettings(delay_s=0.05)) as relay,
            connected(relay) as stream,
        ):
            await ping(stream)
            loop = asyncio.get_running_loop()
            started_s = loop.time()
            for index in range(100):
                stream[1].write(bytes([index]))
                await asyncio.sleep(0)
            assert await stream[0].readexactly(100) == bytes(range(100))
            assert 0.1 <= loop.time() - started_s < 1.0  # one after the other: 10 s

    run(test)


@pytest.mark.slow
def test_a_transfer_takes_what_the_bandwidth_says_and_delays_a_ping_by_the_queue_at_most() -> None:
    # 250 kB at 4 Mbit/s take 0.5 s. A ping beside it waits for the queue (16 kB: 33 ms) and one chunk (33 ms).
    settings = LinkSettings(bandwidth_bps=4e6, queue_bytes=16 * 1024)

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"T":
            await reader.readexactly(249_999)
            writer.write(b"done")
        else:
            writer.write(first)

    async def test() -> None:
        async with (
            server(sink) as to,
            Relay(to=to, network=NetworkSettings(up=settings)) as relay,
            connected(relay) as transfer,
            connected(relay) as other,
        ):
            loop = asyncio.get_running_loop()
            started_s = loop.time()
            transfer[1].write(b"T" * 250_000)
            await asyncio.sleep(0)
            ping_s = await ping(other, b"p")
            assert await transfer[0].readexactly(4) == b"done"
            assert 0.5 <= loop.time() - started_s < 0.9
            assert ping_s < 0.3

    run(test)


@pytest.mark.slow
def test_a_ping_behind_a_megabyte_waits_for_what_the_queue_model_says() -> None:
    num_bytes, bandwidth_bps, delay_s = 1_000_000, 20e6, 0.02
    settings = LinkSettings(delay_s=delay_s, bandwidth_bps=bandwidth_bps, queue_bytes=4 * num_bytes)
    arrived_s: dict[bytes, float] = {}

    async def sink(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        first = await reader.readexactly(1)
        if first == b"T":
            await reader.readexactly(num_bytes - 1)
        arrived_s[first] = asyncio.get_running_loop().time()
        writer.write(first)

    async def test() -> None:
        async with (
            server(sink) as to,
            Relay(to=to, network=NetworkSettings(up=settings)) as relay,
            connected(relay) as transfer,
            connected(relay) as other,
        ):
            started_s = asyncio.get_running_loop().time()
            transfer[1].write(b"T" * num_bytes)
            while relay.statistics().up_bytes < num_bytes:  # noqa: ASYNC110 - it is in the queue soon
                await asyncio.sleep(0.001)
            await ping(other, b"p")
            assert await transfer[0].readexactly(1) == b"T"
            model = Link(settings)
            model.send(num_bytes, now_s=started_s)
            expected_s = model.send(1, now_s=started_s)
            assert expected_s == pytest.approx(started_s + 0.4 + delay_s, abs=1e-5)
            assert expected_s - 1e-3 <= arrived_s[b"p"] < expected_s + 0.2
            # Behind the transfer, which shares the link, and right behind it.
            assert -0.01 < arrived_s[b"p"] - arrived_s[b"T"] < 0.1

    run(test)
