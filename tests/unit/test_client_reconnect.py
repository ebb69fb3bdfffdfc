"""Links break, verifiers die, drain and refuse; the text is the same. Virtual time: nothing here really waits."""

import asyncio
from contextlib import AsyncExitStack

import pytest
from harness.drafters import toy_drafter
from harness.toy_client import PROMPT, TARGET, generation, surroundings
from harness.toy_cloud import ToyCloud
from harness.virtual_time import LoopClock, run_virtually

from paceline.client.outcome import EndReason
from paceline.client.settings import RetryPolicy
from paceline.errors import ConnectionGivenUpError, InvalidRequestError
from paceline.messages import Close, CloseReason, Failure, Open, Resume
from paceline.tokens import TokenId

COUNT = 60
EXPECTED = TARGET.run(PROMPT, COUNT)
DRAFTER = 0.7


async def _clouds(stack: AsyncExitStack, count: int = 1) -> list[ToyCloud]:
    return [
        await stack.enter_async_context(ToyCloud(target=TARGET, one_way_s=0.03))
        for _ in range(count)
    ]


def _firsts(cloud: ToyCloud) -> list[Open | Resume]:
    return [m for m in cloud.received if isinstance(m, Open | Resume)]


def test_a_cut_link_is_resumed_on_the_same_verifier() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            [cloud] = await _clouds(stack)
            around = surroundings([cloud], drafter=toy_drafter(TARGET, accuracy=DRAFTER))
            async with generation(around) as answer:
                tokens: list[TokenId] = []
                async for piece in answer:
                    tokens.extend(piece.token_ids)
                    if len(tokens) in {10, 30}:
                        cloud.cut()
            assert tuple(tokens) == EXPECTED
            first, *others = _firsts(cloud)
            assert isinstance(first, Open)
            assert others
            assert all(isinstance(other, Resume) for other in others)
            assert answer.result.statistics.reconnects == len(others)
            assert cloud.sessions == {}

    run_virtually(main())


def test_a_killed_verifier_that_comes_back_gets_the_session_in_full() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            [cloud] = await _clouds(stack)
            around = surroundings([cloud], drafter=toy_drafter(TARGET, accuracy=DRAFTER))
            async with generation(around) as answer:
                tokens: list[TokenId] = []
                async for piece in answer:
                    tokens.extend(piece.token_ids)
                    if len(tokens) == 20:
                        cloud.kill()
                        cloud.is_up = True
            assert tuple(tokens) == EXPECTED
            kinds = [type(m) for m in _firsts(cloud)]
            assert kinds == [Open, Resume, Open]
            last = _firsts(cloud)[-1]
            assert isinstance(last, Open)
            assert last.output == EXPECTED[: len(last.output)]
            assert len(last.output) >= 20

    run_virtually(main())


