"""What stands for machines and models in virtual time: clocks, threads, targets, drafters."""

import asyncio

import pytest

from cloud.orders import OpenOrder, StepOrder
from cloud.walk import ROOT, Tree
from paceline.errors import InvalidRequestError, OverloadedError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.cost import StepCost
from simulator.virtual.draft import DraftSettings, SimulatedDrafter
from simulator.virtual.loop import run_virtually
from simulator.virtual.machine import MachineClock, Occupation, VirtualThread
from simulator.virtual.model import ModelSettings, SimulatedModel
from simulator.virtual.target import END_TOKEN, ToyTarget

COST = StepCost(
    fixed_s=1.0, per_row_s=0.1, per_sequence_s=0.01, per_prefill_row_s=0.001, per_attended_s=1e-5
)
TARGET = ToyTarget(seed=3)
GREEDY = SamplingSettings(temperature=0.0)


def _text(length: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, range(1, length + 1)))


def test_a_clock_runs_as_it_is_told_and_never_goes_back() -> None:
    async def main() -> list[float]:
        clock = MachineClock(origin_s=100.0)
        seen = [clock.now_s()]
        await asyncio.sleep(2.0)
        seen.append(clock.now_s())
        clock.skew(rate=0.5, jump_s=7.0)
        seen.append(clock.now_s())
        await asyncio.sleep(2.0)
        clock.skew(rate=1.0)
        seen.append(clock.now_s())
        await asyncio.sleep(2.0)
        return [*seen, clock.now_s()]

    assert run_virtually(main()) == [100.0, 102.0, 109.0, 110.0, 112.0]


def test_a_thread_does_one_thing_after_the_other_also_for_those_who_left() -> None:
    async def main() -> list[tuple[str, float]]:
        occupation = Occupation()
        thread = VirtualThread(occupation)
        ended: list[tuple[str, float]] = []

        async def work(name: str, seconds: float) -> None:
            assert await thread.run(lambda: occupation.spend(seconds)) == seconds
            ended.append((name, asyncio.get_running_loop().time()))

        async with asyncio.TaskGroup() as group:
            group.create_task(work("first", 1.0))
            leaver = group.create_task(work("leaver", 2.0))
            group.create_task(work("last", 0.5))
            await asyncio.sleep(0.1)
            leaver.cancel()
        assert occupation.busy_s == 3.5
        return ended

    assert run_virtually(main()) == [("first", 1.0), ("last", 3.5)]


def test_the_targets_text_depends_on_the_text_alone() -> None:
    text = _text(5)
    run = TARGET.run(text, 40)
    assert TARGET.run((*text, *run[:10]), 30) == run[10:]
    assert TARGET.draw(text, run[:3]) == run[3]
    assert TARGET.run((TokenId(9), *text[1:]), 40) != run
    assert ToyTarget(seed=4).run(text, 40) != run
    assert END_TOKEN not in run
    assert ToyTarget(seed=3, context_length=20).run(text, 40) == run[:15]


def _order(key: int, *, text: tuple[TokenId, ...], max_length: int = 50) -> OpenOrder:
    return OpenOrder(
        key=key,
        text=text,
        num_output=0,
        max_length=max_length,
        sampling=GREEDY,
        num_logprobs=0,
        tenant="",
    )


def test_a_model_prefills_walks_and_takes_its_time() -> None:
    occupation = Occupation()
    model = SimulatedModel(TARGET, settings=ModelSettings(cost=COST), occupation=occupation, seed=0)
    text = _text(7)
    right = TARGET.run(text, 4)
    assert model.arrange([], [_order(1, text=text)]) == {1: None}
    assert model.views()[1].num_to_prefill == 7

    part = model.step([StepOrder(key=1, num_prefill=5)])
    assert part.served == {}
    assert occupation.collect_s() == pytest.approx(1.0 + 0.01 + 5 * 0.001)
    assert model.views()[1].num_to_prefill == 2

    first = model.step([StepOrder(key=1, num_prefill=2)])
    assert first.served[1].tokens == right[:1]
    assert occupation.collect_s() == pytest.approx(1.0 + 0.01 + 2 * (0.001 + 5 * 1e-5))

    wrong = TokenId(right[3] % 500 + 1)
    tree = Tree(tokens=(right[1], right[2], wrong), parents=(ROOT, 0, 1))
    step = model.step([StepOrder(key=1, drafts=tree)])
    assert step.served[1].tokens == right[1:4]
    assert step.num_rows == 4
    seconds = 1.0 + 0.01 + 4 * (0.1 + 8 * 1e-5)
    assert occupation.collect_s() == pytest.approx(seconds)
    assert step.step_ns == round(seconds * 1e9)


