"""What every link promises, whatever carries it. Each test runs over gRPC, in memory, and over a simulated network."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager

import pytest
from harness.event_loop import run_async
from harness.link_rigs import Peer, Rig, grpc_rig, memory_rig
from harness.virtual_rig import virtual_rig

from paceline.client.link import Link
from paceline.codec import encode_cloud, encode_edge
from paceline.errors import (
    LinkClosed,
    LinkTimeout,
    OverloadedError,
    PacelineError,
    UnauthenticatedError,
)
from paceline.messages import Close, CloseReason, Commit, Drain, Failure, Open, Proposal
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId
from simulator.notation import parse_network
from simulator.virtual.loop import run_virtually

Body = Callable[[Link, Peer], Awaitable[None]]


RIGS: dict[str, Rig] = {"memory": memory_rig, "grpc": grpc_rig, "virtual": virtual_rig}


@pytest.fixture(params=RIGS)
def rig(request: pytest.FixtureRequest) -> Rig:
    return RIGS[request.param]


def _run(rig: Rig, body: Body, *, silence_s: float = 10.0) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), rig(silence_s=silence_s) as (link, peer):
            await body(link, peer)

    run_async(main())


def _proposal(number: int) -> Proposal:
    return Proposal(base_position=Position(number), tokens=(TokenId(number),))


def _commit(number: int) -> Commit:
    return Commit(position=Position(number), tokens=(TokenId(number),))


def _large() -> Open:
    """About a megabyte."""
    return Open(
        tokenizer_fingerprint=bytes(32),
        prompt=(TokenId(100_000),) * 350_000,
        sampling=SamplingSettings(),
        max_tokens=1,
    )


def test_messages_arrive_in_order_in_both_directions(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        async with asyncio.TaskGroup() as group:

            async def talk() -> None:
                for number in range(100):
                    await link.send(_proposal(number))

            async def answer() -> None:
                for number in range(100):
                    assert await peer.receive() == _proposal(number)
                    await peer.send(_commit(number))

            group.create_task(talk())
            group.create_task(answer())
            for number in range(100):
                assert await link.receive() == _commit(number)

    _run(rig, body)


@pytest.mark.slow
@pytest.mark.parametrize("rig", [grpc_rig, virtual_rig], ids=["grpc over the relay", "virtual"])
def test_a_hundred_messages_sent_at_once_take_half_a_round_trip_together(
    rig: Callable[..., AbstractAsyncContextManager[tuple[Link, Peer]]],
) -> None:
    async def main() -> None:
        async with asyncio.timeout(20), rig(network=parse_network("rtt=200ms")) as (link, peer):
            loop = asyncio.get_running_loop()
            # Both ends of a connection tell each other what they hold first; let that be over.
            await link.send(_proposal(0))
            assert await peer.receive() == _proposal(0)
            await peer.send(_commit(0))
            assert await link.receive() == _commit(0)
            sent_s = loop.time()
            for number in range(100):
                await link.send(_proposal(number))
            for number in range(100):
                assert await peer.receive() == _proposal(number)
            # One after the other they would take 10 s.
            assert 0.1 <= round(loop.time() - sent_s, 6) < 0.4

    if rig is virtual_rig:
        run_virtually(main())
    else:
        run_async(main())


def test_bytes_of_payload_are_counted(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        assert (link.payload_bytes_up, link.payload_bytes_down) == (0, 0)
        await link.send(_proposal(300))
        await peer.send(_commit(70_000))
        await link.receive()
        assert link.payload_bytes_up == encode_edge(_proposal(300)).ByteSize() > 0
        assert link.payload_bytes_down == encode_cloud(_commit(70_000)).ByteSize() > 0

    _run(rig, body)


def test_after_the_edge_has_finished_the_verifier_may_still_speak(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        await link.send(Close(reason=CloseReason.DONE))
        await link.finish()
        assert await peer.receive() == Close(reason=CloseReason.DONE)
        assert await peer.receive() is None
        await peer.send(_commit(1))
        peer.end()
        assert await link.receive() == _commit(1)
        with pytest.raises(LinkClosed):
            await link.receive()

    _run(rig, body)


def test_a_verifier_that_ends_the_stream_is_heard_out(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        await peer.send(_commit(1))
        await peer.send(Drain(deadline_ms=5))
        peer.end()
        assert await link.receive() == _commit(1)
        assert await link.receive() == Drain(deadline_ms=5)
        for _ in range(2):
            with pytest.raises(LinkClosed):
                await link.receive()
        with pytest.raises(LinkClosed):
            await link.send(_proposal(1))

    _run(rig, body)


@pytest.mark.parametrize("error", [OverloadedError("full"), UnauthenticatedError("who are you?")])
def test_a_status_says_why_the_stream_ends(rig: Rig, error: PacelineError) -> None:
    async def body(link: Link, peer: Peer) -> None:
        await peer.send(_commit(1))
        peer.end(error)
        await link.receive()
        with pytest.raises(type(error), match=str(error).replace("?", r"\?")):
            await link.receive()

    _run(rig, body)


def test_close_wakes_who_receives(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        waiting = asyncio.Event()

        async def listen() -> None:
            waiting.set()
            with pytest.raises(LinkClosed):
                await link.receive()

        async with asyncio.TaskGroup() as group:
            group.create_task(listen())
            await waiting.wait()
            await asyncio.sleep(0)  # the listener is in `receive` now
            await link.close()
        with pytest.raises(LinkClosed):
            await link.send(_proposal(1))
        await link.close()

    _run(rig, body)


def test_a_cancelled_receiver_is_cancelled(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        waiting = asyncio.Event()

        async def listen() -> None:
            waiting.set()
            await link.receive()

        async with asyncio.TaskGroup() as group:
            task = group.create_task(listen())
            await waiting.wait()
            await asyncio.sleep(0)
            task.cancel()
        assert task.cancelled()

    _run(rig, body)


def test_a_verifier_that_vanishes_is_a_closed_link(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        await link.send(_proposal(1))
        await peer.receive()
        peer.vanish()
        with pytest.raises(LinkClosed):
            await link.receive()
        with pytest.raises(LinkClosed):
            await link.send(_proposal(2))

    _run(rig, body)


def test_a_silent_verifier_is_a_time_out(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        with pytest.raises(LinkTimeout, match=r"said nothing for 0\.1 s"):
            await link.receive()
        with pytest.raises((LinkClosed, LinkTimeout)):
            await link.receive()

    _run(rig, body, silence_s=0.1)


@pytest.mark.slow
def test_a_verifier_that_does_not_read_holds_the_sender_back(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        async def talk() -> None:
            large = _large()
            for _ in range(32):
                await link.send(large)

        with pytest.raises(LinkTimeout, match=r"took nothing for 0\.3 s"):
            await talk()

    _run(rig, body, silence_s=0.3)


@pytest.mark.slow
def test_a_verifier_that_reads_late_gets_everything(rig: Rig) -> None:
    async def body(link: Link, peer: Peer) -> None:
        large = _large()
        async with asyncio.TaskGroup() as group:

            async def talk() -> None:
                for _ in range(4):
                    await link.send(large)
                await link.finish()

            group.create_task(talk())
            count = 0
            while await peer.receive() is not None:
                count += 1
        assert count == 4
        assert link.payload_bytes_up == 4 * encode_edge(large).ByteSize()

    _run(rig, body)


@pytest.mark.parametrize("error", [None, OverloadedError("full")])
def test_what_was_said_before_a_failed_write_is_still_heard(
    rig: Rig, error: PacelineError | None
) -> None:
    said = Failure(reason="DRAINING", message="going away", retryable=True)

    async def body(link: Link, peer: Peer) -> None:
        async def talk() -> None:
            while True:
                await link.send(_proposal(2))

        await link.send(_proposal(1))
        await peer.receive()
        await peer.send(_commit(1))
        await peer.send(said)
        peer.end(error)
        with pytest.raises((LinkClosed, OverloadedError)):
            await talk()
        assert await link.receive() == _commit(1)
        assert await link.receive() == said
        with pytest.raises(LinkClosed if error is None else OverloadedError):
            await link.receive()

    _run(rig, body)


def test_a_link_that_is_closed_after_a_failed_write_leaves_nothing_running(rig: Rig) -> None:
    """With unread messages before it, gRPC's own task waited for ever for the status."""

    async def body(link: Link, peer: Peer) -> None:
        async def talk() -> None:
            while True:
                await link.send(_proposal(2))

        await link.send(_proposal(1))
        await peer.receive()
        await peer.send(_commit(1))
        peer.end()
        with pytest.raises(LinkClosed):
            await talk()
        await link.close()

    _run(rig, body)  # looks at what is left
