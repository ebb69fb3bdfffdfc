"""Draft length, window and verifiers change while generations run; the text does not. Virtual time."""

from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

import pytest
from harness.drafters import Broken, GuessingDrafter, toy_drafter
from harness.toy_client import PROMPT, TARGET, client_of, generation, place, surroundings
from harness.toy_cloud import ToyCloud
from harness.toy_verifier import toy_identity
from harness.virtual_time import LoopClock, run_virtually

from paceline.client.generation import Generation
from paceline.client.runner import Surroundings
from paceline.client.settings import DraftingSettings
from paceline.drafter import Drafter
from paceline.errors import (
    RemoteProtocolError,
)
from paceline.messages import Open, Proposal, Resume
from paceline.settings import Address
from paceline.tokens import TokenId

COUNT = 100
EXPECTED = TARGET.run(PROMPT, COUNT)
RIGHT = toy_drafter(TARGET, accuracy=1.0)


def _assign(around: Surroundings, *places: Address) -> None:
    around.verifiers = places
    around.steer()


async def _tokens(answer: Generation, *, until: int) -> list[TokenId]:
    """Read up to so many tokens of output."""
    tokens: list[TokenId] = []
    async for piece in answer:
        tokens.extend(piece.token_ids)
        if len(tokens) == until:
            break
    return tokens


def _proposals(cloud: ToyCloud) -> list[Proposal]:
    return [m for m in cloud.received if isinstance(m, Proposal) and m.tokens]


@dataclass(kw_only=True)
class Steered:
    """What a generation sent before it was steered, and after."""

    before: list[Proposal]
    after: list[Proposal]
    drafted: int
    duration_s: float


def _steered(
    start: DraftingSettings, *, drafter: Drafter | None = RIGHT, **changes: int
) -> Steered:
    """Run a generation over a link of 100 ms, steered after 30 tokens; the text is checked."""

    async def main() -> Steered:
        async with ToyCloud(target=TARGET, one_way_s=0.05, race=False) as cloud:
            around = surroundings([cloud], drafter=drafter, drafting=start)
            async with generation(around, max_tokens=COUNT) as answer:
                tokens = await _tokens(answer, until=30)
                before = _proposals(cloud)
                at_s = LoopClock().now_s()
                around.drafting = replace(start, **changes)  # type: ignore[arg-type]
                around.steer()
                tokens += await _tokens(answer, until=COUNT)
                duration_s = LoopClock().now_s() - at_s
            assert tuple(tokens) == EXPECTED
            return Steered(
                before=before,
                after=_proposals(cloud)[len(before) :],
                drafted=answer.statistics.drafted,
                duration_s=duration_s,
            )

    return run_virtually(main())


def test_more_deepens_what_is_in_flight_at_once() -> None:
    kept = _steered(DraftingSettings(draft_length=2))
    more = _steered(DraftingSettings(draft_length=2), draft_length=32, tokens_per_message=8)
    assert max(len(p.tokens) for p in kept.after) <= 2
    assert max(len(p.tokens) for p in more.after) == 8
    # Two guesses and the target's own token per round trip before; ten times as many now.
    assert more.duration_s < 0.25 * kept.duration_s


def test_from_nothing_drafting_begins_in_a_running_generation() -> None:
    steered = _steered(DraftingSettings(draft_length=0), draft_length=16)
    assert steered.before == []
    assert sum(len(p.tokens) for p in steered.after) > 30


def test_nothing_ends_drafting_but_not_the_text() -> None:
    steered = _steered(DraftingSettings(draft_length=16), draft_length=0)
    assert steered.before
    # What had been drafted when it was steered is all that there is.
    assert sum(len(p.tokens) for p in steered.after) <= 16


def test_a_narrow_window_holds_for_what_is_sent_next() -> None:
    steered = _steered(DraftingSettings(draft_length=16), window=1)
    *_, last = steered.after
    assert len(last.tokens) == 1


def test_a_drafter_that_failed_is_not_asked_again() -> None:
    steered = _steered(DraftingSettings(), drafter=Broken(fails_at=2), draft_length=32)
    assert steered.after == []


def test_without_a_drafter_there_is_nothing_to_steer() -> None:
    assert _steered(DraftingSettings(), drafter=None, draft_length=32).drafted == 0


