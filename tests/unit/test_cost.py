"""Costs of steps: what they add up to, how they are fitted, the file they are kept in."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paceline.errors import ConfigError
from simulator.calibration.collecting import Collection, Timed
from simulator.calibration.cost_file import Calibration, read_costs, write_costs
from simulator.calibration.fit import Sample, Subject, fit
from simulator.calibration.grid import StepGrid
from simulator.cost import LEVELS, FittedCost, Spread, StepCost, Work

COST = StepCost(
    fixed_s=0.05,
    per_row_s=0.001,
    per_sequence_s=0.002,
    per_prefill_row_s=0.0005,
    per_context_token_s=5e-6,
    per_attended_s=2e-7,
)
SUBJECT = Subject(name="model", dtype="float32", threads=1, left_out=0.25)


def works() -> list[Work]:
    decoding = [
        sum_of(count, rows, context)
        for count, rows, context in itertools.product((1, 2, 8), (1, 4, 16), (64, 512, 2048))
    ]
    prefill = [
        Work().with_sequence(num_rows=rows, context=context, prefill=True)
        for rows, context in itertools.product((16, 128), (0, 1024))
    ]
    return [*decoding, *prefill]


def sum_of(count: int, rows: int, context: int) -> Work:
    work = Work()
    for _ in range(count):
        work = work.with_sequence(num_rows=rows, context=context)
    return work


def test_work_adds_up() -> None:
    work = Work().with_sequence(num_rows=3, context=100)
    work = work.with_sequence(num_rows=20, context=10, prefill=True)
    assert work == Work(
        num_sequences=2,
        num_rows=3,
        num_prefill_rows=20,
        num_context_tokens=110,
        num_attended=500,
    )
    expected = 0.05 + 2 * 0.002 + 3 * 0.001 + 20 * 0.0005 + 110 * 5e-6 + 500 * 2e-7
    assert COST.seconds(work) == pytest.approx(expected)
    assert COST.seconds(Work()) == 0.0


def test_fit_finds_the_cost_that_made_the_times() -> None:
    samples = [Sample(work=work, times_s=(COST.seconds(work),)) for work in works()]
    found = fit(SUBJECT, samples)
    for name in ("fixed_s", "per_row_s", "per_sequence_s", "per_prefill_row_s", "per_attended_s"):
        assert getattr(found.cost, name) == pytest.approx(getattr(COST, name), rel=1e-6), name
    assert found.worst_error < 1e-9
    assert found.r_squared == pytest.approx(1.0)
    assert found.left_out == 0.25
    assert found.num_steps == len(samples)


def test_fit_is_not_moved_by_a_slow_step_and_measures_the_scatter() -> None:
    rng = np.random.default_rng(1)
    samples = []
    for work in works():
        times = COST.seconds(work) * (1 + 0.02 * rng.standard_normal(9))
        times[0] *= 5  # one of nine was disturbed
        samples.append(Sample(work=work, times_s=tuple(times.tolist())))
    found = fit(SUBJECT, samples)
    for work in works():
        assert found.cost.seconds(work) == pytest.approx(COST.seconds(work), rel=0.03)
    assert found.median_error < 0.02
    assert found.spread.quantiles[LEVELS.index(0.5)] == 1.0
    # Two percent of scatter has 1.3 percent between its quartiles and the middle.
    assert 0.97 < found.spread.quantiles[LEVELS.index(0.25)] < 0.995
    assert found.spread.quantiles[-1] > 4


def test_fit_gives_no_negative_coefficient() -> None:
    # Times that fall with the context would need one.
    samples = [
        Sample(work=work, times_s=(1.0 - work.num_context_tokens / 1e5,)) for work in works()
    ]
    found = fit(SUBJECT, samples)
    assert found.cost.per_context_token_s == 0.0
    assert min(found.cost.per_attended_s, found.cost.per_row_s, found.cost.fixed_s) >= 0.0
    assert found.worst_error > 0.01


def test_fit_wants_enough_kinds_of_step() -> None:
    with pytest.raises(ConfigError, match=r"model: 2 kinds of step were timed, at least \d"):
        fit(SUBJECT, [Sample(work=work, times_s=(1.0,)) for work in works()[:2]])


def test_disturbed_steps_are_left_out() -> None:
    collection = Collection()
    work = Work().with_sequence(num_rows=1, context=8)
    for seconds, processor_s in ((0.1, 0.099), (0.1, 0.098), (0.2, 0.1)):
        collection.add("kind", Timed(work=work, seconds=seconds, processor_s=processor_s))
    assert collection.samples() == (Sample(work=work, times_s=(0.1, 0.1)),)
    assert collection.left_out == pytest.approx(1 / 3)


def test_collection_times_what_it_runs() -> None:
    collection = Collection()
    work = Work().with_sequence(num_rows=1, context=8)
    assert collection.time("kind", work, lambda: sum(range(200_000))) == 19999900000
    (sample,) = collection.samples()
    assert 0 < sample.median_s < 10


def test_grid_bounds_what_is_held() -> None:
    grid = StepGrid(max_context=2048, most_sequences=8, most_rows=32)
    assert grid.contexts == (64, 512, 2048)
    assert max(kind.context * kind.num_sequences for kind in grid.kinds) == 8192
    assert {kind.num_rows for kind in grid.kinds if kind.num_sequences == 1} == {1, 2, 4, 8, 16, 32}
    with pytest.raises(ConfigError, match="max_context: got 4, expected 16 to"):
        StepGrid(max_context=4)


@pytest.mark.parametrize(
    ("name", "value"), [("fixed_s", -1.0), ("per_row_s", float("nan")), ("per_attended_s", "1")]
)
def test_cost_names_the_wrong_field(name: str, value: object) -> None:
    with pytest.raises(ConfigError, match=f"{name}: got"):
        StepCost(**({"fixed_s": 1.0, "per_row_s": 0.0} | {name: value}))  # type: ignore[arg-type]


def test_spread_draws_from_its_quantiles() -> None:
    spread = Spread(quantiles=(0.5, 0.8, 0.9, 1.0, 1.1, 1.5, 3.0))
    assert [spread.factor(u) for u in (0.0, 0.01, 0.5, 0.99, 0.9999)] == [0.5, 0.5, 1.0, 3.0, 3.0]
    assert spread.factor(0.375) == pytest.approx(0.95)
    wrongs: list[tuple[float, ...]] = [(1.0,), (1.0, 0.9, *(1.0,) * 5), (0.0, *(1.0,) * 6)]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match="spread: got"):
            Spread(quantiles=wrong)


def fitted(name: str) -> FittedCost:
    return FittedCost(
        name=name,
        dtype="bfloat16",
        threads=2,
        cost=COST,
        spread=Spread(quantiles=(0.5, 0.8, 0.9, 1.0, 1.1, 1.5, 3.0)),
        median_error=0.01,
        worst_error=0.1,
        r_squared=0.99,
        num_steps=7,
        left_out=0.5,
    )


def test_cost_file_gives_back_what_was_written(tmp_path: Path) -> None:
    calibration = Calibration(
        machine={"processor": 'a "fast" \\ one'},
        target=replace(fitted("target"), between_s=0.001, rested_s=0.004),
        drafts=(fitted("lookup"), fitted("other")),
    )
    write_costs(tmp_path / "costs.toml", calibration)
    assert read_costs(tmp_path / "costs.toml") == calibration
    assert calibration.draft("other").name == "other"
    with pytest.raises(
        ConfigError, match="got 'none', expected one that was measured: lookup, other"
    ):
        calibration.draft("none")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fixed_s = 0.05", "fixed_s = -0.05", "target: fixed_s: got -0.05"),
        ("threads = 2", "threads = 0", "target: threads: got 0"),
        ("threads = 2", "threads = 2\nspeed = 3", "target: unknown: speed"),
        ("per_row_s = 0.001\n", "", "target: missing: per_row_s"),
        ("spread = [0.5,", "spread = [", "target: spread: got 6 quantiles"),
        ("paceline-costs/1", "paceline-costs/9", "format: got 'paceline-costs/9'"),
        ("[target]", "[target", "not TOML"),
    ],
)
def test_cost_file_errors_name_the_field(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "costs.toml"
    write_costs(path, Calibration(machine={}, target=fitted("target")))
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_costs(path)


def test_missing_cost_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"costs: cannot read .*none\.toml"):
        read_costs(tmp_path / "none.toml")
