"""What a client measures of its generations, and what it tells of them: observers, counters, gauges, log lines."""

import asyncio
import logging
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import pytest
from harness.drafters import GuessingDrafter, toy_drafter
from harness.toy_client import PROMPT, TARGET, generation, place, surroundings, tokenizer
from harness.toy_cloud import ToyCloud
from harness.virtual_time import LoopClock, run_virtually

from paceline.client.client import Client
from paceline.client.generation import Generation
from paceline.client.link import VerifierInfo
from paceline.client.memory import MemoryConnector
from paceline.client.outcome import EndReason, Statistics
from paceline.client.settings import DraftingSettings, RetryPolicy
from paceline.errors import ConfigError, ConnectionGivenUpError, PacelineError
from paceline.messages import Proposal
from paceline.settings import Address
from paceline.tokens import TokenId, log_name

COUNT = 100
EXPECTED = TARGET.run(PROMPT, COUNT)
RIGHT = toy_drafter(TARGET, accuracy=1.0)


async def _tokens(answer: Generation, *, until: int) -> list[TokenId]:
    """Read up to so many tokens of output."""
    tokens: list[TokenId] = []
    async for piece in answer:
        tokens.extend(piece.token_ids)
        if len(tokens) == until:
            break
    return tokens


@dataclass(kw_only=True)
class Notes:
    """An observer that writes down what it is told."""

    ends: list[tuple[int, EndReason | None, PacelineError | None]] = field(default_factory=list)
    num_started: int = 0

    def generation_started(self) -> None:
        self.num_started += 1

    def generation_ended(
        self, *, statistics: Statistics, reason: EndReason | None, error: PacelineError | None
    ) -> None:
        self.ends.append((statistics.committed, reason, error))


def test_an_observer_hears_of_every_generation_and_counters_add_up() -> None:
    async def main() -> None:
        async with ToyCloud(target=TARGET, one_way_s=0.02) as cloud:
            notes = Notes()
            around = replace(
                surroundings([cloud], drafter=RIGHT, retry=RetryPolicy(give_up_after_s=1.0)),
                observer=notes,
            )

            def counters() -> dict[str, int]:
                running = [runner.statistics(now_s=0.0) for runner in around.running]
                found = around.ledger.counters(running, now_s=LoopClock().now_s())
                return {name: getattr(found, name) for name in found.__slots__}

            async with generation(around, max_tokens=COUNT) as answer:
                await _tokens(answer, until=50)
                during = counters()
                assert 50 <= during["committed"] < COUNT
                assert (during["num_generations"], len(around.running)) == (0, 1)
                await answer.complete()
            statistics = [answer.statistics]
            busy_s = LoopClock().now_s()
            await asyncio.sleep(10.0)  # idle
            async with generation(around, max_tokens=COUNT) as answer:
                began_s = LoopClock().now_s()
                await _tokens(answer, until=10)
            statistics.append(answer.statistics)
            async with generation(around, max_tokens=COUNT) as answer:
                await _tokens(answer, until=10)
                cloud.kill()
                with pytest.raises(ConnectionGivenUpError):
                    await answer.complete()
            statistics.append(answer.statistics)
            busy_s += LoopClock().now_s() - began_s
            after = counters()
            assert all(after[name] >= value for name, value in during.items())
            assert (after["num_generations"], after["num_failed"]) == (3, 1)
            assert after["busy_ns"] == pytest.approx(busy_s * 1e9)
            for name in ("committed", "drafted", "accepted", "proposals", "drafting_tokens"):
                assert after[name] == sum(getattr(one, name) for one in statistics) > 0
            proposals = [m for m in cloud.received if isinstance(m, Proposal) and m.tokens]
            assert after["proposals"] == len(proposals)
            assert around.running == {}
            assert (around.ledger.num_running, notes.num_started) == (0, 3)
            reasons = [reason for _, reason, _ in notes.ends]
            assert reasons == [EndReason.LENGTH, EndReason.CANCELLED, None]
            assert isinstance(notes.ends[2][2], ConnectionGivenUpError)
            assert [count for count, _, _ in notes.ends] == [one.committed for one in statistics]

    run_virtually(main())


