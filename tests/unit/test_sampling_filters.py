"""Filters keep exactly the tokens that their definitions keep."""

import math

import pytest
import torch
from harness.filter_reference import allowed
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from paceline.errors import ModelError
from paceline.sampling.filters import best, survivors, truncates
from paceline.sampling.settings import SamplingSettings

# A coarse grid makes ties the rule, not the exception.
GRID = st.integers(min_value=-40, max_value=40).map(lambda step: step / 4)
LOGITS = st.lists(GRID, min_size=1, max_size=60)
SETTINGS = st.builds(
    SamplingSettings,
    temperature=st.sampled_from([0.1, 0.7, 1.0, 3.0]),
    top_k=st.integers(min_value=0, max_value=70),
    top_p=st.sampled_from([1e-9, 0.1, 0.37, 0.5, 0.81, 0.95, 0.999, 1.0]),
    min_p=st.sampled_from([0.0, 0.001, 0.013, 0.21, 0.9]),
)


def near_a_boundary(logits: list[float], chosen: SamplingSettings) -> bool:
    """Whether rounding may decide membership: some running mass or weight is within 1e-5 of its limit."""
    ranked = sorted(logits, reverse=True)[: chosen.top_k or None]
    weights = [math.exp((logit - ranked[0]) / chosen.temperature) for logit in ranked]
    masses = [sum(weights[:end]) / sum(weights) for end in range(1, len(weights))]
    return any(abs(mass - chosen.top_p) < 1e-5 for mass in masses) or (
        chosen.min_p > 0 and any(abs(weight - chosen.min_p) < 1e-5 for weight in weights)
    )


@settings(max_examples=400, deadline=None)
@given(logits=LOGITS, chosen=SETTINGS)
def test_survivors_equal_the_definition(logits: list[float], chosen: SamplingSettings) -> None:
    assume(not near_a_boundary(logits, chosen))
    assert survivors(torch.tensor(logits), chosen).tolist() == allowed(logits, chosen)


@settings(deadline=None)
@given(logits=LOGITS, chosen=SETTINGS)
def test_at_least_the_best_survives(logits: list[float], chosen: SamplingSettings) -> None:
    kept = survivors(torch.tensor(logits), chosen).tolist()
    assert logits.index(max(logits)) in kept
    assert kept == sorted(set(kept))


@settings(deadline=None)
@given(logits=LOGITS, k=st.integers(min_value=1, max_value=70))
def test_best_ranks_by_value_then_id(logits: list[float], k: int) -> None:
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    assert best(torch.tensor(logits), k).tolist() == ranked[:k]


@pytest.mark.parametrize("spread", [0.5, 3.0, 12.0])
@pytest.mark.parametrize("top_p", [0.01, 0.5, 0.9, 0.999])
def test_nucleus_of_a_large_vocabulary(top_p: float, spread: float) -> None:
    """From one token to nearly all of them; compared with a full sort in float64."""
    logits = torch.randn(20_000, generator=torch.Generator().manual_seed(1)) * spread
    order = logits.sort(descending=True, stable=True).indices
    weights = ((logits - logits.max())[order]).exp().double()
    before = weights.cumsum(0) - weights
    expected = order[before < torch.tensor(top_p).double() * weights.sum()]
    kept = survivors(logits, SamplingSettings(top_p=top_p))
    # The two sums round differently: at most the one token on the boundary may differ.
    assert abs(kept.numel() - expected.numel()) <= 1
    assert len(set(kept.tolist()) ^ set(expected.tolist())) <= 1


@pytest.mark.parametrize("temperature", [1e-45, 1e-30, 1e-6, 100.0])
def test_extreme_temperatures_keep_the_best(temperature: float) -> None:
    logits = torch.tensor([1.0, 7.0, 7.0, -3.0, -math.inf])
    kept = survivors(logits, SamplingSettings(temperature=temperature, top_p=0.4)).tolist()
    assert kept == ([1] if temperature < 1 else [1, 2])


def test_masked_tokens_never_come_back() -> None:
    logits = torch.full((3000,), -math.inf)
    logits[[5, 2999]] = torch.tensor([1.0, 2.0])
    assert survivors(logits, SamplingSettings(top_p=0.999999)).tolist() == [5, 2999]
    assert survivors(logits, SamplingSettings(min_p=0.01)).tolist() == [5, 2999]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("chosen", [{"top_k": 2}, {"top_p": 0.5}, {"min_p": 0.1}])
def test_a_single_bad_logit_is_an_error(bad: float, chosen: dict[str, float]) -> None:
    logits = torch.zeros(100)
    logits[77] = bad
    with pytest.raises(ModelError, match="logits"):
        survivors(logits, SamplingSettings(**chosen))  # type: ignore[arg-type]


def test_nothing_allowed_is_an_error() -> None:
    with pytest.raises(ModelError, match="-inf"):
        survivors(torch.full((10,), -math.inf), SamplingSettings(top_k=3))


def test_which_settings_truncate() -> None:
    assert not truncates(SamplingSettings(temperature=0.7))
    assert not truncates(SamplingSettings(temperature=0.0, top_k=5))
    for chosen in (
        SamplingSettings(top_k=5),
        SamplingSettings(top_p=0.9),
        SamplingSettings(min_p=0.1),
    ):
        assert truncates(chosen)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_filters_agree_with_transformers(seed: int) -> None:
    """Without ties the definitions are the same; transformers keeps all tokens that tie with the k-th."""
    from transformers.generation import logits_process as theirs  # noqa: PLC0415

    logits = torch.randn(1, 2000, generator=torch.Generator().manual_seed(seed)) * 4
    no_input = torch.zeros((1, 0), dtype=torch.int64)
    for top_k, top_p, min_p, temperature in [
        (50, 1.0, 0.0, 0.7),
        (0, 0.9, 0.0, 1.3),
        (0, 1.0, 0.05, 1.0),
        (40, 0.8, 0.1, 2.0),
    ]:
        scores = theirs.TemperatureLogitsWarper(temperature)(no_input, logits)
        if top_k:
            scores = theirs.TopKLogitsWarper(top_k)(no_input, scores)
        if top_p < 1.0:
            scores = theirs.TopPLogitsWarper(top_p)(no_input, scores)
        if min_p:
            scores = theirs.MinPLogitsWarper(min_p)(no_input, scores)
        chosen = SamplingSettings(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
        expected = torch.isfinite(scores[0]).nonzero().flatten().tolist()
        assert survivors(logits[0], chosen).tolist() == expected
