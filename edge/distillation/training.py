"""Teaches a student. The same seed, text and number of threads give the same weights on a CPU.

A step is a fixed number of packed batches, whose gradients add up to the gradient of the mean over the step's tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch

from edge.distillation.chains import count_chains
from edge.distillation.conversation import Role
from edge.distillation.levels import rounded_weights
from edge.distillation.loss import divergence
from edge.distillation.measure import RANKS, Guesses, Tally, coupled_matches, ranks
from edge.distillation.packing import Batch, Packer, Text
from edge.distillation.schedule import rate_share
from edge.distillation.student import Student

CLIP = 1.0
"""Longest gradient that is taken as it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainSettings:
    """How a student is taught."""

    num_tokens: int = 4_000_000
    """Tokens seen, padding included, over all epochs."""
    batch_tokens: int = 2048
    batches_per_step: int = 4
    rate: float = 1.5e-3
    """Peak learning rate."""
    weight_decay: float = 0.01
    bfloat16: bool = True
    """Products in bfloat16, weights and sums in float32."""
    bits: int | None = None
    """Learn with the weights of the layers rounded to so many bits, as they will be when the draft is packed."""
    seed: int = 0

    @property
    def num_steps(self) -> int:
        """Steps of the whole training."""
        return max(1, self.num_tokens // (self.batch_tokens * self.batches_per_step))


class Trainer:
    """A student, its optimiser and how it learns.

    Args:
        student: changed in place.
        settings: see there.
    """

    def __init__(self, student: Student, settings: TrainSettings) -> None:
        self._student = student
        self._settings = settings
        self._device = student.head.device
        self.optimiser = torch.optim.AdamW(
            [value for _, value in student.trained()],
            lr=settings.rate,
            betas=(0.9, 0.98),
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def step(self, batches: Sequence[Batch], *, number: int) -> float:
        """Learn from the batches of one step; return the mean loss over its tokens before."""
        rate = self._settings.rate * rate_share(number, self._settings.num_steps)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        weight = max(1e-9, sum(self._worth(batch) for batch in batches))
        total = 0.0
        # Gradients of the rounded weights move the exact ones: straight through, Bengio et al., arXiv 1308.3432.
        with rounded_weights(self._student.layer_weights(), bits=self._settings.bits):
            for index, batch in enumerate(batches):
                loss = self._summed(batch, place=(number, index)) / weight
                loss.backward()  # type: ignore[no-untyped-call]  # torch does not say its type
                total += float(loss.detach())
        torch.nn.utils.clip_grad_norm_([value for _, value in self._student.trained()], CLIP)
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)
        return total

    def measure(self, batches: Iterable[Batch]) -> Tally:
        """Count guesses at answers, by category; all but greedy answers under "hot"."""
        with rounded_weights(self._student.layer_weights(), bits=self._settings.bits):
            return measure_student(
                self._student, batches, category=_name, bfloat16=self._settings.bfloat16
            )

    def _worth(self, batch: Batch) -> float:
        """Return the sum of the weights in a batch's loss."""
        return float(batch.weights.sum())

    def _summed(self, batch: Batch, *, place: tuple[int, int]) -> torch.Tensor:
        """Return the loss of a batch, summed over its tokens by their weights.

        Args:
            batch: the batch.
            place: number of the step and of the batch in it, for what is drawn by chance.
        """
        del place
        logits = _logits(self._student, batch, bfloat16=self._settings.bfloat16)
        indices = torch.from_numpy(batch.indices).to(self._device)
        losses = divergence(logits, indices, torch.from_numpy(batch.probs).to(self._device))
        return (losses * torch.from_numpy(batch.weights).to(self._device)).sum()


@torch.no_grad()
def measure_student(
    student: Student,
    batches: Iterable[Batch],
    *,
    category: Callable[[Text], str],
    bfloat16: bool = True,
) -> Tally:
    """Count a student's guesses at answers, by a category of each conversation."""
    tally = Tally()
    for batch in batches:
        logits = _logits(student, batch, bfloat16=bfloat16)
        device = logits.device
        answers = torch.from_numpy(batch.roles == Role.ANSWER).to(device)
        indices = torch.from_numpy(batch.indices).to(device)
        probs = torch.from_numpy(batch.probs).to(device)
        losses = divergence(logits, indices, probs)
        matches = coupled_matches(logits, indices, probs)
        found = ranks(logits, student.output_ids, torch.from_numpy(batch.top_tokens).to(device))
        start = 0
        for text, length in zip(batch.texts, batch.lengths, strict=False):
            whole = slice(start, start + length)
            here = torch.arange(start, start + length, device=device)[answers[whole]]
            rows = (found[whole], matches[whole], answers[whole])
            start += length
            counts = torch.bincount(found[here], minlength=RANKS + 1).tolist()
            guesses = Guesses(
                num_positions=len(here),
                hits=tuple(counts[:RANKS]),
                matches=float(matches[here].sum()),
                divergence=float(losses[here].sum()),
                chains=count_chains(*(part.cpu().numpy() for part in rows)),
            )
            tally.add(category(text), guesses)
    return tally


def _logits(student: Student, batch: Batch, *, bfloat16: bool) -> torch.Tensor:
    device = student.head.device
    with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
        logits: torch.Tensor = student(
            torch.from_numpy(batch.tokens).to(device),
            torch.from_numpy(batch.positions).to(device),
            batch.lengths,
        )
    return logits


def step_batches(
    packer: Packer, settings: TrainSettings, *, epoch: int, texts: Sequence[Text]
) -> list[list[list[Text]]]:
    """Return the steps of an epoch, each as the texts of its batches; a last step that is not full is left out."""
    groups = packer.epoch(texts, seed=(settings.seed, epoch))
    size = settings.batches_per_step
    steps = [groups[start : start + size] for start in range(0, len(groups), size)]
    return steps[:-1] if len(steps) > 1 and len(steps[-1]) < size else steps


def _name(text: Text) -> str:
    return text.passage.category if text.passage.temperature == 0 else "hot"