def test_a_killed_verifier_is_replaced_by_another(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = await _clouds(stack, 2)
            around = surroundings(clouds, drafter=toy_drafter(TARGET, accuracy=DRAFTER))
            async with generation(around) as answer:
                tokens: list[TokenId] = []
                async for piece in answer:
                    tokens.extend(piece.token_ids)
                    if len(tokens) == 20:
                        clouds[0].kill()
            assert tuple(tokens) == EXPECTED
            assert [type(m) for m in _firsts(clouds[1])] == [Open]

    run_virtually(main())
    # Never silently.
    assert "trying 127.0.0.1:1 in" in caplog.messages[0]
    assert "trying 127.0.0.1:2 in" in caplog.messages[1]


def test_not_every_generation_finds_out_that_a_verifier_is_gone() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = await _clouds(stack, 2)
            clouds[0].is_up = False
            around = surroundings(clouds)
            durations_s = []
            for _ in range(2):
                async with generation(around) as answer:
                    started_s = LoopClock().now_s()
                    assert (await answer.complete()).token_ids == EXPECTED
                    durations_s.append(LoopClock().now_s() - started_s)
            assert durations_s[1] < durations_s[0] - 0.05
            assert clouds[0].received == []

    run_virtually(main())


def test_a_draining_verifier_is_left_for_another() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = await _clouds(stack, 2)
            around = surroundings(clouds, drafter=toy_drafter(TARGET, accuracy=DRAFTER))
            async with generation(around) as answer:
                tokens: list[TokenId] = []
                async for piece in answer:
                    tokens.extend(piece.token_ids)
                    if len(tokens) == 20:
                        clouds[0].drain()
            assert tuple(tokens) == EXPECTED
            assert [type(m) for m in _firsts(clouds[1])] == [Open]

    run_virtually(main())


def test_the_only_verifier_is_used_while_it_drains() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            [cloud] = await _clouds(stack)
            async with generation(surroundings([cloud])) as answer:
                async for piece in answer:
                    if piece.position == len(PROMPT) + 20:
                        cloud.drain()
            assert answer.result.token_ids == EXPECTED
            assert answer.result.statistics.reconnects == 0

    run_virtually(main())


def test_an_overloaded_verifier_is_left_alone_for_as_long_as_it_asks() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            [cloud] = await _clouds(stack)
            cloud.failure = Failure(
                reason="OVERLOADED", message="full", retryable=True, retry_after_ms=7000
            )
            async with generation(surroundings([cloud])) as answer:
                await asyncio.sleep(0.05)  # virtual: the request has arrived, the answer has not
                assert len(_firsts(cloud)) == 1
                cloud.failure = None
                await answer.complete()
            assert answer.result.token_ids == EXPECTED
            assert 7.0 < answer.result.statistics.time_to_first_token_s < 8.0

    run_virtually(main())


def test_an_unreachable_verifier_is_given_up_after_a_while() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = await _clouds(stack, 2)
            for cloud in clouds:
                cloud.is_up = False
            around = surroundings(clouds, retry=RetryPolicy(give_up_after_s=30.0))
            started_s = LoopClock().now_s()
            async with generation(around) as answer:
                with pytest.raises(ConnectionGivenUpError, match=r"127\.0\.0\.1:1, 127\.0\.0\.1:2"):
                    await answer.complete()
            assert 20.0 < LoopClock().now_s() - started_s <= 30.0
            with pytest.raises(ConnectionGivenUpError):
                _ = answer.result

    run_virtually(main())


def test_a_silent_verifier_is_left_within_the_bound() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            mute = await stack.enter_async_context(ToyCloud(target=TARGET, step_s=1000.0))
            [cloud] = await _clouds(stack)
            async with generation(surroundings([mute, cloud], silence_s=5.0)) as answer:
                await answer.complete()
            assert answer.result.token_ids == EXPECTED
            # Once to find out, once more because a resume might have helped.
            assert 10.0 < answer.result.statistics.time_to_first_token_s < 11.0

    run_virtually(main())


def test_a_refusal_that_is_final_ends_the_generation() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            [cloud] = await _clouds(stack)
            cloud.failure = Failure(
                reason="INVALID_REQUEST", message="prompt: too long", retryable=False
            )
            async with generation(surroundings([cloud])) as answer:
                with pytest.raises(InvalidRequestError, match="prompt: too long"):
                    await answer.complete()

    run_virtually(main())


def test_leaving_early_frees_the_session_at_once() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            [cloud] = await _clouds(stack)
            drafter = toy_drafter(TARGET, accuracy=DRAFTER)
            async with generation(surroundings([cloud], drafter=drafter)) as answer:
                async for piece in answer:
                    if piece.position == len(PROMPT) + 10:
                        break
            assert cloud.sessions == {}
            assert cloud.received[-1] == Close(reason=CloseReason.CANCELLED)
            assert all(draft.is_closed for draft in drafter.drafts)
            result = answer.result
            assert result.finish_reason is EndReason.CANCELLED
            assert result.token_ids == EXPECTED[: result.completion_tokens]
            assert result.completion_tokens >= 11

    run_virtually(main())


def test_an_exception_of_the_caller_comes_out_as_it_is() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            [cloud] = await _clouds(stack)
            with pytest.raises(KeyError, match="mine"):
                async with generation(surroundings([cloud])):
                    raise KeyError("mine")
            # Cancelled before it was opened: nothing may be left behind at the verifier.
            assert cloud.sessions == {}

    run_virtually(main())
