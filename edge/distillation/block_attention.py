"""Attention of mask slots: what stands behind packed texts and guesses several positions at once.

    rows    [ text 0 | text 1 | ... | padding ][ block 0: slots 1 ... n ][ block 1: slots 1 ... n ] ...

A block follows one token of a text. Its slot k sees that text up to this token, and slots 1 to k of its own block; no token
sees a slot, and no slot another block. So tokens compute what they would without slots.

Shape suffixes: H = heads; T = tokens of the packed texts; D = head dim; S = slots of some blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

KEYWORD = "paceline_blocks"
"""Under this name a `Blocks` travels through transformers to the attention of every layer."""
PIECE_ROWS = 256
"""Slots attended to at once: what lies behind the last of them in the text is left out, and so are the other blocks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """Where blocks are."""

    starts: NDArray[np.int64]
    """[blocks] ascending; the row of the token that each follows."""
    num_slots: int
    """Of every block."""

    @property
    def num_rows(self) -> int:
        """Slots of all blocks."""
        return len(self.starts) * self.num_slots

    def target_rows(self) -> NDArray[np.int64]:
        """Return for each slot the row of the token with whose law it is compared, [rows]: its own place in the text."""
        return (self.starts[:, None] + np.arange(1, self.num_slots + 1)).ravel()


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """How scores are made."""

    scale: float
    window: int | None
    softcap: float | None


def attend_blocks(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    lengths: Sequence[int],
    blocks: Blocks,
    scores: Scores,
) -> Tensor:
    """Return what the slots see, [1, H, slots, D].

    Args:
        query: [1, H, T + slots, D].
        key: of the same shape.
        value: of the same shape.
        lengths: of the packed texts.
        blocks: behind them.
        scores: see there.
    """
    ends = np.cumsum(lengths)
    cuts = np.searchsorted(blocks.starts, ends)
    size = max(1, PIECE_ROWS // blocks.num_slots)
    begins = ends - np.asarray(lengths)
    groups: list[tuple[int, NDArray[np.int64]]] = []
    first = 0
    for text, last in enumerate(cuts.tolist()):
        for low in range(first, last, size):
            starts = blocks.starts[low : min(low + size, last)] - begins[text]
            groups.append((text, starts))
        first = last
    # Split at once: slice by slice, each gradient would be as large as the whole batch.
    sizes = [*lengths, *(len(starts) * blocks.num_slots for _, starts in groups)]
    queries, keys, values = (torch.split(part, sizes, dim=2) for part in (query, key, value))
    pieces = []
    for number, (text, starts) in enumerate(groups, start=len(lengths)):
        length = int(starts[-1]) + 1
        near_keys, near_values = (
            torch.cat((part[text][:, :, :length], part[number]), dim=2) for part in (keys, values)
        )
        places = torch.from_numpy(starts).to(query.device)
        distance = _distances(places, num_slots=blocks.num_slots, length=length)
        pieces.append(_attend(queries[number], near_keys, near_values, distance, scores))
    return torch.cat(pieces, dim=2)


def _distances(starts: Tensor, *, num_slots: int, length: int) -> Tensor:
    """Return how far each key lies before each slot of some blocks, [S, length + S]; negative: it is not seen."""
    device = starts.device
    number = torch.arange(1, num_slots + 1, device=device).repeat(len(starts))
    block = torch.arange(len(starts), device=device).repeat_interleave(num_slots)
    start = starts.repeat_interleave(num_slots)
    place = torch.arange(length, device=device)
    to_text = torch.where(
        place[None] <= start[:, None], (start + number)[:, None] - place[None], -1
    )
    to_slots = torch.where(block[:, None] == block[None], number[:, None] - number[None], -1)
    return torch.cat((to_text, to_slots), dim=1)


def _attend(query: Tensor, key: Tensor, value: Tensor, distance: Tensor, scores: Scores) -> Tensor:
    visible = distance >= 0
    if scores.window is not None:
        visible &= distance < scores.window
    if scores.softcap is None:
        return scaled_dot_product_attention(
            query, key, value, attn_mask=visible, scale=scores.scale
        )
    raw = torch.matmul(query, key.transpose(-1, -2)).float() * scores.scale
    capped = torch.tanh(raw / scores.softcap) * scores.softcap
    shares = torch.softmax(capped.masked_fill(~visible, float("-inf")), dim=-1)
    return torch.matmul(shares.to(value.dtype), value)
