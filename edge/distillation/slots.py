"""Keys and values of many conversations in step: one buffer, one slot each, one attention call for many slots.

No text shares a prefix here and none is rolled back, so all slots can be attended to at once, which several cores or an
accelerator can use; on one core the engine's packed rows are as fast (SmolLM2, 96 texts, bfloat16: 0.31 s a step against
0.29 s, the output matrix in float32 included here only).

Shape suffixes: R = rows; S = slots of a group; H = query heads; G = key heads; Q = H / G; D = head dim; L = slot length.
"""

# ruff: noqa: N803, N806 - tensors carry shape suffixes
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention

from paceline.engine.attention import STEP_KEYWORD, AttentionCall
from paceline.engine.probe import probe

GROUP = 16
"""Slots that are attended to together on a CPU; each group reads as far as its longest text. Elsewhere a few kernels for
all slots are faster than many for some."""


ROWS_MULTIPLE = 32
"""Steps are filled up to a multiple of so many rows: kernels are compiled, and their memory kept, for every count."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """The next tokens of one slot, all of which run in this step."""

    slot: int
    start: int
    """Position of the first."""
    tokens: Sequence[int]


class Slots:
    """A target and its slots.

    Args:
        model: a transformers model with our attention, in evaluation mode.
        num_slots: conversations at once.
        length: most tokens of one.
    """

    def __init__(self, model: Any, *, num_slots: int, length: int) -> None:
        self._model = model
        layout, self._queries_per_key = probe(model)
        self._device = layout.device
        shape = (layout.num_layers, 2, num_slots, layout.num_kv_heads, length, layout.head_dim)
        self._group_size = GROUP if layout.device.type == "cpu" else num_slots
        # Zeros: what no text has written is masked, but a NaN would get through the mask.
        self._buffer = torch.zeros(shape, dtype=layout.dtype, device=layout.device)
        head = model.get_output_embeddings()
        model.set_output_embeddings(PreciseHead(head))

    @torch.inference_mode()
    def run(self, feeds: Sequence[Feed]) -> Tensor:
        """Run rows; return the logits after each in order of the feeds, [R, V] in float32."""
        tokens = [token for feed in feeds for token in feed.tokens]
        positions = [feed.start + i for feed in feeds for i in range(len(feed.tokens))]
        num_rows = len(tokens)
        filling = [0] * (-num_rows % ROWS_MULTIPLE)
        rows = torch.tensor([tokens + filling, positions + filling], device=self._device)
        step = _Step(
            self._buffer, feeds, queries_per_key=self._queries_per_key, group_size=self._group_size
        )
        inputs = {"input_ids": rows[:1], "position_ids": rows[1:], "use_cache": False}
        inputs[STEP_KEYWORD] = step
        logits: Tensor = self._model(**inputs).logits[0, :num_rows]
        return logits.float()


class PreciseHead(torch.nn.Module):
    """The output matrix in float32: bfloat16 would round log-probabilities to steps of 0.06 and more."""

    def __init__(self, head: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(head.weight.float(), requires_grad=False)
        self.bias = None
        if getattr(head, "bias", None) is not None:
            self.bias = torch.nn.Parameter(head.bias.float(), requires_grad=False)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits in float32."""
        return linear(hidden.float(), self.weight, self.bias)


