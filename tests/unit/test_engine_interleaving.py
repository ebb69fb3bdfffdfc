"""Whatever is interleaved, a row's logits are those of a plain forward of its own path."""

from functools import cache
from typing import Any

import pytest
from harness.engine_trial import MAX_LENGTH, MAX_PENDING, Reference, Trial
from harness.models import CONFIGS, tiny_engine, tiny_model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from paceline.engine.engine import Engine
from paceline.engine.rows import EngineSettings

TOLERANCE = 1e-4
"""Absolute, in float32; logits have a standard deviation near 2. Measured: below 1e-5."""

STEM = tuple(range(20, 44))


@cache
def machinery(name: str, *, copies: bool = False) -> tuple[Engine, Reference]:
    config = CONFIGS[name]()
    row_bytes = tiny_engine(config).row_bytes
    # Room for three sequences and a bit: some are refused, prefixes have to go.
    budget = (3 * (MAX_LENGTH + MAX_PENDING) + 20) * row_bytes
    engine = tiny_engine(config, settings=EngineSettings(memory_bytes=budget, copies=copies))
    return engine, Reference(tiny_model(config))


@st.composite
def prompts(draw: Any) -> tuple[int, ...]:
    """Beginnings of one text, some of which go on in their own way; or none."""
    stem = STEM[: draw(st.sampled_from([0, 3, 11, 12, 20, 24]))]
    return stem + tuple(draw(st.lists(st.integers(4, 6), max_size=4)))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CONFIGS))
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_every_row_sees_its_path_and_nothing_else(name: str, data: st.DataObject) -> None:
    engine, reference = machinery(name)
    trial = Trial(engine, reference, tolerance=TOLERANCE, draw=data.draw, prompts=prompts())
    trial.run(data.draw(st.integers(8, 30)))


@pytest.mark.slow
@settings(max_examples=10, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_the_same_where_sequences_copy_what_they_share(data: st.DataObject) -> None:
    engine, reference = machinery("llama", copies=True)
    trial = Trial(engine, reference, tolerance=TOLERANCE, draw=data.draw, prompts=prompts())
    trial.run(data.draw(st.integers(8, 30)))
    assert trial.num_shared == trial.num_waited == 0
