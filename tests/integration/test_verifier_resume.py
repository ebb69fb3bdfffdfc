"""Sessions that outlive their stream: resume, fencing, other verifiers, on real streams."""

from contextlib import suppress

import grpc
import pytest
from harness.event_loop import run_async
from harness.models import tiny_llama
from harness.raw_edge import (
    TINY_PROMPT,
    RawEdge,
    RawStream,
    dialled,
    edge,
    open_request,
    opened,
    serving,
    settled,
    tiny_output,
)

from cloud.worker import WorkerSettings
from paceline.messages import Commit, Opened, Proposal, Resume
from paceline.sampling.settings import SamplingSettings
from paceline.session.events import FromCloud, LinkDown, Send
from paceline.tokens import Position, TokenId

COUPLED = SamplingSettings(temperature=0.9, seed=7)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stream broke", "stream still there"])
def test_resume_goes_on_where_the_edge_is(how: str) -> None:
    """A broken stream, and a stream that the verifier still believes in, which is fenced."""

    async def run() -> tuple[RawEdge, int]:
        engine = tiny_llama()
        worker = WorkerSettings(min_step_s=0.002)
        async with serving(engine, worker=worker) as verifier, dialled(verifier) as channel:
            one = edge(open_request(engine, TINY_PROMPT, max_tokens=80, sampling=COUPLED))
            first = RawStream(channel)
            await one.run(first, stop_after=10)
            assert one.session.opened is not None
            session_id = one.session.opened.session_id
            if how == "stream broke":
                first.call.cancel()
            (key,) = [entry.key for entry in verifier.registry.entries]
            second = RawStream(channel)
            length = one.session.length
            # What the edge was sent on the first stream and never read is lost; it asks for it again.
            await second.send(Resume(session_id=session_id, length=length))
            again = await second.receive()
            assert isinstance(again, Opened)
            assert again.session_id == session_id
            assert [entry.key for entry in verifier.registry.entries] == [key]
            while not one.session.is_over:
                message = await second.receive()
                assert isinstance(message, Commit)
                assert message.position <= one.session.length
                await feed(one, second, message)
            if how == "stream still there":
                failure = await first.receive_failure()
                assert failure.reason == "FENCED"
                assert await first.receive() is None
                assert await first.call.code() is grpc.StatusCode.ABORTED
            await settled(verifier, engine)
            return one, length

    one, length = run_async(run())
    assert one.session.output == tiny_output(TINY_PROMPT, COUPLED, 80)
    assert length < len(TINY_PROMPT) + 80


async def feed(one: RawEdge, stream: RawStream, message: Commit) -> None:
    """Hand a commit to the edge's session and send what it answers."""
    for effect in one.session.handle(FromCloud(message=message)):
        if isinstance(effect, Send):
            await stream.send(effect.message)


def test_a_fenced_stream_has_no_say() -> None:
    async def run() -> None:
        engine = tiny_llama()
        worker = WorkerSettings(min_step_s=0.01)
        async with serving(engine, worker=worker) as verifier, dialled(verifier) as channel:
            old = RawStream(channel)
            session_id = (await opened(old, engine, max_tokens=300)).session_id
            new = RawStream(channel)
            await new.send(Resume(session_id=session_id, length=Position(3)))
            assert isinstance(await new.receive(), Opened)
            # What breaks the rules on the old stream must not end the session of the new one.
            with suppress(grpc.aio.AioRpcError):  # it may have ended already
                await old.send(Proposal(base_position=Position(100_000)))
            # grpc.aio calls the end INTERNAL if it comes while we write, so how it ends is not looked at here.
            await old.ended()
            assert isinstance(await new.receive(), Commit)
            new.call.cancel()

    run_async(run())


@pytest.mark.parametrize(("attempt", "is_fenced"), [(1, True), (3, False)])
def test_a_stream_that_called_first_and_speaks_last(attempt: int, is_fenced: bool) -> None:
    """Which try counts is what the edge says, not whose connection was faster."""

    async def run() -> None:
        engine = tiny_llama()
        async with serving(engine) as verifier, dialled(verifier) as channel:
            first, slow, fast = (RawStream(channel) for _ in range(3))
            session_id = (await opened(first, engine, max_tokens=300)).session_id
            # The verifier has taken the slow call once a later one on the same connection is answered.
            await slow.call.wait_for_connection()
            await fast.send(Resume(session_id=session_id, length=Position(3), attempt=2))
            assert isinstance(await fast.receive(), Opened)
            await slow.send(Resume(session_id=session_id, length=Position(3), attempt=attempt))
            if is_fenced:
                assert (await slow.receive_failure()).reason == "FENCED"
            else:
                assert isinstance(await slow.receive(), Opened)
            for stream in (slow, fast):
                stream.call.cancel()

    run_async(run())


def test_output_that_has_already_ended_says_so_at_once() -> None:
    async def run() -> None:
        engine = tiny_llama()
        async with serving(engine) as verifier, dialled(verifier) as channel:
            request = open_request(
                engine, TINY_PROMPT, output=(TokenId(9), TokenId(4)), stop_tokens=(TokenId(4),)
            )
            one = edge(request)
            await one.run(RawStream(channel))
            assert one.session.output == [9, 4]
            assert one.commits[-1].finish == "stop"
            await settled(verifier, engine)
            assert verifier.worker.times.num_steps == 0

    run_async(run())


def test_moving_to_another_verifier_keeps_the_text() -> None:
    sampling = SamplingSettings(temperature=0.9, seed=3, frequency_penalty=0.5)

    async def run() -> RawEdge:
        one = edge(open_request(tiny_llama(), TINY_PROMPT, max_tokens=60, sampling=sampling))
        for stop_after in (20, None):
            engine = tiny_llama()
            async with serving(engine) as verifier, dialled(verifier) as channel:
                if stop_after is not None:
                    await one.run(RawStream(channel), stop_after=stop_after)
                    continue
                stream = RawStream(channel)
                one.session.opened = None
                one.session.handle(LinkDown())
                await one.run(stream)
        return one

    one = run_async(run())
    assert one.session.output == tiny_output(TINY_PROMPT, sampling, 60)
