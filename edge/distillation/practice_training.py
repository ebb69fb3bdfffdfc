"""Teaches a student on text of its target and on its own drafts after it, judged by the target; with the same loss.

Sources: Zhou et al., DistillSpec, arXiv 2310.08461 (drafts trained on what they draft); Agarwal et al., GKD, arXiv 2306.13649 (any
mixture of fixed and own text, here as many drafts as the practice has for a text). The divergence stays the forward one, whose
gradient needs no more of the target than what is kept.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from edge.distillation.draft_pass import student_logits
from edge.distillation.loss import divergence
from edge.distillation.packing import Batch
from edge.distillation.practice import Practice
from edge.distillation.student import Student
from edge.distillation.training import Trainer, TrainSettings


class PracticeTrainer(Trainer):
    """See the module. A position of a draft counts as much as the position of the text that it stands for.

    Args:
        student: changed in place.
        settings: as of any student.
        practice: the drafts.
    """

    def __init__(self, student: Student, settings: TrainSettings, practice: Practice) -> None:
        super().__init__(student, settings)
        self._practice = practice

    def _worth(self, batch: Batch) -> float:
        """See `Trainer`."""
        return super()._worth(batch) + self._practice.worth(batch)

    def _summed(self, batch: Batch, *, place: tuple[int, int]) -> Tensor:
        """See `Trainer`."""
        drafts = self._practice.of(batch)
        if drafts is None:
            return super()._summed(batch, place=place)
        bfloat16 = self._settings.bfloat16
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
            logits = student_logits(
                self._student, batch, starts=drafts.blocks.starts, tokens_BL=drafts.tokens
            )
        indices = np.concatenate((batch.indices, drafts.indices))
        probs = np.concatenate((batch.probs, drafts.probs))
        weights = np.concatenate((batch.weights, drafts.weights))
        losses = divergence(
            logits,
            torch.from_numpy(indices).to(self._device),
            torch.from_numpy(probs).to(self._device),
        )
        return (losses * torch.from_numpy(weights).to(self._device)).sum()
