"""What the target would draw if a drafter's logits were its own, in NumPy: the same rules as `paceline.sampling`.

Bias and penalties, then scores with the shared noise for every rank; temperature, top-k, top-p and min-p for the first only.

Shape suffixes: V = vocabulary, K = candidates.
"""

# ruff: noqa: N803, N806 - arrays carry shape suffixes
from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from edge.drafters.confidence import chance_of, shares
from edge.drafters.llama.noise import Floats, NoiseCache
from paceline.drafter import Guess
from paceline.errors import ModelError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

_LEAST = 1e-30
"""Stands for a top-p or a temperature that float32 would round to 0."""

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """The best candidates for one position, best first, with their scores in logits."""

    tokens: tuple[TokenId, ...]
    scores: tuple[float, ...]


class ArrayDrawing:
    """Draws for one generation.

    Args:
        sampling: the target's.
        prompt_length: penalties count what comes after.
        vocabulary_size: ids that both models have; logits beyond are ignored.
    """

    def __init__(
        self, sampling: SamplingSettings, *, prompt_length: int, vocabulary_size: int
    ) -> None:
        self._sampling = sampling
        self._prompt_length = prompt_length
        self._vocabulary_size = vocabulary_size
        self._noise = NoiseCache(
            seed=sampling.seed, scale=sampling.temperature, vocabulary_size=vocabulary_size
        )
        # What this model has no logit for it cannot guess, however it is biased.
        known = [(token, bias) for token, bias in sampling.logit_bias if token < vocabulary_size]
        self._biased = np.array([token for token, _ in known], dtype=np.intp)
        self._biases = np.array([bias for _, bias in known], dtype=np.float32)
        self._has_penalties = (
            sampling.repetition_penalty != 1.0
            or sampling.presence_penalty != 0.0
            or sampling.frequency_penalty != 0.0
        )
        self._truncates = not sampling.is_greedy and (
            sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0
        )

    def drawn(self, logits_V: Floats, text: Sequence[TokenId]) -> Guess:
        """Return the token after a text; the larger the margin to the next one, the surer.

        Raises:
            ModelError: the logits are not finite.
        """
        ranked = self.rank(logits_V, text, k=2)
        margin = ranked.scores[0] - ranked.scores[1] if len(ranked.scores) > 1 else math.inf
        return Guess(token=ranked.tokens[0], chance=chance_of(margin))

    def ranked(self, logits_V: Floats, text: Sequence[TokenId], *, width: int) -> tuple[Guess, ...]:
        """Return the `width` likeliest tokens after a text; a chance is a share among them and one more.

        Raises:
            ModelError: the logits are not finite.
        """
        ranked = self.rank(logits_V, text, k=width + 1)
        return shares(ranked.tokens, ranked.scores, width=width)

    def rank(self, logits_V: Floats, text: Sequence[TokenId], *, k: int) -> Ranked:
        """Return the k best candidates after a text; the first one is what would be drawn.

        Args:
            logits_V: the model's, after the text.
            text: its length is the position of the token to be drawn.
            k: at least 1; fewer come back from a smaller vocabulary.

        Raises:
            ModelError: the logits are not finite.
        """
        adjusted_V = self._adjusted(logits_V[: self._vocabulary_size], text)
        peak = float(adjusted_V.max())
        if not math.isfinite(peak):
            raise ModelError(
                f"logits: got {peak} as the largest, expected a finite number; the draft computed nonsense: check its file"
            )
        scores_V = adjusted_V
        if not self._sampling.is_greedy:
            scores_V = adjusted_V + self._noise.get(len(text))
        best_K = best(scores_V, k)
        if self._truncates:
            allowed_K = survivors(adjusted_V, peak, self._sampling)
            first = allowed_K[scores_V[allowed_K].argmax()]
            best_K = np.concatenate([[first], best_K[best_K != first]])[:k]
        return Ranked(
            tokens=tuple(TokenId(token) for token in best_K.tolist()),
            scores=tuple(scores_V[best_K].tolist()),
        )

    def _adjusted(self, logits_V: Floats, text: Sequence[TokenId]) -> Floats:
        """Return logits after bias and penalties; the ones given, untouched, if there are none."""
        if not self._has_penalties and not len(self._biased):
            return logits_V
        adjusted_V = logits_V.copy()
        adjusted_V[self._biased] += self._biases
        if self._has_penalties:
            counts = Counter(text[self._prompt_length :])
            tokens_K = np.fromiter(counts.keys(), dtype=np.intp, count=len(counts))
            counts_K = np.fromiter(counts.values(), dtype=np.float32, count=len(counts))
            adjusted_V[tokens_K] = self._penalised(adjusted_V[tokens_K], counts_K)
        return adjusted_V

    def _penalised(self, logits_K: Floats, counts_K: Floats) -> Floats:
        sampling = self._sampling
        penalty = np.float32(sampling.repetition_penalty)
        logits_K = np.where(logits_K > 0, logits_K / penalty, logits_K * penalty)
        logits_K = logits_K - np.float32(sampling.presence_penalty)
        result: Floats = logits_K - counts_K * np.float32(sampling.frequency_penalty)
        return result


def best(values_V: Floats, k: int) -> Indices:
    """Return the indices of the k largest values, by value descending, then by index ascending: [K].

    Args:
        values_V: no NaN.
        k: at least 1; more than there are gives all.
    """
    if k >= values_V.size:
        return np.argsort(-values_V, kind="stable")
    least = np.partition(values_V, values_V.size - k)[values_V.size - k]
    candidates = np.flatnonzero(values_V >= least)
    return candidates[np.argsort(-values_V[candidates], kind="stable")[:k]]


def survivors(logits_V: Floats, peak: float, sampling: SamplingSettings) -> Indices:
    """Return the ids of the tokens that pass top-k, top-p and min-p, ascending: [K], at least one.

    The rules are those of `paceline.sampling.filters.survivors`.

    Args:
        logits_V: biased and penalised.
        peak: the largest of them.
        sampling: its temperature is above 0.
    """
    temperature = max(sampling.temperature, _LEAST)
    weights_V = np.exp((logits_V - np.float32(peak)) / np.float32(temperature))
    if 0 < sampling.top_k < logits_V.size:
        kept = np.sort(best(logits_V, sampling.top_k))
    else:
        kept = np.arange(logits_V.size)
    top_p = max(float(np.float32(sampling.top_p)), _LEAST)
    if top_p < 1.0:
        mass = top_p * float(weights_V[kept].sum(dtype=np.float64))
        # All tokens lighter than this together weigh less than 1 - top_p: top-p ends before the first of them.
        lightest = (1.0 / top_p - 1.0) * mass / (2 * kept.size)
        threshold = peak + sampling.temperature * math.log(lightest)
        kept = kept[logits_V[kept] >= threshold]
        order = kept[np.argsort(-logits_V[kept], kind="stable")]
        before = np.concatenate([[0.0], weights_V[order].cumsum(dtype=np.float64)[:-1]])
        kept = np.sort(order[before < mass])
    if sampling.min_p > 0.0:
        kept = kept[weights_V[kept] >= np.float32(sampling.min_p)]
    return kept
