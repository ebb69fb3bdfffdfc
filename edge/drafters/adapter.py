"""A correction of a draft's logits that is learned from what the target really said, while the draft is at work.

What goes into the output matrix was computed anyway, so a judged guess is a lesson that costs no pass of the model: there stand the
features, the few likeliest tokens, and the token that it should have been. One row of numbers is kept for each of the
tokens that the user's text is about just now; its product with the features is added to the token's logit. That is a step of stochastic gradient
descent on the cross entropy of a low-rank part of the output matrix, cut to the likeliest tokens (dynamic evaluation, Krause et al., arXiv
1709.07432, of the last matrix only).

Features are hidden states made alike: those of one model point in nearly the same direction, and a few of their numbers are many times
as large as all others. Without that, one lesson is about everything.

Bounds: NUM_TOKENS rows whatever the vocabulary; a correction costs NUM_TOKENS products of a row, a lesson those of its candidates, twice.

Small things are computed by numpy, whose calls cost a fourth of PyTorch's; large products by PyTorch, which knows how many threads it may
use. A device holds nothing of it.

Shape suffixes: R = rows of a step; H = hidden width; F = features, H + 1; M = rows kept; K = candidates.
"""

# ruff: noqa: N803, N806 - tensors carry shape suffixes
from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from math import exp

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paceline.errors import ConfigError
from paceline.tokens import TokenId

CANDIDATES = 5
"""The likeliest tokens of a place take part in a lesson; what the others have in it is next to nothing."""

FIRST_ROWS = 128
"""From so many hidden states is known what they have in common; nothing is learned before."""

MOST = 40.0
"""No logit is changed by more, whatever was learned."""

MIN_TOKENS = 16
"""A lesson has fewer, so it takes no row from itself."""
MAX_RATE = 1e6
Floats = NDArray[np.float32]

_CONSTANT = 0.3
"""The one feature that is always the same: how often a token comes at all, apart from where."""
_LEAST_GRADIENT = 0.05
"""A candidate that is to move by less of a rate takes no row from another token."""
_LEAST_SPREAD = 1e-4


