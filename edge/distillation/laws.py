"""What is kept of the target's law at each row, and how the next token is drawn from it.

Shape suffixes: R = rows; V = vocabulary; K = tokens kept.
"""

# ruff: noqa: N803 - tensors carry shape suffixes
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def top_laws(logits_RV: Tensor, *, k: int) -> tuple[Tensor, Tensor]:
    """Return the likeliest ids and their log-probabilities at temperature 1, falling: [R, K] int64 and float32."""
    values, ids = torch.topk(logits_RV, k, dim=-1)
    return ids, values - torch.logsumexp(logits_RV, dim=-1, keepdim=True)


def draw(logits_RV: Tensor, *, temperatures: Sequence[float], noise: Sequence[float]) -> list[int]:
    """Draw one token per row from the whole law.

    Args:
        logits_RV: float32.
        temperatures: one per row; 0 takes the likeliest token.
        noise: one number of [0, 1) per row, which decides its draw.
    """
    tokens = logits_RV.argmax(dim=-1)
    hot = [row for row, temperature in enumerate(temperatures) if temperature > 0]
    if hot:
        scale = torch.tensor([temperatures[row] for row in hot], device=logits_RV.device)
        place = torch.tensor([noise[row] for row in hot], device=logits_RV.device)
        cumulated = torch.softmax(logits_RV[hot] / scale[:, None], dim=-1).cumsum(dim=-1)
        # Rounding leaves the sum a little off 1.
        place = place.to(cumulated.dtype)[:, None] * cumulated[:, -1:]
        drawn = torch.searchsorted(cumulated, place, right=True)[:, 0]
        tokens[hot] = drawn.clamp(max=logits_RV.shape[1] - 1)
    return [int(token) for token in tokens.tolist()]
