"""Logit bias and penalties: what changes single logits before anything is compared.

Shape suffixes: V = vocabulary, N = distinct tokens of the output.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from paceline.errors import InvalidRequestError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

FIRST_CAPACITY = 64


class OutputCounts:
    """How often each token occurs in the committed output, kept so that a row costs O(distinct tokens)."""

    def __init__(self, device: torch.device) -> None:
        self._slots: dict[TokenId, int] = {}
        self._tokens = torch.zeros(FIRST_CAPACITY, dtype=torch.int64, device=device)
        self._counts = torch.zeros(FIRST_CAPACITY, dtype=torch.float32, device=device)

    def append(self, tokens: Sequence[TokenId]) -> None:
        """Count tokens that were committed."""
        new = [token for token in dict.fromkeys(tokens) if token not in self._slots]
        used = len(self._slots)
        self._reserve(used + len(new))
        self._tokens[used : used + len(new)] = self._ids(new)
        self._slots.update(zip(new, range(used, used + len(new)), strict=True))
        self._add(self._counts, [self._slots[token] for token in tokens])

    def along(self, path: Sequence[TokenId]) -> tuple[Tensor, Tensor]:
        """Return distinct tokens and their counts over the output and a path after it: [N] int64, [N] float32."""
        used = len(self._slots)
        if not path:
            return self._tokens[:used], self._counts[:used]
        new = [token for token in dict.fromkeys(path) if token not in self._slots]
        tokens_N = torch.cat([self._tokens[:used], self._ids(new)])
        counts_N = torch.cat([self._counts[:used], self._counts.new_zeros(len(new))])
        slots = self._slots | dict(zip(new, range(used, used + len(new)), strict=True))
        self._add(counts_N, [slots[token] for token in path])
        return tokens_N, counts_N

    def _add(self, counts: Tensor, slots: list[int]) -> None:
        """Add one per occurrence of a slot; a slot may occur several times."""
        counts.index_add_(0, self._ids(slots), counts.new_ones(len(slots)))

    def _ids(self, values: Sequence[int]) -> Tensor:
        return torch.tensor(values, dtype=torch.int64, device=self._tokens.device)

    def _reserve(self, size: int) -> None:
        """Double the room until `size` distinct tokens fit."""
        room = self._tokens.numel()
        while room < size:
            self._tokens = torch.cat([self._tokens, torch.zeros_like(self._tokens)])
            self._counts = torch.cat([self._counts, torch.zeros_like(self._counts)])
            room *= 2


class LogitAdjustment:
    """Bias, then repetition, presence and frequency penalty over the row's own path, of one session."""

    def __init__(
        self, settings: SamplingSettings, *, vocabulary_size: int, device: torch.device
    ) -> None:
        for token, _ in settings.logit_bias:
            if token >= vocabulary_size:
                raise InvalidRequestError(
                    f"logit_bias: got token id {token}, expected one below the vocabulary size {vocabulary_size}"
                )
        self._settings = settings
        self._counts = OutputCounts(device)
        tokens = [token for token, _ in settings.logit_bias]
        biases = [bias for _, bias in settings.logit_bias]
        self._bias_tokens = torch.tensor(tokens, dtype=torch.int64, device=device)
        self._biases = torch.tensor(biases, dtype=torch.float32, device=device)
        # A tensor, because CUDA turns division by a plain number into a product, which rounds differently.
        self._repetition_penalty = torch.tensor(settings.repetition_penalty, device=device)
        self._has_penalties = (
            settings.repetition_penalty != 1.0
            or settings.presence_penalty != 0.0
            or settings.frequency_penalty != 0.0
        )

    def append_output(self, tokens: Sequence[TokenId]) -> None:
        """Count tokens that were committed to the output."""
        if self._has_penalties and tokens:
            self._counts.append(tokens)

    def apply(self, logits_V: Tensor, *, path: Sequence[TokenId]) -> Tensor:
        """Return adjusted float32 logits; the ones given, untouched, if there is nothing to adjust.

        Every operation rounds by itself, so that the result is the same on every device.
        """
        if not self._has_penalties and not self._settings.logit_bias:
            return logits_V
        adjusted_V = logits_V.clone()
        if self._settings.logit_bias:
            adjusted_V[self._bias_tokens] += self._biases
        if self._has_penalties:
            tokens_N, counts_N = self._counts.along(path)
            adjusted_V[tokens_N] = self._penalise(adjusted_V[tokens_N], counts_N)
        return adjusted_V

    def _penalise(self, logits_N: Tensor, counts_N: Tensor) -> Tensor:
        if self._settings.repetition_penalty != 1.0:
            penalty = self._repetition_penalty
            logits_N = torch.where(logits_N > 0, logits_N / penalty, logits_N * penalty)
        logits_N = logits_N - self._settings.presence_penalty
        return logits_N - counts_N * self._settings.frequency_penalty