def test_a_drafter_takes_no_memory_before_it_is_needed() -> None:
    async def main() -> None:
        drafter = GuessingDrafter(TARGET.draw)
        async with ToyCloud(target=TARGET) as cloud:
            start = DraftingSettings(draft_length=0)
            around = surroundings([cloud], drafter=drafter, drafting=start)
            async with generation(around) as answer:
                await _tokens(answer, until=10)
                assert drafter.drafts == []
                around.drafting = replace(start, draft_length=4)
                around.steer()
                await answer.complete()
            assert [draft.is_closed for draft in drafter.drafts] == [True]

    run_virtually(main())


def _firsts(cloud: ToyCloud) -> list[type]:
    return [type(m) for m in cloud.received if isinstance(m, Open | Resume)]


def test_new_verifiers_serve_new_generations_and_leave_running_ones_alone() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = [await stack.enter_async_context(ToyCloud(target=TARGET)) for _ in range(2)]
            around = surroundings(clouds, drafter=RIGHT)
            waiting = generation(around, max_tokens=COUNT)  # made before, entered after
            async with generation(around, max_tokens=COUNT) as answer:
                tokens = await _tokens(answer, until=20)
                _assign(around, place(1), place(0))
                async with waiting:
                    assert (await waiting.complete()).token_ids == EXPECTED
                tokens += await _tokens(answer, until=COUNT)
            assert tuple(tokens) == EXPECTED
            assert [_firsts(cloud) for cloud in clouds] == [[Open], [Open]]
            assert answer.statistics.reconnects == waiting.statistics.reconnects == 0

    run_virtually(main())


@pytest.mark.parametrize("event", ["kill", "drain", "cut"])
def test_a_running_generation_goes_to_a_verifier_it_learned_of_later(event: str) -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = [
                await stack.enter_async_context(ToyCloud(target=TARGET, one_way_s=0.02))
                for _ in range(3)
            ]
            around = surroundings(clouds, drafter=RIGHT)
            around.verifiers = (place(0),)
            async with generation(around, max_tokens=COUNT) as answer:
                tokens = await _tokens(answer, until=20)
                _assign(around, place(2), place(1))
                tokens += await _tokens(answer, until=10)
                getattr(clouds[0], event)()
                tokens += await _tokens(answer, until=COUNT)
            assert tuple(tokens) == EXPECTED
            # A broken link is no reason to stay with a verifier that is not to be used any more.
            assert [_firsts(cloud) for cloud in clouds] == [[Open], [], [Open]]

    run_virtually(main())


def test_a_draining_verifier_is_left_as_soon_as_there_is_another() -> None:
    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = [
                await stack.enter_async_context(ToyCloud(target=TARGET, one_way_s=0.02))
                for _ in range(2)
            ]
            around = surroundings(clouds, drafter=RIGHT)
            around.verifiers = (place(0),)
            async with generation(around, max_tokens=COUNT) as answer:
                tokens = await _tokens(answer, until=20)
                clouds[0].drain()
                tokens += await _tokens(answer, until=20)
                assert _firsts(clouds[1]) == []
                _assign(around, place(0), place(1))
                tokens += await _tokens(answer, until=COUNT)
            assert tuple(tokens) == EXPECTED
            assert _firsts(clouds[1]) == [Open]

    run_virtually(main())


def test_weights_are_asked_of_those_verifiers_alone_that_must_have_them() -> None:
    weights = toy_identity(TARGET.vocabulary_size).weights_fingerprint

    async def main() -> None:
        async with AsyncExitStack() as stack:
            clouds = [await stack.enter_async_context(ToyCloud(target=TARGET)) for _ in range(2)]
            around = surroundings(clouds)
            client_of(around).steer(verifiers=(place(1), place(0)), weights={place(1): weights})
            for address in (place(1), place(0)):
                client_of(around).steer(verifiers=(address,))
                async with generation(around, max_tokens=10) as answer:
                    assert (await answer.complete()).token_ids == EXPECTED[:10]
            client_of(around).steer(verifiers=(place(1),), weights={place(1): bytes(32)})
            with pytest.raises(RemoteProtocolError, match="weights_fingerprint"):
                async with generation(around, max_tokens=10) as answer:
                    await answer.complete()
            opens = [[m for m in cloud.received if isinstance(m, Open)] for cloud in clouds]
            asked = [[one.weights_fingerprint for one in cloud] for cloud in opens]
            assert asked == [[b""], [weights, bytes(32)]]

    run_virtually(main())
