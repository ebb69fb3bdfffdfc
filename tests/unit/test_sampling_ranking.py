"""Rows ranked together are ranked as each would be alone, and some tokens as they are among all."""

from __future__ import annotations

import pytest
import torch

from paceline.errors import ModelError
from paceline.sampling.coupled import Sampler
from paceline.sampling.noise import noise, token_words
from paceline.sampling.ranking import RowRanker, best_rows, can_rank
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

SIZE = 5000
"""Of the vocabulary: chunks, and some tokens behind the last whole one."""
POSITIONS = [Position(position) for position in (7, 9, 7, 30)]


def rows_of(num_rows: int, width: int) -> torch.Tensor:
    """Logits as a model in bfloat16 gives them: many are equal."""
    generator = torch.Generator().manual_seed(width)
    return (3 * torch.randn(num_rows, width, generator=generator)).bfloat16().float()


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(temperature=0.0),
        SamplingSettings(temperature=0.8, seed=5),
        SamplingSettings(temperature=1.3, seed=6, top_k=30, top_p=0.8, min_p=0.01),
    ],
)
@pytest.mark.parametrize("k", [1, 5, 40])
def test_some_tokens_rank_as_they_do_among_all(settings: SamplingSettings, k: int) -> None:
    tokens = torch.randperm(SIZE, generator=torch.Generator().manual_seed(1))[:3333].sort().values
    known = rows_of(len(POSITIONS), 3333)
    whole = torch.full((len(POSITIONS), SIZE), float("-inf"))
    whole[:, tokens] = known
    sampler = Sampler(settings, vocabulary_size=SIZE)
    expected = [
        sampler.rank(row, position=position, k=k)
        for row, position in zip(whole, POSITIONS, strict=True)
    ]
    ranker = RowRanker(settings, tokens_W=tokens)
    # Columns beyond the tokens are of no token.
    wide = torch.cat((known, torch.full((len(POSITIONS), 3), 99.0)), dim=1)
    assert ranker.rank(wide, positions=POSITIONS, k=k) == expected
    assert can_rank(settings)


@pytest.mark.parametrize("width", [1, 3, 127, 1280, SIZE, 128 * 40])
@pytest.mark.parametrize("num_values", [1, 2, 9, 1000])
def test_equal_values_come_by_index(width: int, num_values: int) -> None:
    generator = torch.Generator().manual_seed(width + num_values)
    values = torch.randint(0, num_values, (3, width), generator=generator).float()
    for k in (1, 2, 6):
        orders = values.sort(descending=True, stable=True)
        expected = [
            list(zip(indices[:k], row[:k], strict=True))
            for indices, row in zip(orders.indices.tolist(), orders.values.tolist(), strict=True)
        ]
        assert best_rows(values, k) == expected


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("column", [0, 700, SIZE - 1])
def test_one_number_that_is_none_is_told(bad: float, column: int) -> None:
    logits = rows_of(2, SIZE)
    logits[1, column] = bad
    ranker = RowRanker(SamplingSettings(temperature=1.0), tokens_W=torch.arange(SIZE))
    with pytest.raises(ModelError, match="expected a finite number"):
        ranker.rank(logits, positions=POSITIONS[:2], k=3)
    with pytest.raises(ModelError, match="got -inf as the largest"):
        best_rows(torch.full((1, SIZE), float("-inf")), 2)


@pytest.mark.parametrize("size", [1, 6, 3333])
def test_the_noise_of_a_token_does_not_depend_on_the_others(size: int) -> None:
    tokens = torch.randperm(SIZE, generator=torch.Generator().manual_seed(size))[:size]
    every = noise(3, position=12, vocabulary_size=SIZE, scale=0.7)
    words = token_words(tokens)
    some = noise(3, position=12, vocabulary_size=size, scale=0.7, words=words)
    assert torch.equal(some, every[tokens])


def test_what_changes_single_logits_is_refused() -> None:
    assert not can_rank(SamplingSettings(repetition_penalty=1.1))
    assert not can_rank(SamplingSettings(presence_penalty=0.1))
    assert not can_rank(SamplingSettings(frequency_penalty=-0.1))
    assert not can_rank(SamplingSettings(logit_bias=((TokenId(3), 1.0),)))
