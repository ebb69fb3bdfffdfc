"""The client with the real verifier over gRPC: the text is the target's own, whatever drafts and whatever breaks."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from harness.drafters import AlwaysWrong
from harness.event_loop import run_async
from harness.models import VOCABULARY_SIZE, llama_config, save_tiny, tiny_llama, tiny_model
from harness.processes import Child, free_port, running
from harness.raw_edge import LOOPBACK, serving, settled
from harness.reference import reference_output
from harness.relay import threaded_relay
from harness.toy_client import tokenizer

from cloud.scheduler import RaceDrafting, SchedulerSettings
from cloud.server import ServerSettings, Verifier
from cloud.tenants import TenantSettings
from edge.drafters import LookupDrafter, ModelDrafter
from paceline import Client
from paceline.client import (
    ConnectionSettings,
    EndReason,
    GenerationResult,
    RetryPolicy,
)
from paceline.client.grpc_link import GrpcConnector
from paceline.drafter import Drafter
from paceline.engine.engine import Engine
from paceline.errors import (
    ConnectionGivenUpError,
    IncompatibleError,
    InvalidRequestError,
    LinkClosed,
    UnauthenticatedError,
)
from paceline.sampling.settings import SamplingSettings
from paceline.settings import Address
from paceline.tokens import TokenId
from simulator.relay import CutMode

PROMPT = [TokenId(token) for token in (5, 17, 99, 200, 31, 8)]
COUNT = 48
LONG = 160
"""Long enough that the last tokens are not under way yet when the first ones are seen."""
GREEDY = SamplingSettings(temperature=0.0)
NOISY = SamplingSettings(temperature=0.8, seed=1234)
RIGHT = "right-token-0123456789"
WAITING = SchedulerSettings(race=False, patience_s=30.0, race_drafts=RaceDrafting.OFF)
"""The verifier waits for drafts, so that what is accepted does not depend on who is faster."""


@cache
def expected(sampling: SamplingSettings, count: int = COUNT) -> tuple[TokenId, ...]:
    return tuple(
        reference_output(
            tiny_model(llama_config()),
            PROMPT,
            sampling=sampling,
            max_tokens=count,
            stop_tokens=tokenizer().stop_tokens,
            vocabulary_size=VOCABULARY_SIZE,
        )
    )


def engine() -> Engine:
    made = tiny_llama()
    made.identity = replace(made.identity, tokenizer_fingerprint=tokenizer().fingerprint)
    return made


def drafter(name: str, sampling: SamplingSettings) -> Drafter | None:
    match name:
        case "same":
            return ModelDrafter(engine(), vocabulary_size=VOCABULARY_SIZE)
        case "lookup":
            return LookupDrafter(shortest=1)
        case "wrong":
            return AlwaysWrong(expected(sampling), vocabulary_size=VOCABULARY_SIZE)
        case _:
            return None


def client(verifiers: Sequence[Address], **settings: Any) -> Client:
    return Client(verifiers=verifiers, tokenizer=tokenizer(), **settings)


@asynccontextmanager
async def verifier(**settings: Any) -> AsyncIterator[tuple[Verifier, Engine]]:
    target = engine()
    async with serving(target, **settings) as running_verifier:
        yield running_verifier, target


async def ask(asking: Client, sampling: SamplingSettings, **request: Any) -> GenerationResult:
    arguments: dict[str, Any] = {"prompt_ids": PROMPT, "max_tokens": COUNT} | request
    async with asking.generate(sampling=sampling, **arguments) as generation:
        return await generation.complete()


@pytest.mark.slow
def test_a_verifier_that_has_become_another_one_is_left_for_the_next() -> None:
    other = tiny_llama(seed=3)
    other.identity = replace(other.identity, tokenizer_fingerprint=tokenizer().fingerprint)

    async def main() -> None:
        async with (
            verifier() as (right, _),
            serving(other) as wrong,
            client([right.address]) as asking,
        ):
            proven = {wrong.address: right.registry.target.weights_fingerprint}
            asking.steer(verifiers=(wrong.address, right.address), weights=proven)
            result = await ask(asking, NOISY)
            assert result.token_ids == expected(NOISY)
            assert result.statistics.reconnects == 1
            asking.steer(verifiers=(wrong.address,))
            with pytest.raises(IncompatibleError, match="weights_fingerprint"):
                await ask(asking, NOISY)

    run_async(main())


@pytest.mark.parametrize("sampling", [GREEDY, NOISY], ids=["greedy", "noisy"])
@pytest.mark.parametrize("name", ["none", "same", "lookup", "wrong"])
def test_the_text_is_the_targets_own(sampling: SamplingSettings, name: str) -> None:
    async def main() -> GenerationResult:
        async with verifier(scheduler=WAITING) as (served, target):
            async with client([served.address], drafter=drafter(name, sampling)) as asking:
                result = await ask(asking, sampling)
            await settled(served, target)
        return result

    result = run_async(main())
    assert result.token_ids == expected(sampling)
    assert result.text == tokenizer().decode(result.token_ids)
    statistics = result.statistics
    if name == "same":
        # Same weights, same noise, float32: nothing is ever refused.
        assert statistics.acceptance_probability == 1.0
        assert statistics.accepted > COUNT // 2
        assert statistics.steps_saved > 0
    if name == "wrong":
        assert statistics.accepted == 0
        assert statistics.judged > 0
    if name == "none":
        assert statistics.drafted == 0
        assert statistics.steps == len(result.token_ids)


def test_several_generations_at_the_same_time() -> None:
    samplings = [replace(NOISY, seed=seed) for seed in range(4)]

    async def main() -> list[GenerationResult]:
        async with verifier() as (served, target):
            async with (
                client([served.address], drafter=drafter("same", NOISY)) as asking,
                asyncio.TaskGroup() as group,
            ):
                tasks = [group.create_task(ask(asking, s)) for s in samplings]
            await settled(served, target)
            return [task.result() for task in tasks]

    for sampling, result in zip(samplings, run_async(main()), strict=True):
        assert result.token_ids == expected(sampling)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["same", "lookup"])
def test_links_that_break_change_nothing(name: str) -> None:
    async def main() -> GenerationResult:
        async with verifier(scheduler=WAITING) as (served, target):
            with threaded_relay(served.address, rtt_s=0.02) as relay:
                async with (
                    client([relay.address], drafter=drafter(name, NOISY)) as asking,
                    asking.generate(
                        prompt_ids=PROMPT, max_tokens=LONG, sampling=NOISY
                    ) as generation,
                ):
                    async for piece in generation:
                        if piece.position - len(PROMPT) in {20, 60, 100}:
                            await asyncio.to_thread(relay.cut, CutMode.RESET)
                            await asyncio.to_thread(relay.heal)
            await settled(served, target)
            return generation.result

    result = run_async(main())
    assert result.token_ids == expected(NOISY, LONG)
    assert result.statistics.reconnects >= 1


@pytest.mark.slow
def test_a_lost_verifier_is_replaced_by_another() -> None:
    async def main() -> GenerationResult:
        async with (
            verifier(scheduler=WAITING) as (first, _),
            verifier(scheduler=WAITING) as (second, target),
        ):
            with threaded_relay(first.address, rtt_s=0.02) as relay:
                async with (
                    client(
                        [relay.address, second.address], drafter=drafter("same", NOISY)
                    ) as asking,
                    asking.generate(
                        prompt_ids=PROMPT, max_tokens=LONG, sampling=NOISY
                    ) as generation,
                ):
                    async for piece in generation:
                        if piece.position - len(PROMPT) == 20:
                            await asyncio.to_thread(relay.cut, CutMode.RESET)
            await settled(second, target)
            return generation.result

    result = run_async(main())
    assert result.token_ids == expected(NOISY, LONG)
    assert result.statistics.reconnects == 1


def test_leaving_early_frees_the_verifier() -> None:
    async def main() -> GenerationResult:
        async with verifier() as (served, target), client([served.address]) as asking:
            async with asking.generate(
                prompt_ids=PROMPT, max_tokens=COUNT, sampling=NOISY
            ) as generation:
                await anext(generation)
            # Not by its lease, which lasts a minute: `settled` waits for much less.
            await settled(served, target)
            return generation.result

    result = run_async(main())
    assert result.finish_reason is EndReason.CANCELLED
    assert result.token_ids == expected(NOISY)[: len(result.token_ids)]


def test_log_probabilities_come_along() -> None:
    async def main() -> None:
        async with (
            verifier() as (served, _),
            client([served.address]) as asking,
            asking.generate(
                prompt_ids=PROMPT, max_tokens=5, sampling=GREEDY, num_logprobs=3
            ) as generation,
        ):
            pieces = [piece async for piece in generation]
        for piece in pieces[:5]:
            assert piece.logprobs is not None
            # Greedy: the token drawn is the likeliest one.
            assert piece.logprobs.top_tokens[0] == piece.token_ids[0]
            assert piece.logprobs.top_logprobs[0] == piece.logprobs.logprob < 0.0
            assert len(piece.logprobs.top_tokens) == 3

    run_async(main())


def test_describe_measures_the_round_trip() -> None:
    async def main() -> None:
        async with verifier() as (served, target):
            with threaded_relay(served.address, rtt_s=0.05) as relay:
                async with client([relay.address]) as asking:
                    info = await asking.describe()
                    result = await ask(asking, GREEDY)
        assert info.target == target.identity
        assert info.protocol_version == 1
        assert 0.05 <= result.statistics.rtt_s <= info.rtt_s < 0.5

    run_async(main())


def test_connections_that_nobody_needs_are_closed_and_no_stream_with_them() -> None:
    async def main() -> None:
        async with (
            verifier() as (served, _),
            verifier() as (other, _),
            client([served.address]) as asking,
        ):
            connector = asking._connector
            assert isinstance(connector, GrpcConnector)
            await asking.probe(other.address)
            async with asking.generate(
                prompt_ids=PROMPT, max_tokens=COUNT, sampling=NOISY
            ) as generation:
                await anext(generation)
                await asking.keep_only([])
                # One still carries the stream.
                assert (len(connector._current), len(connector._retired)) == (0, 1)
                result = await generation.complete()
            assert result.token_ids == expected(NOISY)
            assert result.statistics.reconnects == 0
            await asking.keep_only([])
            assert not connector._retired
            assert asking.rtt_s(other.address) == 0.0
            assert asking.rtt_s(served.address) > 0.0  # it was in use last

    run_async(main())


def test_a_token_is_shown_and_a_wrong_one_refused() -> None:
    tenants = TenantSettings(tokens={RIGHT: "tenant"})
    server = ServerSettings(listen=LOOPBACK, has_tokens=True)

    async def main() -> None:
        async with verifier(tenants=tenants, server=server) as (served, _):
            right = ConnectionSettings(token=RIGHT)
            async with client([served.address], connection=right) as asking:
                assert (await ask(asking, GREEDY)).token_ids == expected(GREEDY)
            for connection in (ConnectionSettings(token=RIGHT[::-1]), ConnectionSettings()):
                async with client([served.address], connection=connection) as asking:
                    with pytest.raises(UnauthenticatedError):
                        await asking.describe()
                    with pytest.raises(UnauthenticatedError):
                        await ask(asking, GREEDY)

    run_async(main())


def test_what_can_never_succeed_is_said_at_once() -> None:
    async def main() -> None:
        target = tiny_llama()  # whose identity tells of another tokenizer
        async with serving(target) as served, client([served.address]) as asking:
            with pytest.raises(IncompatibleError, match="tokenizer"):
                await ask(asking, GREEDY)
        async with verifier() as (served, _), client([served.address]) as asking:
            with pytest.raises(InvalidRequestError, match="prompt"):
                await ask(asking, GREEDY, prompt_ids=[TokenId(9)] * 600)

    run_async(main())


def test_nobody_listening() -> None:
    address = Address(host="127.0.0.1", port=free_port())
    patience = ConnectionSettings(retry=RetryPolicy(give_up_after_s=0.3))

    async def main() -> None:
        async with client([address], connection=patience) as asking:
            with pytest.raises(LinkClosed, match="paceline cloud"):
                await asking.describe()
            with pytest.raises(ConnectionGivenUpError, match=str(address)):
                await ask(asking, GREEDY)

    run_async(main())


@contextmanager
def process(folder: Path, address: Address, *, is_awaited: bool = True) -> Iterator[Child]:
    """A verifier that can be killed; slow enough to be killed in the middle of an answer."""
    options = ("--listen", str(address), "--target", str(folder), "--threads", "1")
    ready = str(address) if is_awaited else None
    with running("paceline.command", "cloud", *options, "--min-step", "5ms", ready=ready) as child:
        yield child


async def killed_in_the_middle(
    verifiers: Sequence[Address], doomed: Child, after: Callable[[], None] = lambda: None
) -> None:
    """Kill a verifier that serves a greedy and a drawn answer, and check that both are what they would have been."""
    async with (
        client(verifiers, drafter=drafter("same", NOISY)) as asking,
        asking.generate(prompt_ids=PROMPT, max_tokens=300, sampling=GREEDY) as greedy,
        asking.generate(prompt_ids=PROMPT, max_tokens=300, sampling=NOISY) as noisy,
    ):
        await anext(greedy)
        await anext(noisy)
        doomed.kill()
        after()
        for generation, sampling in ((greedy, GREEDY), (noisy, NOISY)):
            result = await generation.complete()
            assert result.statistics.reconnects >= 1
            assert result.token_ids == expected(sampling, 300)


@pytest.mark.slow
def test_a_killed_verifier_that_comes_back_goes_on_with_the_same_text(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    address = Address(host="127.0.0.1", port=free_port())
    with process(folder, address) as doomed, ExitStack() as stack:

        def come_back() -> None:
            stack.enter_context(process(folder, address, is_awaited=False))

        run_async(killed_in_the_middle([address], doomed, come_back))


@pytest.mark.slow
def test_a_killed_verifier_is_replaced_by_another_process(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path)
    first, second = (Address(host="127.0.0.1", port=free_port()) for _ in range(2))
    with process(folder, first) as doomed, process(folder, second):
        run_async(killed_in_the_middle([first, second], doomed))
