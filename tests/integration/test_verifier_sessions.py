"""Many sessions, broken streams, leases: who waits for whom, and what is left."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc
import pytest
import torch
from harness.event_loop import run_async
from harness.models import VOCABULARY_SIZE, llama_config, tiny_llama, tiny_model
from harness.raw_edge import (
    GREEDY,
    TINY_PROMPT,
    RawEdge,
    RawStream,
    dialled,
    edge,
    knows,
    open_request,
    opened,
    serving,
    settled,
    tiny_output,
    until,
)

from cloud.admission import SessionSettings
from cloud.scheduler import RaceDrafting, SchedulerSettings
from cloud.server import Verifier
from cloud.tenants import TenantSettings
from cloud.worker import Worker, WorkerSettings
from paceline.messages import Commit, Opened, Proposal
from paceline.sampling.settings import SamplingSettings
from paceline.session.events import LinkUp
from paceline.tokens import Position, TokenId

COUPLED = SamplingSettings(temperature=0.9, seed=7)


async def together(*coroutines: Coroutine[Any, Any, None]) -> None:
    async with asyncio.TaskGroup() as group:
        for coroutine in coroutines:
            group.create_task(coroutine)


@pytest.mark.slow
def test_eight_sessions_are_packed_and_nobody_waits() -> None:
    num_tokens = 40

    async def run() -> tuple[list[RawEdge], Verifier]:
        engine = tiny_llama()
        # Slow steps: all eight have arrived before the second one.
        worker = WorkerSettings(min_step_s=0.02)
        scheduler = SchedulerSettings(race_drafts=RaceDrafting.OFF)
        async with (
            serving(engine, worker=worker, scheduler=scheduler) as verifier,
            dialled(verifier) as channel,
        ):
            edges = [
                edge(
                    open_request(engine, (*TINY_PROMPT, n), max_tokens=num_tokens, sampling=COUPLED)
                )
                for n in range(8)
            ]
            await together(*(one.run(RawStream(channel)) for one in edges))
            await settled(verifier, engine)
            return edges, verifier

    edges, verifier = run_async(run())
    for n, one in enumerate(edges):
        assert one.session.output == tiny_output((*TINY_PROMPT, n), COUPLED, num_tokens)
    # One after the other they would need 320 steps. Packed it is 40, and a few more while they arrive and leave.
    assert verifier.worker.times.num_steps < 2 * num_tokens
    # Steps with prompts in them have more rows; once all generate, it is one row each.
    assert 8 in {commit.num_rows for one in edges for commit in one.commits}
    for one in edges:
        assert one.session.counts.steps == num_tokens


@pytest.mark.slow
def test_a_long_prompt_does_not_stall_others() -> None:
    long_prompt = tuple(n % 250 for n in range(400))

    async def run() -> tuple[RawEdge, RawEdge]:
        engine = tiny_llama()
        scheduler = SchedulerSettings(row_budget=16)
        worker = WorkerSettings(min_step_s=0.005)
        async with (
            serving(engine, scheduler=scheduler, worker=worker) as verifier,
            dialled(verifier) as channel,
        ):
            running = edge(open_request(engine, TINY_PROMPT, max_tokens=150))
            late = edge(open_request(engine, long_prompt, max_tokens=4))
            async with asyncio.TaskGroup() as group:
                group.create_task(running.run(RawStream(channel)))
                await until(lambda: bool(running.commits))
                await late.run(RawStream(channel))
            await settled(verifier, engine)
            return running, late

    running, late = run_async(run())
    assert running.session.output == tiny_output(TINY_PROMPT, GREEDY, 150)
    assert late.session.output == tiny_output(long_prompt, GREEDY, 4)
    assert max(commit.num_rows for commit in running.commits) == 16
    # 400 rows take 26 steps beside a running session; it gets a token in each of them.
    beside = [commit for commit in running.commits if commit.num_rows > 1]
    assert sum(len(commit.tokens) for commit in beside) >= 20


def test_race_off_waits_no_longer_than_its_patience() -> None:
    async def run() -> list[Commit]:
        engine = tiny_llama()
        scheduler = SchedulerSettings(race=False, patience_s=0.03)
        async with serving(engine, scheduler=scheduler) as verifier, dialled(verifier) as channel:
            stream = RawStream(channel)
            # Never drafts and never says that it is idle; its window of lead is never used up.
            await opened(stream, engine, max_tokens=5)
            commits: list[Commit] = []
            while not commits or commits[-1].finish is None:
                message = await stream.receive()
                assert isinstance(message, Commit)
                commits.append(message)
            stream.call.cancel()
            return commits

    commits = run_async(run())
    tokens = [token for commit in commits for token in commit.tokens]
    assert tokens == tiny_output(TINY_PROMPT, GREEDY, 5)
    # The first token ends the prompt; each of the others waits its patience out, and not much longer.
    for commit in commits[1:]:
        assert commit.queue_ns >= 30_000_000


def test_race_off_takes_fewer_steps_with_good_drafts() -> None:
    whole = [*TINY_PROMPT, *tiny_output(TINY_PROMPT, GREEDY, 60)]

    async def run() -> RawEdge:
        engine = tiny_llama()
        scheduler = SchedulerSettings(race=False, patience_s=5.0)
        async with serving(engine, scheduler=scheduler) as verifier, dialled(verifier) as channel:
            one = edge(
                open_request(engine, TINY_PROMPT, max_tokens=60),
                guess=knows([TokenId(token) for token in whole]),
                draft_length=5,
            )
            await one.run(RawStream(channel))
            return one

    one = run_async(run())
    assert one.session.output == whole[len(TINY_PROMPT) :]
    assert one.session.counts.accepted > 40
    assert one.session.counts.steps < 20


@pytest.mark.slow
def test_a_killed_client_is_gone_after_its_lease() -> None:
    async def run() -> None:
        engine = tiny_llama()
        sessions = SessionSettings(lease_s=0.05)
        worker = WorkerSettings(min_step_s=0.002)
        async with serving(engine, sessions=sessions, worker=worker) as verifier:
            survivor = edge(open_request(engine, TINY_PROMPT, max_tokens=100))
            async with dialled(verifier) as survivors_channel, asyncio.TaskGroup() as group:
                group.create_task(survivor.run(RawStream(survivors_channel)))
                async with dialled(verifier) as channel:
                    for _ in range(5):
                        await opened(RawStream(channel), engine, max_tokens=400)
                # That channel is closed: its streams broke without a word.
            await settled(verifier, engine)
            assert survivor.session.output == tiny_output(TINY_PROMPT, GREEDY, 100)

    run_async(run())


@pytest.mark.slow
def test_a_client_that_never_reads_is_bounded_and_goes() -> None:
    async def run() -> None:
        engine = tiny_llama()
        sessions = SessionSettings(max_lead=16, silence_s=0.2, lease_s=0.05)
        async with serving(engine, sessions=sessions) as verifier, dialled(verifier) as channel:
            stream = RawStream(channel)
            await stream.send(open_request(engine, TINY_PROMPT, max_tokens=400))
            await until(lambda: bool(verifier.registry.entries))
            (entry,) = verifier.registry.entries
            await until(lambda: not verifier.registry.entries)
            length = entry.session.length
            assert length == len(TINY_PROMPT) + 16, "max_lead bounds what it costs"
            await settled(verifier, engine)
            failure = await stream.receive_failure()
            assert (failure.reason, failure.retryable) == ("TRANSPORT", True)
            assert await stream.receive() is None
            assert await stream.call.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    run_async(run())


@pytest.mark.slow
def test_a_full_pipe_does_not_keep_a_session() -> None:
    """The edge's gRPC takes no more bytes either, so that the verifier's writer is stuck in the middle of a send."""

    async def run() -> None:
        engine = tiny_llama()
        sessions = SessionSettings(max_lead=400, silence_s=0.2, lease_s=0.05)
        options = [("grpc.http2.lookahead_bytes", 1024), ("grpc.http2.bdp_probe", 0)]
        async with (
            serving(engine, sessions=sessions) as verifier,
            grpc.aio.insecure_channel(str(verifier.address), options=options) as channel,
        ):
            stream = RawStream(channel)
            await stream.send(open_request(engine, TINY_PROMPT, max_tokens=400, num_logprobs=20))
            await until(lambda: bool(verifier.registry.entries))
            (entry,) = verifier.registry.entries
            await until(lambda: verifier.registry.is_empty)
            assert entry.session._cursor < entry.session.length, "the writer was not stuck"
            await settled(verifier, engine)
            stream.call.cancel()

    run_async(run())


def test_logprobs_come_with_every_token() -> None:
    async def run() -> RawEdge:
        engine = tiny_llama()
        async with serving(engine) as verifier, dialled(verifier) as channel:
            one = edge(open_request(engine, TINY_PROMPT, max_tokens=12, num_logprobs=3))
            await one.run(RawStream(channel))
            return one

    one = run_async(run())
    entries = [entry for commit in one.commits for entry in commit.logprobs]
    assert len(entries) == 12
    text = [*TINY_PROMPT, *one.session.output]
    with torch.inference_mode():
        logits = tiny_model(llama_config())(input_ids=torch.tensor([text])).logits[0].double()
    expected_logprobs = torch.log_softmax(logits, dim=-1)
    for i, entry in enumerate(entries):
        row = expected_logprobs[len(TINY_PROMPT) + i - 1]
        assert entry.logprob == pytest.approx(float(row[text[len(TINY_PROMPT) + i]]), abs=1e-4)
        assert list(entry.top_tokens) == row.topk(3).indices.tolist()


def test_a_shared_prompt_is_computed_once_even_if_the_first_leaves() -> None:
    prompt = tuple(n % 250 for n in range(300))

    async def run() -> int:
        engine = tiny_llama()
        tenants = TenantSettings(anonymous_namespace="local")
        worker = WorkerSettings(min_step_s=0.005)
        scheduler = SchedulerSettings(row_budget=32)
        sessions = SessionSettings(lease_s=0.02)
        async with (
            serving(
                engine, tenants=tenants, worker=worker, scheduler=scheduler, sessions=sessions
            ) as verifier,
            dialled(verifier) as channel,
        ):
            leader = RawStream(channel)
            await leader.send(open_request(engine, prompt, max_tokens=4))
            assert isinstance(await leader.receive(), Opened)
            edges = [edge(open_request(engine, (*prompt, n), max_tokens=4)) for n in range(3)]
            async with asyncio.TaskGroup() as group:
                for one in edges:
                    group.create_task(one.run(RawStream(channel)))
                leader.call.cancel()  # while it computes what the others wait for
            await settled(verifier, engine)
            for n, one in enumerate(edges):
                assert one.session.output == tiny_output((*prompt, n), GREEDY, 4)
            return verifier.worker.times.num_prefill_rows

    # Once for all, and a few rows for what each has of its own; four times would be 1200.
    assert run_async(run()) < 400


def test_nonsense_of_the_model_ends_its_own_session_only() -> None:
    poison = 77

    async def run() -> None:
        engine = tiny_llama()
        embeddings = engine._model.get_input_embeddings()
        with torch.no_grad():
            embeddings.weight[poison] = float("nan")
        async with serving(engine) as verifier, dialled(verifier) as channel:
            good = edge(open_request(engine, TINY_PROMPT, max_tokens=20))
            bad = RawStream(channel)
            async with asyncio.TaskGroup() as group:
                group.create_task(good.run(RawStream(channel)))
                await bad.send(open_request(engine, (*TINY_PROMPT, poison), max_tokens=20))
                failure = await bad.receive_failure()
            assert failure.reason == "MODEL"
            assert "logits" in failure.message
            assert len(good.session.output) == 20
            await settled(verifier, engine)

    run_async(run())


def test_idle_time_is_used_for_noise() -> None:
    async def run() -> None:
        engine = tiny_llama()
        sessions = SessionSettings(max_lead=8)
        async with serving(engine, sessions=sessions) as verifier, dialled(verifier) as channel:
            stream = RawStream(channel)
            await opened(stream, engine, max_tokens=100, sampling=COUPLED)
            received = 0
            while received < 8:
                message = await stream.receive()
                assert isinstance(message, Commit)
                received += len(message.tokens)
            # It stands still now: nothing is acknowledged.
            assert isinstance(verifier.worker, Worker)
            (seat,) = verifier.worker._seats.values()
            await until(lambda: seat.sampler.num_bytes >= 32 * 4 * VOCABULARY_SIZE)
            stream.call.cancel()

    run_async(run())


def test_link_up_is_what_the_edge_expects() -> None:
    """The first message of a real edge may come with proposals right behind it, before `Opened`."""
    whole = [TokenId(token) for token in (*TINY_PROMPT, *tiny_output(TINY_PROMPT, GREEDY, 10))]

    async def run() -> RawEdge:
        engine = tiny_llama()
        async with serving(engine) as verifier, dialled(verifier) as channel:
            stream = RawStream(channel)
            one = edge(open_request(engine, TINY_PROMPT, max_tokens=10), guess=knows(whole))
            one.session.handle(LinkUp(holds_session=False))
            await stream.send(one.session.request)
            await stream.send(
                Proposal(base_position=Position(3), tokens=tuple(whole[3:7]), parents=(0,))
            )
            kinds = []
            while (message := await stream.receive()) is not None:
                kinds.append(type(message))
                if isinstance(message, Commit) and message.finish is not None:
                    break
            stream.call.cancel()
            assert kinds[0] is Opened
            assert kinds.count(Opened) == 1
            return one

    run_async(run())
