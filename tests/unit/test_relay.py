"""The relay with real sockets. Times are bounded from below exactly and from above generously."""

import asyncio
from contextlib import suppress

import pytest
from harness.echo import connected, echo, echo_after_end, ping, run, server

from paceline.errors import ConfigError
from simulator import flow as flow_module
from simulator.link import LinkSettings
from simulator.network import Network, NetworkSettings
from simulator.relay import CutMode, Relay


@pytest.mark.slow
def test_a_round_trip_takes_the_delay_twice_and_connecting_one_more() -> None:
    async def test() -> None:
        async with (
            server(echo) as to,
            Relay(to=to, settings=LinkSettings(delay_s=0.05)) as relay,
            connected(relay) as stream,
        ):
            first_s, second_s = await ping(stream), await ping(stream)
            relay.set_delay(0.0)
            third_s = await ping(stream)
            assert first_s >= 0.2
            assert 0.1 <= second_s < 0.19
            assert third_s < 0.09
            assert relay.statistics().up_bytes == relay.statistics().down_bytes == 12

    run(test)


@pytest.mark.slow
def test_a_loss_is_a_delay_and_everything_arrives_as_the_model_says() -> None:
    settings = NetworkSettings(up=LinkSettings(delay_s=0.01, loss=0.3))

    def first_trips(seed: int) -> tuple[float, list[float]]:
        connection = Network(settings, seed=seed).connect()
        open_s = connection.opens_at(0.0)
        trips_s = [connection.up.leaves_at(5.0, 4) for _ in range(2)]
        return open_s, [round(trip_s, 6) for trip_s in trips_s]

    # A seed that opens without loss, loses the first message once (a time-out of 200 ms) and the second one never.
    seed = next(s for s in range(999) if first_trips(s) == (0.01, [5.21, 5.21]))

    async def test() -> None:
        async with (
            server(echo) as to,
            Relay(to=to, network=settings, seed=seed) as relay,
            connected(relay) as stream,
        ):
            assert 0.21 <= await ping(stream) < 0.5
            assert await ping(stream) < 0.15
            assert relay.statistics().num_lost == 1

    run(test)


def test_each_side_may_end_its_half() -> None:
    async def test() -> None:
        async with server(echo_after_end) as to, Relay(to=to) as relay, connected(relay) as stream:
            stream[1].write(b"abc")
            stream[1].write_eof()
            assert await stream[0].read(-1) == b"cba"

    run(test)


def test_a_receiver_that_does_not_read_stops_the_sender(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flow_module, "MAX_IN_FLIGHT_BYTES", 64 * 1024)
    release: list[asyncio.Event] = []

    async def never_read(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        release.append(asyncio.Event())
        await release[0].wait()
        writer.transport.abort()

    async def test() -> None:
        async with server(never_read) as to, Relay(to=to) as relay, connected(relay) as stream:
            sent = 0
            # Kernel buffers on loopback hold some MB; the relay adds its bound and no more.
            with suppress(TimeoutError):
                while sent < 200_000_000:
                    stream[1].write(bytes(1_000_000))
                    async with asyncio.timeout(0.2):
                        await stream[1].drain()
                    sent += 1_000_000
            assert relay.statistics().up_bytes < 30_000_000
            assert sent < 60_000_000
            stream[1].transport.abort()
            release[0].set()

    run(test)


def test_a_cut_resets_connections_refuses_new_ones_and_heals_on_the_same_port() -> None:
    async def test() -> None:
        async with server(echo) as to, Relay(to=to) as relay:
            port = relay.port
            async with connected(relay) as stream:
                await ping(stream)
                relay.cut()
                with pytest.raises(ConnectionResetError):
                    await stream[0].readexactly(1)
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", port)
            await relay.heal()
            assert relay.port == port
            async with connected(relay) as stream:
                await ping(stream)
            assert relay.statistics().num_connections == 2

    run(test)


def test_a_connection_cut_before_it_is_carried_is_closed_too() -> None:
    async def test() -> None:
        async with server(echo) as to, Relay(to=to, settings=LinkSettings(delay_s=30.0)) as relay:
            async with connected(relay) as stream:
                while relay.statistics().num_connections == 0:  # noqa: ASYNC110 - a few turns of the loop
                    await asyncio.sleep(0)
                relay.cut()
                with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                    await stream[0].readexactly(1)
            assert relay.statistics().num_open == 0

    run(test)


def test_a_black_hole_delays_everything_until_it_heals() -> None:
    async def test() -> None:
        async with server(echo) as to, Relay(to=to) as relay, connected(relay) as stream:
            await ping(stream)
            relay.cut(CutMode.BLACK_HOLE)
            stream[1].write(b"held")
            async with connected(relay) as late:
                late[1].write(b"late")
                for silent in (stream, late):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.05):
                            await silent[0].read(1)
                await relay.heal()
                assert await stream[0].readexactly(4) == b"held"
                assert await late[0].readexactly(4) == b"late"

    run(test)


