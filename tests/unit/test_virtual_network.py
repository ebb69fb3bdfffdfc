"""The simulated network carries messages as its link model says, and what breaks breaks as on a real one."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from harness.virtual_rig import ADDRESS, BareServer, bare_path

from paceline.client.settings import ConnectionSettings
from paceline.codec import encode_cloud
from paceline.errors import LinkClosed, LinkTimeout, RemoteProtocolError
from paceline.messages import Commit, Open, Proposal
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId
from simulator.network import NetworkSettings
from simulator.notation import parse_network
from simulator.virtual.call import Call, VirtualContext, VirtualLink
from simulator.virtual.channel import Path
from simulator.virtual.connector import VirtualConnector
from simulator.virtual.loop import run_virtually
from simulator.virtual.machine import MachineClock
from simulator.virtual.wire import Mangling

RTT_S = 0.1


class _World:
    """One edge, one bare verifier."""

    def __init__(self, network: NetworkSettings) -> None:
        self.server = BareServer()
        self.path: Path = bare_path(self.server, network)
        self.settings = ConnectionSettings(silence_s=60.0)
        self.connector = VirtualConnector(
            {ADDRESS: self.path}, settings=self.settings, clock=MachineClock()
        )

    @property
    def now_s(self) -> float:
        return asyncio.get_running_loop().time()

    async def connected(self) -> tuple[VirtualLink, VirtualContext, Call]:
        link = await self.connector.connect(ADDRESS)
        call = await self.server.calls.get()
        return link, VirtualContext(call), call


def _run(body: Callable[[_World], Awaitable[None]], network: str = "rtt=100ms") -> None:
    async def main() -> None:
        await body(_World(parse_network(network)))

    run_virtually(main(), longest_s=600.0)


def _proposal(number: int) -> Proposal:
    return Proposal(base_position=Position(number), tokens=(TokenId(number),))


def _commit(number: int) -> Commit:
    return Commit(position=Position(number), tokens=(TokenId(number),))


def test_a_connection_takes_a_round_trip_and_a_message_half_of_one() -> None:
    async def body(world: _World) -> None:
        link = await world.connector.connect(ADDRESS)
        assert world.now_s == pytest.approx(RTT_S)
        call = await world.server.calls.get()
        assert world.now_s == pytest.approx(1.5 * RTT_S)
        await link.send(_proposal(1))
        context = VirtualContext(call)
        assert await context.receive() == _proposal(1)
        assert world.now_s == pytest.approx(2 * RTT_S)
        await world.connector.connect(ADDRESS)  # over the connection there is
        assert world.now_s == pytest.approx(2 * RTT_S)

    _run(body)


def test_each_direction_has_its_own_delay_and_bandwidth() -> None:
    async def body(world: _World) -> None:
        link, context, _ = await world.connected()
        sent_s = world.now_s
        await link.send(_proposal(1))
        assert await context.receive() == _proposal(1)
        assert world.now_s == pytest.approx(sent_s + 0.02)
        sent_s = world.now_s
        message = encode_cloud(_commit(1))
        await context.write(message)
        assert await link.receive() == _commit(1)
        sending_s = len(message.SerializeToString()) * 8 / 1e3
        assert sending_s > 0.05
        assert world.now_s == pytest.approx(sent_s + 0.09 + sending_s)

    _run(body, "up.delay=20ms,down.delay=90ms,down.bandwidth=1kbit")


def test_a_hundred_small_messages_sent_at_once_arrive_together() -> None:
    async def body(world: _World) -> None:
        link, context, _ = await world.connected()
        sent_s = world.now_s
        for number in range(100):
            await link.send(_proposal(number))
        for number in range(100):
            assert await context.receive() == _proposal(number)
            assert world.now_s == pytest.approx(sent_s + RTT_S / 2)
        answered_s = world.now_s
        for number in range(100):
            await context.write(encode_cloud(_commit(number)))
        for number in range(100):
            assert await link.receive() == _commit(number)
            assert world.now_s == pytest.approx(answered_s + RTT_S / 2)

    _run(body)


def test_a_large_message_delays_what_comes_behind_it_by_its_own_time() -> None:
    large = Open(
        tokenizer_fingerprint=bytes(32),
        prompt=(TokenId(100_000),) * 333_333,
        sampling=SamplingSettings(),
        max_tokens=1,
    )

    async def body(world: _World) -> None:
        link, context, _ = await world.connected()
        other, _, call = await world.connected()
        sent_s = world.now_s
        await link.send(large)
        await other.send(_proposal(1))
        assert await VirtualContext(call).receive() == _proposal(1)
        num_bytes = link.payload_bytes_up + other.payload_bytes_up
        assert num_bytes > 900_000
        assert world.now_s == pytest.approx(sent_s + RTT_S / 2 + num_bytes * 8 / 10e6)
        assert await context.receive() == large

    _run(body, "rtt=100ms,bandwidth=10mbit")


def test_a_cut_resets_both_ends_and_refuses_until_it_heals() -> None:
    async def body(world: _World) -> None:
        link, context, call = await world.connected()
        handler = call.handler = asyncio.get_running_loop().create_task(_reads(context))
        await context.write(encode_cloud(_commit(1)))
        world.path.cut()
        with pytest.raises(LinkClosed, match="reset"):
            await link.receive()  # what was on its way is lost
        with pytest.raises(asyncio.CancelledError):
            await handler
        with pytest.raises(LinkClosed, match="refused"):
            await world.connector.connect(ADDRESS)
        world.path.heal()
        await world.connected()

    _run(body)


def test_a_black_hole_delays_and_tells_nobody() -> None:
    async def body(world: _World) -> None:
        link, context, _ = await world.connected()
        await link.send(_proposal(1))
        world.path.black_hole(keepalive_s=25.0)
        await link.send(_proposal(2))
        await asyncio.sleep(5.0)
        world.path.heal()
        healed_s = world.now_s
        assert await context.receive() == _proposal(1)
        assert world.now_s == healed_s
        assert await context.receive() == _proposal(2)
        assert world.now_s == pytest.approx(healed_s + RTT_S / 2)

    _run(body)


def test_pings_find_out_about_a_black_hole_in_the_end() -> None:
    async def body(world: _World) -> None:
        link, context, call = await world.connected()
        handler = call.handler = asyncio.get_running_loop().create_task(_reads(context))
        begin_s = world.now_s
        world.path.black_hole(keepalive_s=25.0)
        with pytest.raises(asyncio.CancelledError):
            await handler
        assert world.now_s == pytest.approx(begin_s + 30.0)
        with pytest.raises(LinkClosed):
            await link.receive()
        assert world.now_s == pytest.approx(begin_s + 35.0)
        with pytest.raises(LinkTimeout, match="no connection within 10 s"):
            await world.connector.connect(ADDRESS)

    _run(body)


def test_a_half_open_connection_is_new_to_the_edge_and_old_to_the_verifier() -> None:
    async def body(world: _World) -> None:
        link, context, call = await world.connected()
        handler = call.handler = asyncio.get_running_loop().create_task(_reads(context))
        world.path.lose_edge()
        with pytest.raises(LinkClosed):
            await link.receive()
        await world.connected()
        assert not handler.done()
        await asyncio.sleep(31.0)
        assert handler.cancelled()

    _run(body)


def test_a_verifier_that_dies_is_heard_of_behind_what_it_said() -> None:
    async def body(world: _World) -> None:
        link, context, _ = await world.connected()
        await context.write(encode_cloud(_commit(1)))
        died_s = world.now_s
        world.server.is_listening = False
        world.path.verifier_died()
        await context.write(encode_cloud(_commit(2)))  # nobody is there to say it
        assert await link.receive() == _commit(1)
        with pytest.raises(LinkClosed):
            await link.receive()
        assert world.now_s == pytest.approx(died_s + RTT_S / 2)
        with pytest.raises(LinkClosed, match="refused"):
            await world.connector.connect(ADDRESS)

    _run(body)


@pytest.mark.parametrize("mangling", Mangling)
def test_one_message_is_mangled(mangling: Mangling) -> None:
    async def body(world: _World) -> None:
        link, context, _ = await world.connected()
        world.path.mangle(mangling, is_up=False)
        await context.write(encode_cloud(_commit(1)))
        await context.write(encode_cloud(_commit(2)))
        if mangling is Mangling.TRUNCATE:
            with pytest.raises(RemoteProtocolError):
                await link.receive()
        else:
            assert await link.receive() == _commit(1)
            assert await link.receive() == _commit(1)
        assert await link.receive() == _commit(2)

    _run(body)


async def _reads(context: VirtualContext) -> None:
    while True:
        await context.read()
