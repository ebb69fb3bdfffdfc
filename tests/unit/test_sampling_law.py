"""Coupled draws follow the target's filtered distribution, and agree as often as theory says.

Seeds are fixed; ALARM bounds the chance that a perfect sampler would have failed with the seed that was picked. With
12 comparisons all together stay below 1e-6.
"""

from collections.abc import Iterator

import pytest
import torch
from harness.false_alarm import binomial_p, chi_square_p
from harness.filter_reference import adjusted, allowed
from torch import Tensor

from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

ALARM = 5e-8
SIZE = 14
LOGITS = torch.randn(SIZE, generator=torch.Generator().manual_seed(4)) * 1.5
OUTPUT = [TokenId(2), TokenId(2), TokenId(9)]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Thousands of tiny operations are slower on several threads, and far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


CASES = {
    "plain": SamplingSettings(seed=1),
    "cool": SamplingSettings(temperature=0.6, seed=2),
    "top_k": SamplingSettings(top_k=5, seed=3),
    "top_p": SamplingSettings(top_p=0.8, temperature=1.5, seed=4),
    "min_p": SamplingSettings(min_p=0.1, seed=5),
    "all": SamplingSettings(
        temperature=1.2,
        top_k=10,
        top_p=0.95,
        min_p=0.02,
        repetition_penalty=1.2,
        presence_penalty=0.3,
        frequency_penalty=0.2,
        logit_bias=((TokenId(1), 0.7),),
        seed=2**63 + 5,
    ),
}


def filtered_law(chosen: SamplingSettings) -> tuple[list[int], Tensor]:
    """Return the allowed tokens and their probabilities, from the plain definition."""
    logits = adjusted(LOGITS.tolist(), chosen, OUTPUT)
    tokens = allowed(logits, chosen)
    values = torch.tensor(logits, dtype=torch.float64)[tokens]
    return tokens, torch.softmax(values / chosen.temperature, 0)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_draws_follow_softmax_of_the_filtered_logits(name: str) -> None:
    chosen, num_draws = CASES[name], 6000
    one = Sampler(chosen, vocabulary_size=SIZE, max_noise_bytes=1)
    one.append_output(OUTPUT)
    drawn = [one.draw(LOGITS, position=Position(at)) for at in range(num_draws)]
    counts = torch.bincount(torch.tensor(drawn), minlength=SIZE)
    tokens, probs = filtered_law(chosen)
    assert int(counts.sum()) == int(counts[tokens].sum())
    assert len(tokens) > 1
    assert chi_square_p(counts[tokens], probs * num_draws) > ALARM


@pytest.mark.slow
def test_the_law_holds_over_seeds_and_a_large_vocabulary() -> None:
    """Half of the mass lies on two tokens, the other half on 49,150 that no small test would see."""
    size, num_draws = 49_152, 1500
    logits = torch.randn(size, generator=torch.Generator().manual_seed(6))
    logits[[11, 40_000]] = torch.logsumexp(logits, 0) - torch.tensor([1.0, 1.5])
    probs = torch.softmax(logits.double(), 0)
    bucket = torch.arange(size) // 4096 + 2
    bucket[[11, 40_000]] = torch.tensor([0, 1])
    drawn = [
        Sampler(SamplingSettings(seed=seed), vocabulary_size=size).draw(
            logits, position=Position(seed % 7)
        )
        for seed in range(num_draws)
    ]
    counts = torch.bincount(bucket[drawn], minlength=14)
    expected = torch.zeros(14, dtype=torch.float64).index_add_(0, bucket, probs) * num_draws
    assert chi_square_p(counts, expected) > ALARM


@pytest.mark.slow
@pytest.mark.parametrize("distance", [0.3, 1.0, 2.5])
def test_two_models_agree_as_often_as_theory_says(distance: float) -> None:
    """Daliri, Musco, Suresh, arXiv 2408.07978: sum_i 1 / sum_j max(target_j / target_i, draft_j / draft_i)."""
    generator = torch.Generator().manual_seed(8)
    target_logits = torch.randn(SIZE, generator=generator)
    draft_logits = target_logits + distance * torch.randn(SIZE, generator=generator)
    target_probs, draft_probs = (
        torch.softmax(logits.double(), 0) for logits in (target_logits, draft_logits)
    )
    ratios = torch.maximum(
        target_probs[None, :] / target_probs[:, None], draft_probs[None, :] / draft_probs[:, None]
    )
    chance = float((1 / ratios.sum(1)).sum())
    distance_tv = float((target_probs - draft_probs).abs().sum() / 2)
    assert chance >= (1 - distance_tv) / (1 + distance_tv)
    target = Sampler(SamplingSettings(seed=99), vocabulary_size=SIZE)
    draft = Sampler(SamplingSettings(seed=99), vocabulary_size=SIZE)
    num_draws = 5000
    hits = sum(
        target.draw(target_logits, position=Position(at))
        == draft.draw(draft_logits, position=Position(at))
        for at in range(num_draws)
    )
    assert binomial_p(hits, trials=num_draws, chance=chance) > ALARM