def test_a_step_after_a_pause_takes_longer() -> None:
    occupation = Occupation()
    settings = ModelSettings(cost=COST, between_s=0.25, rested_s=0.5)
    model = SimulatedModel(TARGET, settings=settings, occupation=occupation, seed=0)
    model.arrange([], [_order(1, text=_text(7))])
    took_s, now_s = [], 10.0  # nothing was done for ten seconds
    for gap_s in (0.0, 0.001, 0.1):
        occupation.begins_s = now_s + gap_s
        order = StepOrder(key=1, num_prefill=2)
        took_s.append(model.step([order]).step_ns / 1e9)
        now_s = occupation.begins_s + occupation.collect_s()

    steady_s = [1.0 + 0.01 + 2 * (0.001 + done * 1e-5) for done in (0, 2, 4)]
    late_s = [took - steady for took, steady in zip(took_s, steady_s, strict=True)]
    assert late_s == pytest.approx([0.5, 0.0, 0.5])


def test_a_model_has_only_so_much_memory_and_no_log_probabilities() -> None:
    settings = ModelSettings(max_context_tokens=100)
    model = SimulatedModel(TARGET, settings=settings, occupation=Occupation(), seed=0)
    text = _text(3)
    answers = model.arrange([], [_order(key, text=text) for key in (1, 2, 3)])
    assert (answers[1], answers[2]) == (None, None)
    assert isinstance(answers[3], OverloadedError)
    assert model.arrange([1], [_order(4, text=text)]) == {4: None}
    assert model.keys == {2, 4}
    wants = OpenOrder(
        key=5,
        text=text,
        num_output=0,
        max_length=10,
        sampling=GREEDY,
        num_logprobs=2,
        tenant="",
    )
    assert isinstance(model.arrange([2], [wants])[5], InvalidRequestError)


def test_a_drafter_is_right_as_often_as_it_is_told() -> None:
    text = _text(4)
    run = TARGET.run(text, 2000)
    drafter = SimulatedDrafter(
        TARGET, settings=DraftSettings(acceptance=0.7), occupation=Occupation()
    )
    draft = drafter.open(prompt_length=4, max_tokens=2000, sampling=GREEDY)
    num_right = sum(
        draft.extend((*text, *run[:done]), 1) == (run[done],) for done in range(len(run))
    )
    draft.close()
    assert drafter.num_open == 0
    # Five standard deviations: a false alarm once in a million seeds, and the seed is fixed.
    assert abs(num_right - 1400) < 5 * (2000 * 0.7 * 0.3) ** 0.5


def test_a_drafter_pays_for_passes_and_for_what_is_not_in_its_cache() -> None:
    occupation = Occupation()
    drafter = SimulatedDrafter(
        TARGET, settings=DraftSettings(cost=COST, acceptance=1.0), occupation=occupation
    )
    draft = drafter.open(prompt_length=10, max_tokens=50, sampling=GREEDY)
    text = _text(10)
    tokens = draft.extend(text, 3)
    assert tokens == TARGET.run(text, 3)
    first_s = 1.0 + 0.01 + 0.1 + 9 * 0.001
    assert occupation.collect_s() == pytest.approx(first_s + 2 * (1.11 + 10 * 1e-5), abs=1e-3)
    # Two of the guesses were right and stay in the cache, the third was the input of nothing yet.
    draft.extend((*text, *tokens[:2], TokenId(1)), 1)
    assert occupation.collect_s() == pytest.approx(1.11 + 12 * 1e-5)
