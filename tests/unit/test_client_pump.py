"""Drafting ahead of the verifier: in flight, in small messages, interruptible, and never in the way."""

import asyncio
import threading
from collections.abc import Sequence

import pytest
from harness.drafters import (
    AlwaysWrong,
    Broken,
    GuessingDraft,
    GuessingDrafter,
    toy_drafter,
)
from harness.toy_client import PROMPT, TARGET, generation, surroundings
from harness.toy_cloud import ToyCloud
from harness.virtual_time import run_virtually

from paceline.client.outcome import GenerationResult
from paceline.client.pump import DraftingThread
from paceline.client.settings import DraftingSettings
from paceline.drafter import Drafter
from paceline.messages import Open, Proposal
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

COUNT = 60
EXPECTED = TARGET.run(PROMPT, COUNT)


def _answer(
    drafter: Drafter | None,
    *,
    one_way_s: float = 0.0,
    race: bool = True,
    drafting: DraftingSettings | None = None,
    call_s: float = 0.001,
) -> tuple[GenerationResult, ToyCloud]:
    async def main() -> tuple[GenerationResult, ToyCloud]:
        async with ToyCloud(target=TARGET, one_way_s=one_way_s, race=race) as cloud:
            around = surroundings([cloud], drafter=drafter, drafting=drafting, call_s=call_s)
            async with generation(around) as answer:
                return await answer.complete(), cloud

    return run_virtually(main())


@pytest.mark.parametrize("race", [True, False])
@pytest.mark.parametrize("accuracy", [0.0, 0.6, 1.0])
@pytest.mark.parametrize("one_way_s", [0.0, 0.03, 0.125])
def test_the_text_is_the_targets_whatever_the_drafter(
    race: bool, accuracy: float, one_way_s: float
) -> None:
    drafter = toy_drafter(TARGET, accuracy=accuracy)
    result, cloud = _answer(drafter, one_way_s=one_way_s, race=race)
    assert result.token_ids == EXPECTED
    assert cloud.sessions == {}
    statistics = result.statistics
    assert statistics.drafted == cloud.num_drafted > 0
    if not race:
        assert (statistics.accepted > 0) == (accuracy > 0)
        # A guess that arrived during the step that drew its token is accepted, but saved nothing.
        assert (statistics.steps_saved > 0) == (accuracy > 0)
        assert statistics.steps_saved <= statistics.accepted


def test_guesses_are_in_flight_while_others_are_verified() -> None:
    # 250 ms round trip, the verifier decodes only what it is offered. Waiting for every reply would take a round trip
    # per message of 4 tokens: 15 of them. Running ahead by 32 tokens takes a round trip per 32: two, and one to begin.
    drafting = DraftingSettings(draft_length=32, tokens_per_message=4)
    drafter = toy_drafter(TARGET, accuracy=1.0)
    result, _ = _answer(drafter, one_way_s=0.125, race=False, drafting=drafting)
    assert result.token_ids == EXPECTED
    assert result.statistics.duration_s < 4 * 0.25


def test_guesses_leave_in_small_messages() -> None:
    drafting = DraftingSettings(tokens_per_message=3)
    _, cloud = _answer(toy_drafter(TARGET, accuracy=1.0), race=False, drafting=drafting)
    sizes = [len(m.tokens) for m in cloud.received if isinstance(m, Proposal) and m.tokens]
    assert max(sizes) == 3
    assert sum(sizes) == cloud.num_drafted


def test_drafting_starts_before_the_verifier_has_answered() -> None:
    drafter = toy_drafter(TARGET, accuracy=1.0)
    _, cloud = _answer(drafter, one_way_s=10.0)
    first, second, *_ = cloud.received
    assert isinstance(first, Open)
    assert isinstance(second, Proposal)
    assert second.tokens == EXPECTED[:4]


