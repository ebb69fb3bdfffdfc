"""Truncation filters: which tokens may be drawn. The order is temperature, top-k, top-p, min-p.

Tokens are ranked by logit descending, then by id ascending, so ties at a boundary are decided the same everywhere.
Bias and penalties come before (`penalties.py`); the noise comes after (`coupled.py`).

Shape suffixes: V = vocabulary, K = ranked or surviving tokens.
"""

import ctypes
import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from paceline.errors import ModelError
from paceline.sampling.settings import SamplingSettings

NUM_BUCKETS = 1024
"""Buckets of the top-p cut; few enough that summing them costs nothing, many enough that one holds few tokens."""

LEAST_TOP_P = 1e-30
"""A lower top_p keeps one token, as this one does; float32 would round it to 0, which keeps none."""

LEAST_DEPTH = 1e-30
"""Stands for a spread of 0 between logits, by which nothing can be scaled."""

LEAST_TEMPERATURE = 1e-30
"""A lower temperature divides as this one does: all weight is on the best tokens already, and 1 / T is finite."""


def truncates(settings: SamplingSettings) -> bool:
    """Return whether any filter can remove a token. At temperature 0 none matters: the best always survives."""
    return not settings.is_greedy and (
        settings.top_k > 0 or settings.top_p < 1.0 or settings.min_p > 0.0
    )


def survivors(logits_V: Tensor, settings: SamplingSettings) -> Tensor:
    """Return the ids of the tokens that pass the filters, ascending: [K] int64, at least one.

    With weight = exp((logit - largest logit) / temperature):
    top-k keeps the k best; top-p keeps, of those, every token before which less than top_p of their weight lies;
    min-p keeps, of those, weights of at least min_p. The best token passes all of them.

    Args:
        logits_V: float32, biased and penalised.
        settings: its temperature is above 0.

    Raises:
        ModelError: the largest logit is not finite.
    """
    peak = checked_peak(logits_V)
    weights_V = _weights(logits_V, peak, settings.temperature)
    kept = _Candidates(ids=None, logits=logits_V, weights=weights_V)
    if 0 < settings.top_k < logits_V.numel():
        kept = kept.at(best(logits_V, settings.top_k).sort().values)
    # The wire carries float32: rounded here, the setting means the same on both sides of it.
    top_p = max(ctypes.c_float(settings.top_p).value, LEAST_TOP_P)
    if top_p < 1.0:
        mass = top_p * _total(kept.weights)
        # All tokens lighter than this together weigh less than 1 - top_p, so top-p ends before the first of them
        # and need not look at them. Halved, so that rounding cannot matter; logits, because they are exact.
        lightest = (1.0 / top_p - 1.0) * mass / (2 * kept.logits.numel())
        threshold = peak + settings.temperature * math.log(lightest)
        kept = kept.at(_places(kept.logits >= threshold))
        kept = kept.at(_nucleus(kept.logits.cpu(), kept.weights.cpu().double(), mass=mass))
    if settings.min_p > 0.0:
        kept = kept.at(_places(kept.weights >= settings.min_p))
    return torch.arange(logits_V.numel(), device=logits_V.device) if kept.ids is None else kept.ids


def best(values_V: Tensor, k: int) -> Tensor:
    """Return the indices of the k largest values, by value descending, then by index ascending: [K] int64.

    Args:
        values_V: no NaN.
        k: at least 1; more than there are gives all.
    """
    size = values_V.numel()
    if k >= size:
        return values_V.sort(descending=True, stable=True).indices
    top_values, top_indices = values_V.topk(k + 1)
    if bool(top_values[k - 1] == top_values[k]):
        # Equal values on both sides of the boundary, and topk took any of them: look at all of them.
        candidates = _places(values_V >= top_values[k])
    else:
        candidates = top_indices[:k].sort().values
    order = values_V[candidates].sort(descending=True, stable=True).indices
    return candidates[order[:k]]


def checked_peak(logits_V: Tensor) -> float:
    """Return the largest logit.

    Raises:
        ModelError: it is not finite, which a single NaN or +inf suffices for, or -inf everywhere.
    """
    peak = float(logits_V.max())
    if peak - peak != 0.0:
        raise not_finite(peak)
    return peak


def not_finite(value: float) -> ModelError:
    """Return the error for logits from which no token can be drawn."""
    return ModelError(
        f"logits: got {value} as the largest, expected a finite number; the model computed nonsense: check its "
        "weights and dtype (float32 overflows last)"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Candidates:
    """Tokens that are still allowed, in ascending order of ids."""

    ids: Tensor | None
    """[K] int64; None stands for the whole vocabulary."""
    logits: Tensor
    weights: Tensor

    def at(self, indices: Tensor) -> Self:
        """Return the candidates at these places of this list, which must ascend."""
        indices = indices.to(self.logits.device)
        return replace(
            self,
            ids=indices if self.ids is None else self.ids[indices],
            logits=self.logits[indices],
            weights=self.weights[indices],
        )


def _nucleus(logits_K: Tensor, weights_K: Tensor, *, mass: float) -> Tensor:
    """Return, ascending, the indices of the tokens before which in rank order less than `mass` of the weight lies.

    Sorting every token is slow where the distribution is flat. So tokens go to buckets by logit, whole buckets are
    kept or dropped by their weight, and only the bucket in which the mass is reached is sorted.

    Args:
        logits_K: finite, on the CPU.
        weights_K: float64, on the CPU, where a sum comes out the same in every run.
        mass: above 0.
    """
    depth_K = logits_K.max() - logits_K
    scale = NUM_BUCKETS / max(float(depth_K.max()), LEAST_DEPTH)
    bucket_K = depth_K.mul_(scale).long().clamp_(max=NUM_BUCKETS - 1)
    before = _sum_before(torch.bincount(bucket_K, weights_K, minlength=NUM_BUCKETS))
    last = int((before < mass).sum()) - 1
    inside = _places(bucket_K == last)
    inside = inside[logits_K[inside].sort(descending=True, stable=True).indices]
    before_inside = before[last] + _sum_before(weights_K[inside])
    keep_K = bucket_K < last
    keep_K[inside[before_inside < mass]] = True
    return _places(keep_K)


def _places(mask: Tensor) -> Tensor:
    """Return the indices at which a mask is true, ascending: int64."""
    if mask.device.type == "cpu":
        return torch.from_numpy(np.flatnonzero(mask.numpy()))  # three times as fast as torch's own
    return mask.nonzero().flatten()


def _sum_before(values: Tensor) -> Tensor:
    """Return the sum of all values before each one."""
    return torch.cat([values.new_zeros(1), values.cumsum(0)[:-1]])


def _weights(logits: Tensor, peak: float, temperature: float) -> Tensor:
    """Return exp((logit - peak) / temperature), which is in [0, 1]."""
    return logits.sub(peak).div_(max(temperature, LEAST_TEMPERATURE)).exp_()


def _total(weights_V: Tensor) -> float:
    """Return the sum of all weights; in float64, where the device has it, so that its order does not matter."""
    dtype = torch.float32 if weights_V.device.type == "mps" else torch.float64
    return float(weights_V.sum(dtype=dtype))
