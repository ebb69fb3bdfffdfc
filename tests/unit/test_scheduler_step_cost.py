"""What steps take, learned from steps: found again where they tell, kept to the prior where they do not."""

import random
from dataclasses import astuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud.step_cost import PRIOR, StepCostFit, StepCosts, StepWork

CPU = StepCosts(
    fixed_s=0.05,
    per_session_s=0.0008,
    per_row_s=0.0005,
    per_prefill_row_s=0.0003,
    per_context_token_s=5e-6,
    per_attended_s=2e-7,
)
GPU = StepCosts(fixed_s=0.02, per_row_s=0.00015)
FULL = StepCosts(fixed_s=0.001, per_row_s=0.0005)


def some_work(rng: random.Random) -> StepWork:
    work = StepWork()
    for _ in range(rng.randint(1, 8)):
        work = work.with_rows([rng.randint(1, 8)], contexts=[rng.randint(20, 800)])
    if rng.random() < 0.2:
        work = work.with_prefill([rng.randint(1, 64)], contexts=[rng.randint(0, 100)])
    return work


def fitted(truth: StepCosts, *, steps: int = 300, scatter: float = 0.02) -> StepCostFit:
    fit, rng = StepCostFit(), random.Random(3)
    for _ in range(steps):
        work = some_work(rng)
        fit.add(work, truth.seconds(work) * rng.lognormvariate(0.0, scatter))
    return fit


def known(fit: StepCostFit) -> StepCosts:
    assert fit.costs is not None
    return fit.costs


@pytest.mark.parametrize("truth", [CPU, GPU, FULL], ids=["cpu", "gpu", "full"])
def test_what_a_row_costs_is_found(truth: StepCosts) -> None:
    costs, work = known(fitted(truth)), some_work(random.Random(5))
    assert costs.row_s(300) == pytest.approx(truth.row_s(300), rel=0.15)
    assert costs.seconds(work) == pytest.approx(truth.seconds(work), rel=0.03)


def test_before_the_first_step_nothing_is_known() -> None:
    fit = StepCostFit()
    assert fit.costs is None
    fit.add(StepWork(), 0.1)
    fit.add(StepWork().with_rows([1], contexts=[5]), 0.0)
    assert fit.costs is None


def test_steps_that_look_alike_leave_the_proportions_of_the_prior() -> None:
    fit, work = StepCostFit(), StepWork().with_rows([1], contexts=[50])
    for _ in range(500):
        fit.add(work, 0.05)
    costs = known(fit)
    assert costs.seconds(work) == pytest.approx(0.05, rel=1e-3)
    assert costs.per_row_s / costs.fixed_s == pytest.approx(PRIOR[2], rel=0.1)


def test_work_unlike_all_before_is_believed_at_once() -> None:
    fit, prompts = StepCostFit(), StepWork()
    for _ in range(64):
        prompts = prompts.with_prefill([2], contexts=[10])
    for _ in range(16):
        fit.add(prompts, FULL.seconds(prompts))
    for rows in (2, 1, 2, 1):
        work = StepWork()
        for _ in range(64):
            work = work.with_rows([rows], contexts=[30])
        fit.add(work, FULL.seconds(work))
    assert known(fit).row_s(30) == pytest.approx(FULL.row_s(30), rel=0.1)


def test_what_is_not_shown_any_more_fades_so_that_rows_are_tried_again() -> None:
    fit, alike = fitted(FULL), StepWork().with_rows([1], contexts=[50])
    learned = known(fit).per_row_s / known(fit).fixed_s
    for _ in range(3000):
        fit.add(alike, FULL.seconds(alike))
    assert known(fit).per_row_s / known(fit).fixed_s < 0.1 * learned


def test_a_pause_of_the_machine_is_no_price_of_rows() -> None:
    fit, rng = fitted(CPU), random.Random(4)
    before = known(fit).row_s(300)
    for _ in range(3):
        work = StepWork().with_rows([30], contexts=[300])
        fit.add(work, 2.0)
        for _ in range(5):
            work = some_work(rng)
            fit.add(work, CPU.seconds(work))
    assert known(fit).row_s(300) == pytest.approx(before, rel=0.35)


def test_a_machine_that_got_slower_is_believed() -> None:
    fit, rng = fitted(CPU), random.Random(6)
    for _ in range(300):
        work = some_work(rng)
        fit.add(work, 2.0 * CPU.seconds(work))
    work = some_work(rng)
    assert known(fit).seconds(work) == pytest.approx(2.0 * CPU.seconds(work), rel=0.1)


def test_long_prompts_say_nothing_of_draft_rows() -> None:
    fit, rng = fitted(CPU), random.Random(7)
    for _ in range(100):
        work = some_work(rng).with_prefill([100], contexts=[0])
        fit.add(work, CPU.seconds(work))
    assert known(fit).row_s(300) == pytest.approx(CPU.row_s(300), rel=0.2)


@given(
    steps=st.lists(
        st.tuples(
            st.integers(1, 64), st.integers(0, 5000), st.integers(0, 99), st.floats(1e-7, 100.0)
        ),
        min_size=1,
        max_size=30,
    )
)
def test_no_coefficient_is_ever_negative_or_without_end(
    steps: list[tuple[int, int, int, float]],
) -> None:
    fit = StepCostFit()
    for rows, context, prefill, took_s in steps:
        work = StepWork().with_rows([rows], contexts=[context])
        fit.add(work.with_prefill([prefill], contexts=[0]) if prefill else work, took_s)
        assert all(0.0 <= value < float("inf") for value in astuple(known(fit)))
        assert any(astuple(known(fit)))
