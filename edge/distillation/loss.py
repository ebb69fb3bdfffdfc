"""How far a student's law is from what was kept of the target's.

The target's law is known for its likeliest tokens only. All other tokens, and those that the student cannot say, are one
outcome, the remainder, on both sides; Kullback-Leibler divergence over these outcomes is a lower bound of the whole one
and zero if the laws are equal. Source: Hinton et al., arXiv 1503.02531, with the kept tokens as in DistilBERT's kin.

Shape suffixes: T = tokens; W = output vocabulary of the student; K = tokens kept.
"""

# ruff: noqa: N803 - tensors carry shape suffixes
from __future__ import annotations

import torch
from torch import Tensor

SMALLEST = 1e-6
"""Below it a probability is rounding: log-probabilities are kept in float16."""


def divergence(logits_TW: Tensor, indices_TK: Tensor, probs_TK: Tensor) -> Tensor:
    """Return KL(target || student) of every token in nats, [T] float32.

    Args:
        logits_TW: the student's.
        indices_TK: places of the kept tokens among the student's outputs; any place where the probability is 0.
        probs_TK: the target's, float32, at temperature 1; 0 for tokens that the student cannot say.
    """
    logits = logits_TW.float()
    log_probs = logits.gather(1, indices_TK) - torch.logsumexp(logits, dim=1, keepdim=True)
    kept = probs_TK > 0
    cross = (probs_TK * log_probs.masked_fill(~kept, 0.0)).sum(1)
    rest = (1 - probs_TK.sum(1)).clamp(min=0.0)
    student_rest = 1 - (log_probs.exp() * kept).sum(1)
    log_rest = torch.log(student_rest.clamp(min=SMALLEST))
    entropy = torch.special.entr(probs_TK).sum(1) + torch.special.entr(rest)
    result: Tensor = -entropy - cross - rest * log_rest
    return result
