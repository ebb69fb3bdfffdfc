"""What the text must be: a plain loop over a plain transformers model, sharing no session, engine or service code."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from math import floor, isfinite, log2
from typing import Any

import torch

from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

TIE = 1e-4
"""Two scores this close may swap when the same sums are rounded in another order (float32)."""


def reference_output(
    model: Any,
    prompt: Sequence[TokenId],
    *,
    sampling: SamplingSettings,
    max_tokens: int,
    stop_tokens: Collection[TokenId],
    vocabulary_size: int,
) -> list[TokenId]:
    """Return the target's own decoding: one forward and one draw per token."""
    sampler = Sampler(sampling, vocabulary_size=vocabulary_size)
    text, cache, fresh = list(prompt), None, list(prompt)
    with torch.inference_mode():
        while len(text) < len(prompt) + max_tokens:
            out = model(input_ids=torch.tensor([fresh]), past_key_values=cache, use_cache=True)
            cache = out.past_key_values
            token = sampler.draw(out.logits[0, -1].float(), position=Position(len(text)))
            sampler.append_output([token])
            text.append(token)
            fresh = [token]
            if token in stop_tokens:
                break
    return text[len(prompt) :]


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """Where a text left the reference, and why."""

    index: int
    """Place of the first differing token in the output."""

    gap: float
    """Score of the reference's token minus score of the other one, in logits; infinite if it was filtered out."""

    score: float
    """Score of the reference's token, in logits."""

    membership_gap: float
    """How far the nearest of the two tokens was from being kept or dropped by a filter, as a probability."""

    @property
    def bfloat16_steps(self) -> float:
        """The gap in units of the last place that bfloat16 has for numbers like the score: what rounding moves."""
        if not self.score or not isfinite(self.gap):
            return self.gap
        return abs(self.gap) / 2.0 ** (floor(log2(abs(self.score))) - 7)

    @property
    def is_tie(self) -> bool:
        """Rounding explains it."""
        return abs(self.gap) <= TIE or self.membership_gap <= TIE


def explain(
    model: Any,
    prompt: Sequence[TokenId],
    *,
    expected: Sequence[TokenId],
    got: Sequence[TokenId],
    sampling: SamplingSettings,
    vocabulary_size: int,
) -> Difference | None:
    """Return the first difference with the scores of both tokens, or None if the texts are equal."""
    if list(expected) == list(got):
        return None
    length = min(len(expected), len(got))
    index = next((i for i in range(length) if expected[i] != got[i]), length)
    if index == length:
        return Difference(index=index, gap=float("inf"), score=0.0, membership_gap=float("inf"))
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([[*prompt, *expected[:index]]])).logits[0, -1].float()
    sampler = Sampler(sampling, vocabulary_size=vocabulary_size)
    sampler.append_output(expected[:index])
    position = Position(len(prompt) + index)
    ranking = sampler.rank(logits, position=position, k=vocabulary_size)
    score = dict(zip(ranking.tokens, ranking.scores, strict=True))
    gap = score[expected[index]] - score[got[index]]
    pair = (expected[index], got[index])
    return Difference(
        index=index,
        gap=gap,
        score=score[expected[index]],
        membership_gap=_membership_gap(logits, sampling, pair),
    )


def _membership_gap(
    logits: torch.Tensor, sampling: SamplingSettings, pair: tuple[TokenId, TokenId]
) -> float:
    """Distance of either token from the edge of top-p, the only filter whose edge moves with rounding of sums."""
    if sampling.is_greedy or sampling.top_p == 1.0:
        return float("inf")
    probs = torch.softmax(logits / sampling.temperature, dim=-1)
    return min(abs(float(probs[probs > probs[token]].sum()) - sampling.top_p) for token in pair)
