"""One pass over packed texts and the drafts that stand behind them.

    rows    [ text 0 | text 1 | ... | padding ][ draft 0: tokens 1 ... n ][ draft 1: tokens 1 ... n ] ...

A draft follows one token of a text, as a block of mask slots does (`block_attention`): its token k sees that text up to this
token, and tokens 1 to k of the same draft. So hundreds of drafts share one reading of their text.

Shape suffixes: B = drafts; L = their length; T = tokens of the packed texts; V = vocabulary.
"""

# ruff: noqa: N803, N806 - arrays carry shape suffixes
from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.random import Generator
from numpy.typing import NDArray
from torch import Tensor

from edge.distillation.block_attention import KEYWORD, Blocks
from edge.distillation.laws import draw
from edge.distillation.packing import Batch
from edge.distillation.student import ATTENTION, LENGTHS, Student, attention_register


def _inputs(
    batch: Batch, starts: NDArray[np.int64], tokens_BL: NDArray[np.int64], device: torch.device
) -> dict[str, Any]:
    """What a transformers model with attention over packed texts is called with."""
    length = tokens_BL.shape[1]
    places = (batch.positions[starts][:, None] + np.arange(1, length + 1)).ravel()
    tokens = np.concatenate((batch.tokens, tokens_BL.ravel()))
    positions = np.concatenate((batch.positions, places))
    inputs: dict[str, Any] = {
        "input_ids": torch.from_numpy(tokens).to(device)[None],
        "position_ids": torch.from_numpy(positions).to(device)[None],
        "use_cache": False,
        LENGTHS: list(batch.lengths),
    }
    if tokens_BL.size:
        inputs[KEYWORD] = Blocks(starts=starts, num_slots=length)
    return inputs


def student_logits(
    student: Student, batch: Batch, *, starts: NDArray[np.int64], tokens_BL: NDArray[np.int64]
) -> Tensor:
    """Return a student's logits after every token of the texts and of the drafts, [T + B * L, W]."""
    inputs = _inputs(batch, starts, tokens_BL, student.head.device)
    return student.logits_of(student.model.base_model(**inputs).last_hidden_state[0])


@torch.no_grad()
def draft_on(
    student: Student,
    batch: Batch,
    *,
    starts: NDArray[np.int64],
    length: int,
    temperatures: NDArray[np.float64],
    rng: Generator,
) -> NDArray[np.int64]:
    """Let a student draft after some tokens of the texts, each draft a chain; [B, L] ids of the target.

    Args:
        student: its tokens are drawn one after another, each given those before it.
        batch: the texts.
        starts: [B] ascending rows of the tokens that are followed.
        length: of every draft.
        temperatures: [B]; 0 takes the likeliest token.
        rng: decides the draws.
    """
    ids = student.output_ids.cpu().numpy()
    tokens_BL = np.zeros((len(starts), 0), np.int64)
    for step in range(length):
        inputs = _inputs(batch, starts, tokens_BL, student.head.device)
        hidden = student.model.base_model(**inputs).last_hidden_state[0]
        ends = starts
        if step:
            ends = len(batch.tokens) + step * np.arange(1, len(starts) + 1) - 1
        logits = student.logits_of(hidden[torch.from_numpy(ends).to(hidden.device)]).float()
        noise = rng.random(len(starts)).tolist()
        drawn = draw(logits, temperatures=temperatures.tolist(), noise=noise)
        tokens_BL = np.concatenate((tokens_BL, ids[drawn][:, None]), axis=1)
    return tokens_BL


class Judge:
    """A target that says what it would have said after each token of a draft.

    Args:
        target: a transformers model; its attention is switched to that of packed texts.
    """

    def __init__(self, target: Any) -> None:
        attention_register()
        target.set_attn_implementation(ATTENTION)
        self._target = target

    @torch.no_grad()
    def logits(
        self, batch: Batch, *, starts: NDArray[np.int64], tokens_BL: NDArray[np.int64]
    ) -> Tensor:
        """Return the logits after every token of the drafts, [B * L, V] float32, from one forward pass."""
        inputs = _inputs(batch, starts, tokens_BL, self._target.device)
        # Rows of the texts need no logits: their laws are known.
        found: Tensor = self._target(**inputs, logits_to_keep=tokens_BL.size).logits[0]
        return found.float()
