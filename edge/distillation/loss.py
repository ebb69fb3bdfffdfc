"""How far a student's law is from what was kept of the target's.

The target's law is known for its likeliest tokens only. All other tokens, and those that the student cannot say, are one
outcome, the remainder, on both sides; Kullback-Leibler divergence over these outcomes is a lower bound of the whole one
and zero if the laws are equal. Source: Hinton et al., arXiv 1503.02531, with the kept tokens as in DistilBERT's kin.

Shape suffixes: T = tokens; W = output vocabulary of the student; K = tokens kept.
"""

# ruff: noqa: N803, N806 - tensors carry shape suffixes
from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SMALLEST = 1e-6
"""Below it a probability is rounding: log-probabilities are kept in float16."""


BLOCK_ROWS = 64
"""Rows whose student law is held at once, so that it stays in the processor's cache."""


def divergence(logits_TW: Tensor, indices_TK: Tensor, probs_TK: Tensor) -> Tensor:
    """Return KL(target || student) of every token in nats, [T] float32.

    Args:
        logits_TW: the student's.
        indices_TK: places of the kept tokens among the student's outputs, different in each row; any place where the
            probability is 0.
        probs_TK: the target's, float32, at temperature 1; 0 for tokens that the student cannot say.
    """
    result: Tensor = _Divergence.apply(logits_TW, indices_TK, probs_TK)  # type: ignore[no-untyped-call]
    return result


class _Divergence(torch.autograd.Function):
    """Computes the gradient along with the value, block by block: the student's law is never kept whole.

    With z the logits, Z = logsumexp(z), q = exp(z - Z), S the student's mass on kept tokens, r the target's remainder:

        loss     = sum p log p + r log r - sum p (z - Z) - r log(1 - S)
        d loss/d z = -p + r q / (1 - S) at kept tokens, plus q (sum p - r S / (1 - S)) everywhere

    A third of the time of a training step went into what autograd makes of the same formula.
    """

    @staticmethod
    def forward(ctx: Any, logits_TW: Tensor, indices_TK: Tensor, probs_TK: Tensor) -> Tensor:
        needs_gradient = ctx.needs_input_grad[0]
        losses = torch.empty(len(logits_TW), dtype=torch.float32, device=logits_TW.device)
        gradient_TW = torch.empty_like(logits_TW) if needs_gradient else None
        for start in range(0, len(logits_TW), BLOCK_ROWS):
            rows = slice(start, start + BLOCK_ROWS)
            loss, gradient = _block(
                logits_TW[rows], indices_TK[rows], probs_TK[rows], needs_gradient=needs_gradient
            )
            losses[rows] = loss
            if gradient_TW is not None and gradient is not None:
                gradient_TW[rows] = gradient
        ctx.gradient_TW = gradient_TW
        return losses

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> tuple[Tensor, None, None]:
        gradient: Tensor = ctx.gradient_TW
        # In place: it is needed once, and as large as the logits.
        return gradient.mul_(outer[0][:, None].to(gradient.dtype)), None, None


def _block(
    logits_TW: Tensor, indices_TK: Tensor, probs_TK: Tensor, *, needs_gradient: bool
) -> tuple[Tensor, Tensor | None]:
    """Value and gradient of some rows."""
    logits = logits_TW.float()
    normaliser = torch.logsumexp(logits, dim=1, keepdim=True)
    kept = probs_TK > 0
    log_probs = logits.gather(1, indices_TK) - normaliser
    student = log_probs.exp() * kept
    mass = probs_TK.sum(1, keepdim=True)
    rest = (1 - mass).clamp(min=0.0)
    student_mass = student.sum(1, keepdim=True)
    student_rest = (1 - student_mass).clamp(min=SMALLEST)
    cross = (probs_TK * log_probs.masked_fill(~kept, 0.0)).sum(1)
    entropy = torch.special.entr(probs_TK).sum(1) + torch.special.entr(rest[:, 0])
    loss = -entropy - cross - rest[:, 0] * student_rest[:, 0].log()
    if not needs_gradient:
        return loss, None
    # Below SMALLEST the logarithm is cut off and pulls no more.
    pull = torch.where(student_rest > SMALLEST, rest / student_rest, torch.zeros_like(rest))
    gradient = (logits - normaliser).exp_() * (mass - pull * student_mass)
    gradient.scatter_add_(1, indices_TK, student * pull - probs_TK)
    return loss, gradient