class _Step:
    """One forward pass, as the attention of every layer sees it."""

    def __init__(
        self, buffer: Tensor, feeds: Sequence[Feed], *, queries_per_key: int, group_size: int
    ) -> None:
        self._buffer = buffer
        self._group_size = group_size
        self._queries_per_key = queries_per_key
        device = buffer.device
        slots = [feed.slot for feed in feeds for _ in feed.tokens]
        positions = [feed.start + i for feed in feeds for i in range(len(feed.tokens))]
        self._slots = torch.tensor(slots, device=device)
        self._positions = torch.tensor(positions, device=device)
        self._singles: dict[int, list[tuple[int, Feed]]] = {}
        """By group: row and feed of the slots that run one token."""
        self._pieces: list[tuple[int, Feed]] = []
        row = 0
        for feed in feeds:
            if len(feed.tokens) == 1:
                self._singles.setdefault(feed.slot // group_size, []).append((row, feed))
            else:
                self._pieces.append((row, feed))
            row += len(feed.tokens)
        self._masks: dict[tuple[str, int, int | None], Tensor] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> Tensor:
        """Write the rows' keys and values of one layer, then attend; see `LayerStep`."""
        keys_SGLD, values_SGLD = self._buffer[call.layer]
        end = len(self._slots)
        keys_SGLD[self._slots, :, self._positions] = key[0, :, :end].transpose(0, 1)
        values_SGLD[self._slots, :, self._positions] = value[0, :, :end].transpose(0, 1)
        _, num_heads, num_rows, head_dim = query.shape
        query_RHD = query[0].transpose(0, 1)
        out_RHD = query_RHD.new_zeros((num_rows, num_heads, head_dim))
        for group, members in self._singles.items():
            rows = [row for row, _ in members]
            out = self._attend_group(query_RHD[rows], group, call)
            out_RHD[rows] = out.reshape(len(rows), num_heads, head_dim)
        for row, feed in self._pieces:
            stop = row + len(feed.tokens)
            out_RHD[row:stop] = self._attend_piece(query_RHD[row:stop], row, feed, call)
        return out_RHD.view(1, num_rows, num_heads, head_dim)

    def _attend_group(self, query_RHD: Tensor, group: int, call: AttentionCall) -> Tensor:
        """One row for each of some slots; the others of the group are computed for nothing."""
        members = self._singles[group]
        first = group * self._group_size
        num_slots = min(self._group_size, self._buffer.shape[2] - first)
        end = 1 + max(feed.start for _, feed in members)
        keys, values = self._buffer[call.layer][:, first : first + num_slots, :, :end]
        places = [feed.slot - first for _, feed in members]
        q = self._queries_per_key
        query_SGQD = query_RHD.new_zeros((num_slots, keys.shape[1], q, query_RHD.shape[-1]))
        query_SGQD[places] = query_RHD.view(len(members), -1, q, query_RHD.shape[-1])
        mask = self._group_mask(group, end, call.window)
        out = _attention(query_SGQD, keys, values, mask, call)
        return out[places]

    def _attend_piece(self, query_NHD: Tensor, row: int, feed: Feed, call: AttentionCall) -> Tensor:
        """Several rows of one slot."""
        end = feed.start + len(feed.tokens)
        keys, values = self._buffer[call.layer][:, feed.slot : feed.slot + 1, :, :end]
        q = self._queries_per_key
        keys, values = (part.repeat_interleave(q, dim=1) for part in (keys, values))
        mask = self._piece_mask(row, feed, call.window)
        out = _attention(query_NHD.transpose(0, 1)[None], keys, values, mask, call)
        return out[0].transpose(0, 1)

    def _group_mask(self, group: int, end: int, window: int | None) -> Tensor:
        name = ("group", group, window)
        if name not in self._masks:
            members = self._singles[group]
            first = group * self._group_size
            num_slots = min(self._group_size, self._buffer.shape[2] - first)
            last = torch.zeros(num_slots, dtype=torch.long)
            for _, feed in members:
                last[feed.slot - first] = feed.start
            mask = self._mask(last, end, window)[:, None, None]
            self._masks[name] = mask.expand(num_slots, 1, self._queries_per_key, end)
        return self._masks[name]

    def _piece_mask(self, row: int, feed: Feed, window: int | None) -> Tensor:
        name = ("piece", row, window)
        if name not in self._masks:
            end = feed.start + len(feed.tokens)
            self._masks[name] = self._mask(torch.arange(feed.start, end), end, window)[None, None]
        return self._masks[name]

    def _mask(self, last: Tensor, end: int, window: int | None) -> Tensor:
        """Rows that see up to position `last`, over `end` keys: 0 where seen, -inf elsewhere."""
        distance = last[:, None] - torch.arange(end)
        hidden = distance < 0
        if window is not None:
            hidden |= distance >= window
        mask = torch.zeros(hidden.shape, dtype=self._buffer.dtype).masked_fill_(
            hidden, float("-inf")
        )
        return mask.to(self._buffer.device)


def _attention(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor, call: AttentionCall
) -> Tensor:
    if call.softcap is None:
        return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=call.scale)
    scores = torch.matmul(query, keys.transpose(-1, -2)).float() * call.scale
    scores = torch.tanh(scores / call.softcap) * call.softcap + mask.float()
    return torch.matmul(torch.softmax(scores, dim=-1).to(values.dtype), values)
