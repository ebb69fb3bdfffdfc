"""Teaches a student with mask slots: the next token as ever, and after some tokens the positions behind it too.

A slot is compared with the target's law at its own place, given the text as it really went on; over all continuations that is the
best guess without knowing the tokens between. Of all tokens a block could follow, so many are drawn that a batch has three
slots for four tokens: a slot costs more than a token, and a step about twice one without slots.

Shape suffixes: K = tokens kept of a law.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from edge.distillation.block_attention import Blocks
from edge.distillation.block_student import BlockStudent
from edge.distillation.conversation import Role
from edge.distillation.levels import rounded_weights
from edge.distillation.loss import divergence
from edge.distillation.measure import RANKS, Guesses, Tally, coupled_matches, ranks
from edge.distillation.packing import Batch
from edge.distillation.training import Trainer, TrainSettings

SLOTS_PER_TOKEN = 0.75
"""Most slots of a batch, per token."""
DECAY = 0.9
"""Each slot is worth so much of the one before it: it counts only where all before it were right."""
SLOTS_WEIGHT = 1.0
"""Worth of all slots of a batch together, where its tokens are worth 1."""
_MEASURED = -1
"""Stands for the step of what is measured: the same blocks each time."""


class BlockTrainer(Trainer):
    """See the module.

    Args:
        student: changed in place.
        settings: as of any student.
    """

    def __init__(self, student: BlockStudent, settings: TrainSettings) -> None:
        super().__init__(student, settings)
        self._slotted = student

    def measure_slots(self, batches: Iterable[Batch]) -> list[Tally]:
        """Count guesses at answers for each position of a block, the one after its token first.

        A slot's guess is judged by the target's law where the text really went on.
        """
        size = self._slotted.num_slots + 1
        tallies = [Tally() for _ in range(size)]
        with rounded_weights(self._student.layer_weights(), bits=self._settings.bits):
            for index, batch in enumerate(batches):
                blocks = self._blocks(batch, place=(_MEASURED, index))
                if len(blocks.starts):
                    self._count(batch, blocks, tallies)
        return tallies

    def _summed(self, batch: Batch, *, place: tuple[int, int]) -> Tensor:
        """See `Trainer`."""
        blocks = self._blocks(batch, place=place)
        if not len(blocks.starts):
            return super()._summed(batch, place=place)
        logits = self._logits(batch, blocks)
        rows = np.concatenate((np.arange(len(batch.tokens)), blocks.target_rows()))
        indices = torch.from_numpy(batch.indices[rows]).to(self._device)
        probs = torch.from_numpy(batch.probs[rows]).to(self._device)
        weights = torch.from_numpy(_weights(batch, blocks)).to(self._device)
        return (divergence(logits, indices, probs) * weights).sum()

    def _blocks(self, batch: Batch, *, place: tuple[int, int]) -> Blocks:
        """Draw where blocks are, always the same for the same place."""
        num_slots = self._slotted.num_slots
        most = int(SLOTS_PER_TOKEN * len(batch.tokens)) // num_slots
        step, index = place
        seed = (self._settings.seed, step - _MEASURED, index)
        starts = draw_starts(batch, num_slots=num_slots, most=most, seed=seed)
        return Blocks(starts=starts, num_slots=num_slots)

    def _logits(self, batch: Batch, blocks: Blocks) -> Tensor:
        bfloat16 = self._settings.bfloat16
        with torch.autocast(self._device.type, torch.bfloat16, enabled=bfloat16):
            return self._slotted.with_blocks(
                torch.from_numpy(batch.tokens).to(self._device),
                torch.from_numpy(batch.positions).to(self._device),
                batch.lengths,
                blocks=blocks,
            )

    @torch.no_grad()
    def _count(self, batch: Batch, blocks: Blocks, tallies: list[Tally]) -> None:
        rows = np.concatenate((blocks.starts, blocks.target_rows()))
        whole = self._logits(batch, blocks)
        starts = torch.from_numpy(blocks.starts).to(self._device)
        logits = torch.cat((whole[starts], whole[len(batch.tokens) :]))
        indices = torch.from_numpy(batch.indices[rows]).to(self._device)
        probs = torch.from_numpy(batch.probs[rows]).to(self._device)
        top = torch.from_numpy(batch.top_tokens[rows]).to(self._device)
        losses = divergence(logits, indices, probs)
        matches = coupled_matches(logits, indices, probs)
        found = ranks(logits, self._student.output_ids, top)
        count = len(blocks.starts)
        # The first `count` rows are of the tokens themselves, then come the slots of one block after another.
        depth = np.concatenate((np.zeros(count), np.tile(np.arange(blocks.num_slots) + 1, count)))
        is_answer = batch.roles[rows] == Role.ANSWER
        for number, tally in enumerate(tallies):
            here = torch.from_numpy(np.flatnonzero((depth == number) & is_answer))
            here = here.to(self._device)
            counts = torch.bincount(found[here], minlength=RANKS + 1).tolist()
            tally.add(
                "all",
                Guesses(
                    num_positions=len(here),
                    hits=tuple(counts[:RANKS]),
                    matches=float(matches[here].sum()),
                    divergence=float(losses[here].sum()),
                ),
            )


def draw_starts(
    batch: Batch, *, num_slots: int, most: int, seed: tuple[int, ...]
) -> NDArray[np.int64]:
    """Return the rows of some tokens after which a whole block fits, ascending; answers more often, by their weight.

    Args:
        batch: the texts.
        num_slots: of a block.
        most: of the rows.
        seed: the same one gives the same rows.
    """
    fits = np.zeros(len(batch.tokens), np.bool_)
    begin = 0
    for _, length in zip(batch.texts, batch.lengths, strict=False):
        fits[begin : begin + max(0, length - num_slots)] = True
        begin += length
    worth = np.where(fits, batch.weights, 0.0).astype(np.float64)
    count = min(most, int(np.count_nonzero(worth)))
    if count < 1:
        return np.zeros(0, np.int64)
    drawn = np.random.default_rng(seed).choice(
        len(worth), size=count, replace=False, p=worth / worth.sum()
    )
    return np.sort(drawn)


def _weights(batch: Batch, blocks: Blocks) -> NDArray[np.float32]:
    """Worth of every token and slot; all slots together are worth SLOTS_WEIGHT of the tokens."""
    fading = DECAY ** np.arange(blocks.num_slots)
    slots = batch.weights[blocks.target_rows()] * np.tile(fading, len(blocks.starts))
    share = SLOTS_WEIGHT * batch.weights.sum() / max(1e-9, slots.sum())
    return np.concatenate((batch.weights, slots * share)).astype(np.float32)