def test_a_bug_counts_as_a_failure_without_an_error_of_ours() -> None:
    def guess(text: Sequence[TokenId]) -> TokenId:
        raise ZeroDivisionError

    async def main() -> None:
        async with ToyCloud(target=TARGET) as cloud:
            notes = Notes()
            around = replace(surroundings([cloud], drafter=GuessingDrafter(guess)), observer=notes)
            with pytest.raises(ZeroDivisionError):
                async with generation(around) as answer:
                    await answer.complete()
            assert [end[1:] for end in notes.ends] == [(None, None)]
            assert around.ledger.counters((), now_s=0.0).num_failed == 1

    run_virtually(main())


def test_both_sides_log_a_session_under_one_name(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> str:
        async with ToyCloud(target=TARGET) as cloud:
            async with generation(surroundings([cloud])) as answer:
                await _tokens(answer, until=5)
                (name,) = map(log_name, cloud.sessions)
                cloud.cut()
                await answer.complete()
            return name

    with caplog.at_level(logging.INFO, logger="paceline.client"):
        name = run_virtually(main())
    assert len(name) == 16
    named = [record.__dict__.get("session") for record in caplog.records]
    assert len(named) >= 3  # opened, broken, opened again
    assert set(named) == {name}


def test_a_client_is_steered_and_tells_how_it_does() -> None:
    async def main() -> None:
        async with ToyCloud(target=TARGET, step_s=0.001) as cloud, AsyncExitStack() as stack:
            servers = {place(0): cloud, place(1): cloud}
            client = await stack.enter_async_context(
                Client(
                    verifiers=[place(0), "127.0.0.1:1"],
                    tokenizer=tokenizer(),
                    drafter=RIGHT,
                    connector=MemoryConnector(servers),
                )
            )
            assert client.verifiers == (place(0),)  # named twice
            assert client.gauges().verifier == str(place(0))
            client.steer(drafting=DraftingSettings(draft_length=3, window=9))
            client.steer(verifiers=["127.0.0.1:2"])
            with pytest.raises(ConfigError, match="verifiers: got none"):
                client.steer(verifiers=())
            async with generation(client._surroundings, max_tokens=20) as answer:
                await answer.complete()
                gauges = client.gauges()
            assert (gauges.draft_length, gauges.window, gauges.verifier) == (3, 9, str(place(1)))
            assert gauges.step_s == pytest.approx(0.001)
            assert gauges.draft_s > 0.0
            assert client.counters().committed == 20
            assert client.counters().num_generations == 1
            assert (client.drafting.window, client.verifiers) == (9, (place(1),))
            assert (await client.probe(place(0))).address == place(0)
            assert client.rtt_s(place(0)) == 0.0  # as the toy says

    asyncio.run(main())


def test_a_round_trip_far_from_those_before_is_measured_again_at_once() -> None:
    async def main() -> None:
        async with ToyCloud(target=TARGET, step_s=0.1) as cloud:
            around = surroundings([cloud])
            async with generation(around, max_tokens=COUNT) as answer:
                cloud.one_way_s = 0.01
                await _tokens(answer, until=40)
                assert around.meter.rtt_s(place(0)) == pytest.approx(0.02)
                cloud.one_way_s = 0.1
                seen_s = LoopClock().now_s()
                while around.meter.rtt_s(place(0)) < 0.19:  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
                # At most a second until the next measurement, a quarter until the one that confirms it, and round trips.
                assert LoopClock().now_s() - seen_s < 1.0 + 0.25 + 2 * 0.2 + 0.05

    run_virtually(main())


def test_one_question_serves_all_generations() -> None:
    class Counting(ToyCloud):
        num_asked = 0

        async def describe(self, address: Address) -> VerifierInfo:
            self.num_asked += 1
            return await super().describe(address)

    async def main() -> None:
        async with Counting(target=TARGET, step_s=0.1, one_way_s=0.02) as cloud:
            around = surroundings([cloud])
            async with AsyncExitStack() as stack:
                answers = [
                    await stack.enter_async_context(generation(around, max_tokens=COUNT))
                    for _ in range(8)
                ]
                for answer in answers:
                    await answer.complete()
            assert 8 <= cloud.num_asked <= 2 * COUNT * 0.1  # in ten seconds

    run_virtually(main())