@pytest.mark.slow
def test_an_idle_flow_is_forgotten_silently_and_reset_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(flow_module, "RESET_FORGOTTEN_AFTER_S", 0.1)

    async def test() -> None:
        settings = LinkSettings(drop_idle_after_s=0.2)
        async with server(echo) as to, Relay(to=to, settings=settings) as relay:
            async with connected(relay) as stream:
                await ping(stream)
                await asyncio.sleep(0.3)  # the idle time is what is tested
                stream[1].write(b"vanishes")
                with pytest.raises(ConnectionResetError):
                    await stream[0].readexactly(1)
            async with connected(relay) as stream:
                await ping(stream)
            assert relay.statistics().forgotten_bytes == len(b"vanishes")
            assert relay.statistics().up_bytes == 8

    run(test)


def test_a_server_that_is_not_there_is_a_reset() -> None:
    async def test() -> None:
        async with server(echo) as gone:
            pass
        async with Relay(to=gone) as relay, connected(relay) as stream:
            with pytest.raises(ConnectionResetError):
                await stream[0].readexactly(1)

    run(test)


def test_a_reset_passes_through() -> None:
    async def reset(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        await flow_module.end([writer], broken=True)

    async def test() -> None:
        async with server(reset) as to, Relay(to=to) as relay, connected(relay) as stream:
            stream[1].write(b"x")
            with pytest.raises(ConnectionResetError):
                await stream[0].readexactly(1)

    run(test)


def test_a_port_in_use_is_named() -> None:
    async def test() -> None:
        async with server(echo) as taken:
            with pytest.raises(
                ConfigError, match=f"cannot listen at {taken}: Address already in use"
            ):
                async with Relay(to=taken, listen=taken):
                    pass

    run(test)


def test_leaving_closes_everything() -> None:
    async def test() -> None:
        async with server(echo) as to:
            async with Relay(to=to) as relay:
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                await ping((reader, writer))
            with pytest.raises(ConnectionResetError):
                await reader.readexactly(1)
            writer.close()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection("127.0.0.1", relay.port)

    run(test)


def test_a_change_of_bandwidth_leaves_what_has_entered_alone() -> None:
    async def test() -> None:
        settings = LinkSettings(bandwidth_bps=8e3, queue_bytes=1000)
        async with (
            server(echo_after_end) as to,
            Relay(to=to, settings=settings) as relay,
            connected(relay) as stream,
        ):
            stream[1].write(bytes(flow_module.CHUNK_BYTES))
            stream[1].write_eof()
            while relay.statistics().up_bytes == 0:  # noqa: ASYNC110 - a few turns of the loop
                await asyncio.sleep(0)
            relay.change(LinkSettings())
            relay.set_bandwidth(1e9)
            with pytest.raises(TimeoutError):
                # What has entered keeps its time: 16 kB at 8 kbit/s.
                async with asyncio.timeout(0.1):
                    await stream[0].read(1)

    run(test)


def test_more_connections_than_allowed_are_closed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.relay.MAX_FLOWS", 1)

    async def test() -> None:
        async with server(echo) as to, Relay(to=to) as relay, connected(relay) as first:
            await ping(first)
            async with connected(relay) as second:
                with suppress(ConnectionResetError):
                    assert await second[0].read(1) == b""
            await ping(first)
            assert relay.statistics().num_connections == 1

    run(test)


def test_a_listener_elsewhere_on_the_port_is_an_error_and_leaves_nothing() -> None:
    async def test() -> None:
        async with server(echo) as to:
            relay = Relay(to=to)
            async with relay:
                relay.cut()
                # Another program takes the port while ours is bound but does not listen: Linux allows it with SO_REUSEADDR.
                async with await asyncio.start_server(echo, "127.0.0.1", relay.port):
                    with pytest.raises(OSError, match="in use"):
                        await relay.heal()

    run(test)
