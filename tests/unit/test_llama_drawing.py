"""Draws in NumPy are those in PyTorch: the same noise, the same filters, the same candidates in the same order."""

import numpy as np
import pytest
import torch

from edge.drafters.drawing import Drawing
from edge.drafters.llama import noise as noise_module
from edge.drafters.llama.drawing import ArrayDrawing
from edge.drafters.llama.noise import NoiseCache, noise
from paceline.errors import ModelError
from paceline.sampling import noise as torch_noise
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

SIZE = 5000
PROMPT_LENGTH = 4
SETTINGS = {
    "greedy": SamplingSettings(temperature=0.0),
    "plain": SamplingSettings(temperature=1.0, seed=3),
    "top-k": SamplingSettings(temperature=0.7, top_k=40, seed=4),
    "top-p": SamplingSettings(temperature=1.2, top_p=0.9, seed=2**63 + 5),
    "cold": SamplingSettings(temperature=1e-40, top_p=0.5, seed=6),
    "all": SamplingSettings(
        temperature=0.9,
        top_k=100,
        top_p=0.95,
        min_p=0.02,
        repetition_penalty=1.3,
        presence_penalty=0.5,
        frequency_penalty=0.2,
        logit_bias=((TokenId(3), 5.0), (TokenId(8), -2.0)),
        seed=9,
    ),
}


@pytest.mark.parametrize("size", [1, 260, 40_000])
def test_the_noise_is_the_same_but_for_the_last_bits(size: int) -> None:
    ours = noise(77, position=12345, vocabulary_size=size, scale=0.8)
    theirs = torch_noise.noise(77, position=12345, vocabulary_size=size, scale=0.8).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6)
    assert ours.dtype == np.float32


@pytest.mark.parametrize("sampling", SETTINGS.values(), ids=SETTINGS)
@pytest.mark.parametrize("ties", [False, True], ids=["apart", "ties"])
def test_candidates_are_the_same(sampling: SamplingSettings, ties: bool) -> None:
    ours = ArrayDrawing(sampling, prompt_length=PROMPT_LENGTH, vocabulary_size=SIZE)
    sampler = Sampler(sampling, vocabulary_size=SIZE)
    generator = np.random.default_rng(ties)
    for length in range(PROMPT_LENGTH, PROMPT_LENGTH + 12):
        text = tuple(TokenId(int(token)) for token in generator.integers(0, 50, length))
        logits = (generator.standard_normal(SIZE + 7) * 4).astype(np.float32)
        if ties:
            logits = np.round(logits)
        found = ours.rank(logits, text, k=5)
        expected = sampler.rank(
            torch.from_numpy(logits), position=Position(length), k=5, path=text[PROMPT_LENGTH:]
        )
        assert found.tokens == expected.tokens
        assert found.scores == pytest.approx(expected.scores, rel=1e-5)


def test_guesses_and_chances_are_the_same() -> None:
    ours = ArrayDrawing(SETTINGS["all"], prompt_length=PROMPT_LENGTH, vocabulary_size=SIZE)
    theirs = Drawing(SETTINGS["all"], prompt_length=PROMPT_LENGTH, vocabulary_size=SIZE)
    logits = (np.random.default_rng(1).standard_normal(SIZE) * 4).astype(np.float32)
    text = tuple(TokenId(token) for token in range(9))
    one, same = ours.drawn(logits, text), theirs.drawn(torch.from_numpy(logits), text)
    assert one.token == same.token
    assert one.chance == pytest.approx(same.chance, abs=1e-5)
    several = ours.ranked(logits, text, width=3)
    expected = theirs.ranked(torch.from_numpy(logits), text, width=3)
    assert [guess.token for guess in several] == [guess.token for guess in expected]
    assert [guess.chance for guess in several] == pytest.approx(
        [guess.chance for guess in expected], abs=1e-5
    )


def test_a_vocabulary_smaller_than_the_candidates() -> None:
    drawing = ArrayDrawing(SETTINGS["plain"], prompt_length=1, vocabulary_size=2)
    ranked = drawing.rank(np.zeros(2, dtype=np.float32), (TokenId(0),), k=5)
    assert sorted(ranked.tokens) == [0, 1]
    alone = ArrayDrawing(SETTINGS["plain"], prompt_length=1, vocabulary_size=1)
    assert alone.drawn(np.zeros(1, dtype=np.float32), (TokenId(0),)).chance > 0.99


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nonsense_is_refused(value: float) -> None:
    logits = np.zeros(SIZE, dtype=np.float32)
    logits[7] = value
    drawing = ArrayDrawing(SETTINGS["greedy"], prompt_length=1, vocabulary_size=SIZE)
    with pytest.raises(ModelError, match="expected a finite number"):
        drawing.drawn(logits, (TokenId(0),))


def test_noise_is_bounded_and_old_positions_go_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noise_module, "MAX_BYTES", 3 * 4 * 10)
    cache = NoiseCache(seed=1, scale=1.0, vocabulary_size=10)
    rows = {position: cache.get(position) for position in (5, 6, 7, 8)}
    assert all(cache.get(position) is rows[position] for position in (6, 7, 8))
    again = cache.get(5)
    assert again is not rows[5]
    assert (again == rows[5]).all()
