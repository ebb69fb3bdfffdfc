"""Truncation filters: which tokens may be drawn. The order is temperature, top-k, top-p, min-p.

Tokens are ranked by logit descending, then by id ascending, so ties at a boundary are decided the same everywhere.
Bias and penalties come before (`penalties.py`); the noise comes after (`coupled.py`).

Shape suffixes: V = vocabulary, K = ranked or surviving tokens.
"""

import ctypes
import math

import torch
from torch import Tensor

from paceline.errors import ModelError
from paceline.sampling.settings import SamplingSettings

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
    size = logits_V.numel()
    # The wire carries float32: rounded here, the setting means the same on both sides of it.
    top_p = ctypes.c_float(settings.top_p).value
    if 0 < settings.top_k < size:
        ranked_K = best(logits_V, settings.top_k)
        weights_K = _weights(logits_V[ranked_K], peak, settings.temperature)
        total = float(_to_double(weights_K).sum())
    else:
        weights_V = _weights(logits_V, peak, settings.temperature)
        if top_p == 1.0:
            return (weights_V >= settings.min_p).nonzero().flatten()
        total = _total(weights_V)
        # All tokens lighter than this together weigh less than 1 - top_p, so top-p ends before the first of them:
        # only the others are sorted. Halved, so that rounding cannot matter; logits, because they are exact.
        lightest = (1.0 - top_p) * total / (2 * size)
        threshold = peak + settings.temperature * math.log(lightest)
        heavy_K = (logits_V >= threshold).nonzero().flatten()
        ranked_K = heavy_K[logits_V[heavy_K].sort(descending=True, stable=True).indices]
        weights_K = weights_V[ranked_K]
    keep_K = weights_K >= settings.min_p
    if top_p < 1.0:
        doubles_K = _to_double(weights_K)
        before_K = doubles_K.cumsum(0) - doubles_K
        keep_K &= (before_K < top_p * total).to(keep_K.device)
    # Rounding of the running sum must not cost the best token, whatever top_p.
    keep_K[0] = True
    return ranked_K[keep_K].sort().values


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
        candidates = (values_V >= top_values[k]).nonzero().flatten()
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


def _weights(logits: Tensor, peak: float, temperature: float) -> Tensor:
    """Return exp((logit - peak) / temperature), which is in [0, 1]."""
    return logits.sub(peak).div_(max(temperature, LEAST_TEMPERATURE)).exp_()


def _total(weights_V: Tensor) -> float:
    """Return the sum of all weights; in float64, where the device has it, so that its order does not matter."""
    dtype = torch.float32 if weights_V.device.type == "mps" else torch.float64
    return float(weights_V.sum(dtype=dtype))


def _to_double(weights_K: Tensor) -> Tensor:
    """Return a copy in float64 on the CPU: a running sum there is the same in every run."""
    return weights_K.cpu().double()