@dataclass(frozen=True, slots=True, kw_only=True)
class AdapterSettings:
    """How an adapter learns."""

    num_tokens: int = 512
    """Rows kept; the token that was in no lesson for longest makes room."""
    rate: float = 1.0
    """By how many logits a token moves at most in its place after one lesson."""

    def __post_init__(self) -> None:
        """Check both.

        Raises:
            ConfigError: a field is out of its range; names it.
        """
        if self.num_tokens < MIN_TOKENS:
            raise ConfigError(f"num_tokens: got {self.num_tokens}, expected {MIN_TOKENS} or more")
        if not 0 < self.rate <= MAX_RATE:
            raise ConfigError(f"rate: got {self.rate}, expected > 0 and at most {MAX_RATE:g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """A place where the draft guessed; with the target's token it can be learned from."""

    features: NDArray[np.float32]
    """[F]."""
    tokens: tuple[TokenId, ...]
    """The likeliest there, as far as they were looked at; different ones."""
    logits: NDArray[np.float32]
    """[K]: what the draft's own output matrix said of them."""


class Adapter:
    """One correction for all generations of a drafter. Not to be used by two threads at once.

    Args:
        tokens: that the draft's logits have columns of, ascending.
        width: H, of what goes into the output matrix.
        settings: how it learns.
    """

    def __init__(
        self, tokens: Sequence[TokenId], *, width: int, settings: AdapterSettings | None = None
    ) -> None:
        self._settings = settings or AdapterSettings()
        self._tokens = list(tokens)
        self._column_of = {token: column for column, token in enumerate(tokens)}
        num_tokens = self._settings.num_tokens
        self._rows_MF = np.zeros((num_tokens, width + 1), dtype=np.float32)
        self._slots: OrderedDict[TokenId, int] = OrderedDict()
        """The row of each token that has one; those that were in a lesson of late stand last."""
        self._columns_M = np.zeros(num_tokens, dtype=np.int64)
        # PyTorch's view of both: the same memory.
        self._turned_FM = torch.from_numpy(self._rows_MF).T
        self.columns_M = torch.from_numpy(self._columns_M)
        """The column of logits that each row is about. Unused rows are zero and name column 0."""
        self._first: list[Floats] = []
        """Hidden states while they are too few."""
        self._middle_H: Floats | None = None
        self._spread_H = np.empty(0, dtype=np.float32)
        self.num_products = 0
        """Products of a row with features so far, for who measures it."""

    @property
    def num_bytes(self) -> int:
        """Memory of the rows, which never changes."""
        return self._rows_MF.nbytes

    def has_row(self, token: TokenId) -> bool:
        """Return whether the token's logit is corrected at all."""
        return token in self._slots

    def token(self, column: int) -> TokenId:
        """Return the token of a column."""
        return self._tokens[column]

    def columns(self, tokens: Sequence[TokenId]) -> list[int]:
        """Return the columns of some tokens, which must have one."""
        return [self._column_of[token] for token in tokens]

    def features(self, hidden_RH: Floats) -> Floats | None:
        """Return what is learned from, [R, F], or None while too few hidden states have been seen."""
        lengths_R1 = np.linalg.norm(hidden_RH, axis=1, keepdims=True)
        units_RH: Floats = hidden_RH / np.maximum(lengths_R1, _LEAST_SPREAD)
        if self._middle_H is None:
            self._first.append(units_RH)
            if sum(len(rows) for rows in self._first) >= FIRST_ROWS:
                seen = np.concatenate(self._first)
                self._first.clear()
                self._middle_H = seen.mean(axis=0)
                self._spread_H = seen.std(axis=0) + np.float32(_LEAST_SPREAD)
            return None
        units_RH -= self._middle_H
        units_RH /= self._spread_H
        num_rows, width = units_RH.shape
        features_RF = np.full((num_rows, width + 1), _CONSTANT, dtype=np.float32)
        lengths_R1 = np.linalg.norm(units_RH, axis=1, keepdims=True)
        np.divide(units_RH, np.maximum(lengths_R1, _LEAST_SPREAD), out=features_RF[:, :-1])
        return features_RF

    def corrections(self, features_RF: Floats) -> Tensor:
        """Return what to add to the logits in `columns_M`: [R, M]."""
        self.num_products += len(features_RF) * len(self._rows_MF)
        return torch.mm(torch.from_numpy(features_RF), self._turned_FM).clamp_(-MOST, MOST)

    def learn(self, lesson: Lesson, token: TokenId) -> None:
        """Take one step; a token that the draft cannot say teaches nothing.

        Args:
            lesson: the place.
            token: the target's there.
        """
        if token not in self._column_of:
            return
        gradients = {
            candidate: (candidate == token) - share
            for candidate, share in zip(lesson.tokens, self._shares(lesson), strict=True)
        }
        gradients.setdefault(token, 1.0)
        moved = {
            self._slot(candidate): gradient
            for candidate, gradient in gradients.items()
            if abs(gradient) >= _LEAST_GRADIENT
        }
        if moved:
            steps_K = np.fromiter(moved.values(), dtype=np.float32) * self._settings.rate
            self._rows_MF[list(moved)] += np.outer(steps_K, lesson.features).astype(np.float32)
            self.num_products += len(moved)

    def _shares(self, lesson: Lesson) -> list[float]:
        """The chances that the corrected draft gives the candidates now, if there were no others."""
        known = [self._slots.get(token) for token in lesson.tokens]
        rows_KF = self._rows_MF[[slot or 0 for slot in known]]
        corrections = (rows_KF * lesson.features).sum(axis=1).clip(-MOST, MOST).tolist()
        self.num_products += len(known)
        logits = [
            logit + (0.0 if slot is None else more)
            for logit, slot, more in zip(lesson.logits.tolist(), known, corrections, strict=True)
        ]
        peak = max(logits)
        weights = [exp(logit - peak) for logit in logits]
        total = sum(weights)
        return [weight / total for weight in weights]

    def _slot(self, token: TokenId) -> int:
        """The token's row, an empty one if it had none."""
        slot = self._slots.pop(token, None)
        if slot is None:
            slot = len(self._slots)
            if slot == len(self._rows_MF):
                _, slot = self._slots.popitem(last=False)
                self._rows_MF[slot] = 0.0
            self._columns_M[slot] = self._column_of[token]
        self._slots[token] = slot
        return slot
