"""Bias, penalties and filters in plain Python, one definition after the other: slow and obvious."""

import math
from collections import Counter
from collections.abc import Sequence

from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId


def adjusted(
    logits: Sequence[float], settings: SamplingSettings, output: Sequence[TokenId]
) -> list[float]:
    """Return logits after bias and penalties over the output, path included."""
    result = list(logits)
    for token, bias in settings.logit_bias:
        result[token] += bias
    for token, count in Counter(output).items():
        if result[token] > 0:
            result[token] /= settings.repetition_penalty
        else:
            result[token] *= settings.repetition_penalty
        result[token] -= settings.presence_penalty + count * settings.frequency_penalty
    return result


def allowed(logits: Sequence[float], settings: SamplingSettings) -> list[int]:
    """Return the ids that pass temperature, top-k, top-p and min-p, ascending."""
    ranked = sorted(range(len(logits)), key=lambda token: (-logits[token], token))
    if settings.top_k > 0:
        ranked = ranked[: settings.top_k]
    peak = logits[ranked[0]]
    weights = {token: math.exp((logits[token] - peak) / settings.temperature) for token in ranked}
    total = math.fsum(weights.values())
    kept, before = [], 0.0
    for token in ranked:
        if settings.top_p == 1.0 or before < settings.top_p * total:
            kept.append(token)
        before += weights[token]
    return sorted(token for token in kept if weights[token] >= settings.min_p)
