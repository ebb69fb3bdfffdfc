"""Bias and penalties change the logits of the right tokens by the right amounts."""

import pytest
import torch
from harness.filter_reference import adjusted
from hypothesis import given, settings
from hypothesis import strategies as st

from paceline.errors import InvalidRequestError
from paceline.sampling.penalties import LogitAdjustment, OutputCounts
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

CPU = torch.device("cpu")
SIZE = 12
TOKENS = st.lists(st.integers(min_value=0, max_value=SIZE - 1).map(TokenId), max_size=25)
SETTINGS = st.builds(
    SamplingSettings,
    repetition_penalty=st.sampled_from([1.0, 1.3, 0.5]),
    presence_penalty=st.sampled_from([0.0, 0.75, -1.5]),
    frequency_penalty=st.sampled_from([0.0, 0.25, -0.5]),
    logit_bias=st.dictionaries(
        st.integers(min_value=0, max_value=SIZE - 1).map(TokenId),
        st.sampled_from([-100.0, -1.0, 0.5, 100.0]),
        max_size=4,
    ).map(lambda biases: tuple(sorted(biases.items()))),
)


@settings(deadline=None)
@given(
    chosen=SETTINGS,
    committed=st.lists(TOKENS, max_size=3),
    path=TOKENS,
    logits=st.lists(st.floats(-20, 20, width=32), min_size=SIZE, max_size=SIZE),
)
def test_adjustment_equals_the_definition(
    chosen: SamplingSettings,
    committed: list[list[TokenId]],
    path: list[TokenId],
    logits: list[float],
) -> None:
    adjustment = LogitAdjustment(chosen, vocabulary_size=SIZE, device=CPU)
    for tokens in committed:
        adjustment.append_output(tokens)
    output = [token for tokens in committed for token in tokens]
    given_logits = torch.tensor(logits)
    # The path is asked about twice: a row must leave nothing behind for the next.
    for tokens in (path, path, []):
        result = adjustment.apply(given_logits, path=tokens)
        expected = adjusted(logits, chosen, [*output, *tokens])
        torch.testing.assert_close(result, torch.tensor(expected), rtol=1e-5, atol=1e-4)
    assert given_logits.tolist() == logits


def test_nothing_to_adjust_copies_nothing() -> None:
    logits = torch.zeros(SIZE)
    adjustment = LogitAdjustment(SamplingSettings(), vocabulary_size=SIZE, device=CPU)
    adjustment.append_output([TokenId(1)])
    assert adjustment.apply(logits, path=[TokenId(2)]) is logits


def test_counts_grow_past_their_first_room() -> None:
    counts = OutputCounts(CPU)
    counts.append([TokenId(token % 300) for token in range(1000)])
    tokens, occurrences = counts.along([TokenId(5), TokenId(999), TokenId(5)])
    found = dict(zip(tokens.tolist(), occurrences.tolist(), strict=True))
    assert len(found) == 301
    assert (found[5], found[6], found[299], found[999]) == (6.0, 4.0, 3.0, 1.0)


def test_a_bias_beyond_the_vocabulary_is_refused() -> None:
    chosen = SamplingSettings(logit_bias=((TokenId(SIZE), 1.0),))
    with pytest.raises(InvalidRequestError, match="logit_bias: got token id 12"):
        LogitAdjustment(chosen, vocabulary_size=SIZE, device=CPU)


@pytest.mark.slow
def test_repetition_penalty_agrees_with_transformers() -> None:
    from transformers.generation import logits_process as theirs  # noqa: PLC0415

    logits = torch.randn(1, 500, generator=torch.Generator().manual_seed(3))
    output = [TokenId(token) for token in (3, 99, 3, 499)]
    expected = theirs.RepetitionPenaltyLogitsProcessor(1.7)(torch.tensor([output]), logits.clone())
    chosen = SamplingSettings(repetition_penalty=1.7)
    adjustment = LogitAdjustment(chosen, vocabulary_size=500, device=CPU)
    adjustment.append_output(output[:2])
    assert torch.equal(adjustment.apply(logits[0], path=output[2:]), expected[0])