def test_the_window_is_kept() -> None:
    drafting = DraftingSettings(draft_length=32, window=5)
    result, _ = _answer(
        toy_drafter(TARGET, accuracy=1.0), one_way_s=0.03, race=False, drafting=drafting
    )
    assert result.token_ids == EXPECTED
    # Five names in flight at most, so at most five tokens and the target's own per round trip.
    assert result.statistics.duration_s > COUNT / 6 * 0.06


def test_a_contradicted_guess_is_dropped_at_the_next_extend() -> None:
    drafter = AlwaysWrong(EXPECTED, vocabulary_size=TARGET.vocabulary_size)
    result, _ = _answer(drafter, one_way_s=0.03)
    assert result.token_ids == EXPECTED
    assert result.statistics.accepted == 0
    assert result.statistics.steps == COUNT
    assert result.statistics.drafted + result.statistics.unsent > 0


def test_a_drafter_that_is_silent_lets_the_verifier_go_on() -> None:
    class Silent(GuessingDraft):
        def extend(
            self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
        ) -> tuple[TokenId, ...]:
            super().extend(text, 1)
            return ()

    class SilentDrafter(GuessingDrafter):
        def open(
            self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
        ) -> GuessingDraft:
            return Silent(self._guess, self.calls)

    drafter = SilentDrafter(TARGET.draw)
    result, cloud = _answer(drafter, race=False)
    assert result.token_ids == EXPECTED
    assert cloud.num_drafted == 0
    # Asked once per text, not over and over.
    lengths = [length for length, _ in drafter.calls]
    assert len(lengths) == len(set(lengths)) <= COUNT


@pytest.mark.parametrize("fails_at", [1, 3])
def test_a_drafter_that_fails_is_left_alone(
    fails_at: int, caplog: pytest.LogCaptureFixture
) -> None:
    result, _ = _answer(Broken(fails_at=fails_at), race=False)
    assert result.token_ids == EXPECTED
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "without drafts" in caplog.text


def test_a_drafter_that_cannot_open_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    class Unopenable(Broken):
        def open(
            self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
        ) -> "Broken":
            self._left = 0
            self.extend((), 1)
            return self

    result, _ = _answer(Unopenable(), race=False)
    assert result.token_ids == EXPECTED
    assert "without drafts" in caplog.text


def test_a_bug_of_the_drafter_comes_out_as_it_is() -> None:
    def guess(text: Sequence[TokenId]) -> TokenId:
        raise ZeroDivisionError("a bug")

    with pytest.raises(ZeroDivisionError, match="a bug"):
        _answer(GuessingDrafter(guess))


def test_a_long_preparation_is_interrupted() -> None:
    class Slow(GuessingDraft):
        left = 1000

        def prepare(self, text: Sequence[TokenId]) -> bool:
            self.left -= 1
            return self.left > 0

    class SlowDrafter(GuessingDrafter):
        def open(
            self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
        ) -> GuessingDraft:
            self.drafts.append(Slow(self._guess, self.calls))
            return self.drafts[-1]

    drafter = SlowDrafter(TARGET.draw)
    result, _ = _answer(drafter, call_s=0.1)
    assert result.token_ids == EXPECTED
    # The text was complete long before 1000 pieces of 0.1 s each, and nobody waited for the rest.
    assert drafter.calls == []
    assert result.statistics.duration_s < 1.0
    assert all(draft.is_closed for draft in drafter.drafts)


def test_one_thread_drafts_for_all_and_ends_with_the_last_holder() -> None:
    async def main() -> None:
        names: list[str] = []
        with DraftingThread() as first, DraftingThread() as second:
            async with asyncio.TaskGroup() as group:
                for worker in (first, second, first):
                    group.create_task(
                        worker.run(lambda: names.append(threading.current_thread().name))
                    )
        assert len(set(names)) == 1
        assert names[0].startswith("paceline-drafting")
        assert not [t for t in threading.enumerate() if t.name == names[0]]

    asyncio.run(main())
