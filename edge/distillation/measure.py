"""How well a student guesses, counted over positions whose law is kept. Counts add up, so that parts can be joined.

Shape suffixes: T = tokens; W = output vocabulary of the student; K = tokens kept.
"""

# ruff: noqa: N803 - tensors carry shape suffixes
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from edge.distillation.chains import Chains

RANKS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Guesses:
    """Sums over some positions."""

    num_positions: int = 0
    hits: tuple[int, ...] = (0,) * RANKS
    """How often the target's likeliest token was the student's first, second ... choice."""
    matches: float = 0.0
    """Expected draws in common at temperature 1 with the same noise."""
    divergence: float = 0.0
    """Sum of KL(target || student) in nats."""
    chains: Chains = field(default_factory=Chains)
    """Of drafts from each of these positions on; none where they were not counted."""

    def __add__(self, other: Guesses) -> Guesses:
        """Return both together."""
        return Guesses(
            num_positions=self.num_positions + other.num_positions,
            hits=tuple(a + b for a, b in zip(self.hits, other.hits, strict=True)),
            matches=self.matches + other.matches,
            divergence=self.divergence + other.divergence,
            chains=self.chains + other.chains,
        )

    @property
    def acceptance(self) -> float:
        """Acceptance probability at temperature 0."""
        return self.hits[0] / max(1, self.num_positions)

    @property
    def coverage(self) -> tuple[float, ...]:
        """Share of positions where the target's token is among the first 1, 2 ... RANKS choices."""
        covered = [sum(self.hits[: rank + 1]) for rank in range(RANKS)]
        return tuple(count / max(1, self.num_positions) for count in covered)

    @property
    def coupled(self) -> float:
        """Acceptance probability at temperature 1 with coupled draws; a lower bound, see `coupled_matches`."""
        return self.matches / max(1, self.num_positions)

    @property
    def mean_divergence(self) -> float:
        """KL per position in nats."""
        return self.divergence / max(1, self.num_positions)


@dataclass(slots=True)
class Tally:
    """Guesses by category."""

    by_category: dict[str, Guesses] = field(default_factory=dict)

    def add(self, category: str, guesses: Guesses) -> None:
        """Count some more."""
        self.by_category[category] = self.by_category.get(category, Guesses()) + guesses

    @property
    def total(self) -> Guesses:
        """All categories together."""
        return sum(self.by_category.values(), start=Guesses())

    def rows(self) -> Mapping[str, Guesses]:
        """Return the categories by name, and their total; nothing was judged in those that are left out."""
        judged = {name: value for name, value in self.by_category.items() if value.num_positions}
        return dict(sorted(judged.items())) | {"all": self.total}


def ranks(logits_TW: Tensor, output_ids_W: Tensor, top_tokens_T: Tensor) -> Tensor:
    """Return at which rank (0 is first) the student has a token, RANKS if it is not among the first; [T]."""
    count = min(RANKS, logits_TW.shape[1])
    best = output_ids_W[logits_TW.topk(count, dim=1).indices]
    hit = best == top_tokens_T[:, None]
    missed = torch.full_like(top_tokens_T, RANKS)
    return torch.where(hit.any(1), hit.int().argmax(1), missed)


def coupled_matches(logits_TW: Tensor, indices_TK: Tensor, probs_TK: Tensor) -> Tensor:
    """Return the probability that both draw the same token with the same exponential noise, [T].

    Both take token i if E_i / target_i and E_i / student_i are the least of all, which has the probability
    1 / sum over j of max(target_j / target_i, student_j / student_i). Tokens that were not kept count with the sum of
    both sides' mass instead of the maximum, so this is a lower bound. Source: Daliri et al., arXiv 2408.07978.
    """
    logits = logits_TW.float()
    student = (logits.gather(1, indices_TK) - torch.logsumexp(logits, 1, keepdim=True)).exp()
    kept = probs_TK > 0
    student = student * kept
    total = torch.zeros(len(logits), device=logits.device)
    target_rest = (1 - probs_TK.sum(1)).clamp(min=0)
    student_rest = (1 - student.sum(1)).clamp(min=0)
    for i in range(probs_TK.shape[1]):
        target_i = probs_TK[:, i : i + 1].clamp(min=1e-12)
        student_i = student[:, i : i + 1].clamp(min=1e-12)
        spread = torch.maximum(probs_TK / target_i, student / student_i).sum(1)
        spread += target_rest / target_i[:, 0] + student_rest / student_i[:, 0]
        total += torch.where(kept[:, i], 1 / spread, torch.zeros_like(spread))
    return total
