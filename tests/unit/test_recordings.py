"""The recordings that ship: whole, small, told of in their README, and without text."""

from __future__ import annotations

import re

import pytest

from paceline.errors import ConfigError
from simulator.acceptance.bursts import burstiness
from simulator.acceptance.recordings import (
    FOLDER,
    cost_names,
    recorded_costs,
    recorded_trace,
    trace_names,
)
from simulator.cost import Work

MOST_BYTES = 200_000


def test_they_are_small_and_described() -> None:
    files = [path for path in FOLDER.iterdir() if path.name != "README.md"]
    described = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert sum(path.stat().st_size for path in files) < MOST_BYTES
    assert all(f"`{path.name}`" in described for path in files)
    assert len(files) == len(trace_names()) + len(cost_names())


@pytest.mark.parametrize("name", trace_names())
def test_a_trace_covers_its_prompts_twice(name: str) -> None:
    trace = recorded_trace(name)
    prompts = {text.prompt for text in trace.texts}
    assert len(prompts) == 40
    assert len(trace.texts) == 80
    assert {text.temperature for text in trace.texts} == {0.0, 1.0}
    assert len({text.category for text in trace.texts}) == 14
    # Ids only: no prompt, no answer.
    assert all(re.fullmatch(r"(spec-bench|HumanEval)/\d+", prompt) for prompt in prompts)


def test_the_pairs_differ_as_they_should() -> None:
    shares = {
        name: burstiness(recorded_trace(name).chosen(temperature=0.0)) for name in trace_names()
    }
    assert shares["low-bit-5-64"].acceptance > shares["low-bit-4-64"].acceptance > 0.75
    assert shares["lookup"].acceptance < 0.4
    shipped, first = shares["smollm2-135m-draft"], shares["smollm2-135m-draft-first"]
    assert shipped.acceptance > first.acceptance + 0.05 > shares["distilled-trial"].acceptance
    # Repetitions come in runs; rounding errors come one by one.
    assert shares["lookup"].autocorrelation[0] > 0.5
    assert abs(shares["low-bit-4-64"].autocorrelation[0]) < 0.1


@pytest.mark.parametrize("name", cost_names())
def test_costs_fit(name: str) -> None:
    calibration = recorded_costs(name)
    one = Work().with_sequence(num_rows=1, context=256)
    eight = Work().with_sequence(num_rows=8, context=256)
    assert calibration.target.r_squared > 0.98
    assert calibration.target.median_error < 0.05
    # The reason for drafting: eight rows cost far less than eight steps.
    assert calibration.target.seconds(eight) < 1.5 * calibration.target.seconds(one)
    assert calibration.draft("lookup").seconds(one) < 0.01 * calibration.target.seconds(one)


def test_unknown_names_are_answered_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"recorded guesses: got 'x', expected one of: .*lookup"):
        recorded_trace("x")
    with pytest.raises(ConfigError, match="recorded costs: got 'x'"):
        recorded_costs("x")
