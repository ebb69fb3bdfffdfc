"""A draw depends on logits, path, position and settings, and on nothing else."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paceline.errors import ModelError
from paceline.sampling.coupled import RowDraw, Sampler, draw_rows
from paceline.sampling.filters import survivors
from paceline.sampling.noise import noise
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

SIZE = 300
MANY = (
    SamplingSettings(seed=1),
    SamplingSettings(temperature=0.0, seed=2),
    SamplingSettings(temperature=0.7, top_k=20, top_p=0.9, min_p=0.01, seed=3),
    SamplingSettings(temperature=1.4, top_p=0.8, seed=4),
    SamplingSettings(repetition_penalty=1.3, frequency_penalty=0.5, seed=5),
    SamplingSettings(min_p=0.05, logit_bias=((TokenId(7), 3.0),), seed=2**64 - 1),
)


def random_logits(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * 3


def sampler(chosen: SamplingSettings, *, max_noise_bytes: int = 10**6) -> Sampler:
    return Sampler(chosen, vocabulary_size=SIZE, max_noise_bytes=max_noise_bytes)


def test_the_draw_is_the_best_score_over_allowed_tokens() -> None:
    chosen = SamplingSettings(temperature=0.7, top_k=20, top_p=0.9, seed=3)
    logits = random_logits(SIZE)
    for position in range(50):
        scores = logits + noise(3, position=position, vocabulary_size=SIZE, scale=0.7)
        mask = torch.full((SIZE,), -math.inf)
        mask[survivors(logits, chosen)] = 0.0
        expected = int((scores + mask).argmax())
        assert sampler(chosen).draw(logits, position=Position(position)) == expected


def test_temperature_zero_is_argmax_and_the_lowest_id_wins_ties() -> None:
    logits = torch.zeros(SIZE)
    logits[[100, 50, 250]] = 2.0
    greedy = SamplingSettings(temperature=0.0, top_k=3, top_p=0.5)
    assert sampler(greedy).draw(logits, position=Position(0)) == 50
    biased = SamplingSettings(temperature=0.0, logit_bias=((TokenId(250), 1.0),))
    assert sampler(biased).draw(logits, position=Position(0)) == 250
    assert not sampler(greedy).prepare(Position(1))


@settings(max_examples=60, deadline=None)
@given(
    order=st.permutations(range(12)),
    prepared=st.lists(st.integers(min_value=0, max_value=12), max_size=6),
    max_noise_bytes=st.sampled_from([1, 2400, 10**6]),
    dealt=st.lists(st.integers(min_value=0, max_value=len(MANY) - 1), min_size=12, max_size=12),
)
def test_neither_batch_nor_order_nor_cache_changes_a_draw(
    order: list[int], prepared: list[int], max_noise_bytes: int, dealt: list[int]
) -> None:
    """Each row alone with a fresh sampler, against all rows at once with shared, prepared, evicting ones."""
    logits = random_logits(12, SIZE)
    output, path = [TokenId(3), TokenId(7)], (TokenId(9), TokenId(7))

    def alone(index: int) -> TokenId:
        fresh = sampler(MANY[dealt[index]])
        fresh.append_output(output)
        return fresh.draw(logits[index].clone(), position=Position(index % 5), path=path)

    shared = [sampler(chosen, max_noise_bytes=max_noise_bytes) for chosen in MANY]
    for each in shared:
        each.append_output(output)
        for position in prepared:
            each.prepare(Position(position))
        each.rank(logits[0], position=Position(2), k=3, path=path)
        each.forget_before(Position(1))
    rows = [
        RowDraw(sampler=shared[dealt[index]], position=Position(index % 5), path=path)
        for index in order
    ]
    assert draw_rows(logits[order], rows) == [alone(index) for index in order]


@pytest.mark.parametrize("chosen", MANY)
def test_the_first_rank_is_the_draw(chosen: SamplingSettings) -> None:
    for position in map(Position, range(30)):
        logits = random_logits(SIZE, seed=position)
        ranking = sampler(chosen).rank(logits, position=position, k=4)
        assert ranking.tokens[0] == sampler(chosen).draw(logits, position=position)
        assert len(set(ranking.tokens)) == 4
        assert list(ranking.scores[1:]) == sorted(ranking.scores[1:], reverse=True)
        assert ranking.margin == ranking.scores[0] - ranking.scores[1]
        single = sampler(chosen).rank(logits, position=position, k=1)
        assert single.tokens == ranking.tokens[:1]
        assert single.margin == ranking.margin


def test_truncation_binds_the_first_rank_only() -> None:
    logits = random_logits(SIZE)
    open_scores = logits + noise(9, position=4, vocabulary_size=SIZE)
    ranking = sampler(SamplingSettings(top_k=1, seed=9)).rank(logits, position=Position(4), k=3)
    best = int(logits.argmax())
    others = [token for token in open_scores.argsort(descending=True).tolist() if token != best]
    assert ranking.tokens == (best, *others[:2])
    assert ranking.margin == pytest.approx(float(open_scores[best] - open_scores[others[0]]))


def test_a_vocabulary_of_one_has_an_infinite_margin() -> None:
    one = Sampler(SamplingSettings(), vocabulary_size=1)
    ranking = one.rank(torch.tensor([0.3]), position=Position(0), k=5)
    assert ranking.tokens == (0,)
    assert ranking.margin == math.inf


def test_ids_beyond_the_tokenizer_are_never_drawn_nor_looked_at() -> None:
    logits = torch.cat([random_logits(SIZE), torch.full((20,), 1e9), torch.tensor([math.nan])])
    for chosen in MANY:
        expected = sampler(chosen).draw(logits[:SIZE], position=Position(1))
        assert sampler(chosen).draw(logits, position=Position(1)) == expected


def test_penalties_look_at_output_and_path_but_not_beyond() -> None:
    chosen = SamplingSettings(temperature=0.0, presence_penalty=5.0)
    logits = torch.zeros(SIZE)
    logits[[1, 2, 3]] = torch.tensor([4.0, 3.0, 2.0])
    one = sampler(chosen)
    one.append_output([TokenId(1)])
    at = Position(8)
    assert one.draw(logits, position=at) == 2
    assert one.draw(logits, position=at, path=(TokenId(2),)) == 3
    assert one.draw(logits, position=at) == 2


@pytest.mark.parametrize("chosen", MANY)
@pytest.mark.parametrize("bad", [math.nan, math.inf, None])
def test_bad_logits_end_their_own_row_only(chosen: SamplingSettings, bad: float | None) -> None:
    logits = random_logits(3, SIZE)
    if bad is None:
        logits[1] = -math.inf
    else:
        logits[1, 123] = bad
    rows = [RowDraw(sampler=sampler(chosen), position=Position(0)) for _ in range(3)]
    outcomes = draw_rows(logits, rows)
    assert isinstance(outcomes[1], ModelError)
    for index in (0, 2):
        assert outcomes[index] == sampler(chosen).draw(logits[index], position=Position(0))
    with pytest.raises(ModelError, match="logits"):
        sampler(chosen).draw(logits[1], position=Position(0))
    with pytest.raises(ModelError, match="logits"):
        sampler(chosen).rank(logits[1], position=Position(0), k=2)


def test_too_few_logits_are_an_error() -> None:
    with pytest.raises(ModelError, match="got 299 of them, expected at least 300"):
        sampler(SamplingSettings()).draw(torch.zeros(SIZE - 1), position=Position(0))


def test_no_rows_give_no_draws() -> None:
    assert draw_rows(torch.zeros(0, SIZE), []) == []


def test_half_precision_logits_are_drawn_in_float32() -> None:
    logits = random_logits(SIZE).bfloat16()
    for chosen in MANY:
        expected = sampler(chosen).draw(logits.float(), position=Position(6))
        assert sampler(chosen).draw(logits, position=Position(6)) == expected


def test_memory_is_accounted_and_released() -> None:
    one = sampler(SamplingSettings(seed=1))
    assert one.prepare(Position(4))
    one.draw(random_logits(SIZE), position=Position(5))
    assert one.num_bytes == 2 * 4 * SIZE
    one.forget_before(Position(6))
    assert one.num_bytes == 0
