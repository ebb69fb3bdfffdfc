"""Reported log probabilities are those of the model's own distribution."""

import math

import pytest
import torch

from paceline.errors import ModelError
from paceline.sampling.logprobs import logprobs
from paceline.tokens import TokenId


def test_log_probabilities_of_the_unfiltered_distribution() -> None:
    logits = torch.tensor([1.0, 3.0, 3.0, -2.0, 99.0])
    result = logprobs(logits, TokenId(3), num_top=3, vocabulary_size=4)
    expected = torch.log_softmax(logits[:4].double(), 0)
    assert result.logprob == pytest.approx(float(expected[3]), abs=1e-6)
    assert result.top_tokens == (1, 2, 0)
    assert result.top_logprobs == pytest.approx(expected[[1, 2, 0]].tolist(), abs=1e-6)


def test_no_top_tokens_unless_asked_for() -> None:
    result = logprobs(torch.zeros(4), TokenId(0), num_top=0, vocabulary_size=4)
    assert (result.top_tokens, result.top_logprobs) == ((), ())
    assert result.logprob == pytest.approx(-math.log(4))


def test_nan_is_an_error() -> None:
    logits = torch.tensor([0.0, math.nan])
    with pytest.raises(ModelError, match="logits"):
        logprobs(logits, TokenId(0), num_top=1, vocabulary_size=2)
