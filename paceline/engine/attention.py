"""Attention over the cache, plugged into unchanged transformers models.

transformers looks the attention of a layer up by name; ours is called "paceline". The model gets the step as an extra
keyword, hands it through to every layer, and the layer's call lands in `Step.attend`, which writes the new keys and
values into the cache and attends over it. Masks are ours too, so transformers is told to make none.

Shape suffixes: R = rows of the step; N = rows of a group; H = query heads; G = key heads; Q = H / G; D = head dim;
K = keys.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface

from paceline.engine.plan import GroupPlan, View
from paceline.errors import ModelError

NAME = "paceline"
STEP_KEYWORD = "paceline_step"
SEGMENT_BLOCK_ROWS = 64
"""Rows whose scores over several segments are held at once: bounds the memory of long prefill chunks."""

_UNSUPPORTED_KEYWORDS = ("s_aux", "sinks", "position_bias", "learnable_sink", "head_mask")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttentionCall:
    """What a layer asks for."""

    layer: int
    scale: float
    window: int | None
    softcap: float | None


class AttentionBackend(Protocol):
    """Computes attention of a step's rows over the cache."""

    def attend(
        self, query_HRD: Tensor, groups: tuple[GroupPlan, ...], call: AttentionCall
    ) -> Tensor:
        """Attention output [R, H, D]; the keys and values of the rows are in the cache already."""
        ...


class LayerStep(Protocol):
    """Receives the attention calls of one forward pass."""

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> Tensor:
        """Attention output [1, R, H, D] for query [1, H, R, D], key and value [1, G, R, D]."""
        ...


class SdpaBackend:
    """PyTorch's own kernels; runs everywhere.

    Text in one piece goes through `scaled_dot_product_attention`. Text in several pieces is attended to piece by piece
    and the results are joined, so that keys and values are never copied together.
    """

    def attend(
        self, query_HRD: Tensor, groups: tuple[GroupPlan, ...], call: AttentionCall
    ) -> Tensor:
        """See the Protocol."""
        num_heads, num_rows, head_dim = query_HRD.shape
        out_RHD = query_HRD.new_empty((num_rows, num_heads, head_dim))
        folded: Tensor | None = None
        for group in groups:
            view = group.view(call.window)
            one_piece = len(view.keys) == 1 and call.softcap is None
            target_NHD = out_RHD[group.start : group.stop]
            if one_piece and not group.folds:
                _attend_rows(query_HRD[:, group.start : group.stop], view, call, target_NHD)
                continue
            if folded is None:
                folded = _fold(query_HRD, group.queries_per_key)
            q = group.queries_per_key
            rows = folded[:, group.start * q : group.stop * q]
            target = target_NHD.view(len(target_NHD), -1, q, head_dim)
            if one_piece:
                keys, values = view.keys[0][call.layer], view.values[0][call.layer]
                out = scaled_dot_product_attention(
                    rows[None],
                    keys[None],
                    values[None],
                    attn_mask=view.folded_masks[0],
                    scale=call.scale,
                )
                target.copy_(out.view(len(keys), -1, q, head_dim).transpose(0, 1))
            elif call.softcap is None and rows.device.type == "cpu":
                _merge_pieces(rows, view, call, target)
            else:
                _attend_pieces(rows, view, call, target)
        return out_RHD


def _fold(query_HRD: Tensor, queries_per_key: int) -> Tensor:
    """Query heads of one key head become rows: [G, R * Q, D], the Q rows of one token next to each other."""
    num_heads, num_rows, head_dim = query_HRD.shape
    num_keys = num_heads // queries_per_key
    by_key = query_HRD.view(num_keys, queries_per_key, num_rows, head_dim)
    return by_key.transpose(1, 2).reshape(num_keys, num_rows * queries_per_key, head_dim)


def _attend_rows(query_HND: Tensor, view: View, call: AttentionCall, target_NHD: Tensor) -> None:
    """Many rows over one piece, heads kept apart."""
    keys, values = view.keys[0][call.layer], view.values[0][call.layer]
    out = scaled_dot_product_attention(
        query_HND[None],
        keys[None],
        values[None],
        attn_mask=view.mask,
        scale=call.scale,
        enable_gqa=len(keys) != len(query_HND),
    )
    target_NHD.copy_(out[0].transpose(0, 1))


def _merge_pieces(rows: Tensor, view: View, call: AttentionCall, target_NGQD: Tensor) -> None:
    """Folded rows [G, N * Q, D] over several pieces: attend to each, then weigh the results by their normalisers.

    The kernel is the one that `scaled_dot_product_attention` takes on a CPU, which does not hand out the normaliser. In
    bfloat16 plain matrix products would be compiled anew for every length of text.
    """
    outs, norms = [], []
    for keys, values, mask in zip(view.keys, view.values, view.folded_masks, strict=True):
        out, norm = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(  # noqa: SLF001 - see above
            rows[None],
            keys[call.layer][None],
            values[call.layer][None],
            attn_mask=mask,
            scale=call.scale,
        )
        if mask is not None:
            # The kernel gives 0, not log 0, to rows that see nothing in this piece.
            norm = norm.masked_fill(torch.isneginf(mask.amax(dim=1)), float("-inf"))
        outs.append(out[0])
        norms.append(norm[0])
    weights = torch.softmax(torch.stack(norms), dim=0)
    merged = torch.stack(outs).float().mul_(weights[..., None]).sum(0)
    num_rows, num_keys, q, head_dim = target_NGQD.shape
    target_NGQD.copy_(merged.view(num_keys, num_rows, q, head_dim).transpose(0, 1))


def _attend_pieces(rows: Tensor, view: View, call: AttentionCall, target_NGQD: Tensor) -> None:
    """Folded rows [G, N * Q, D] over several pieces, or with capped scores."""
    num_rows, num_keys, q, head_dim = target_NGQD.shape
    keys = [piece[call.layer] for piece in view.keys]
    values = [piece[call.layer] for piece in view.values]
    for first in range(0, num_rows, SEGMENT_BLOCK_ROWS):
        last = min(first + SEGMENT_BLOCK_ROWS, num_rows)
        block = rows[:, first * q : last * q]
        scores = torch.cat([torch.bmm(block, key.transpose(1, 2)) for key in keys], dim=-1)
        scores = scores.float() * call.scale
        if call.softcap is not None:
            scores = torch.tanh(scores / call.softcap) * call.softcap
        if view.mask is not None:
            scores.view(num_keys, last - first, q, -1).add_(view.mask[first:last, None])
        probs = torch.softmax(scores, dim=-1).to(rows.dtype)
        parts = torch.split(probs, [key.shape[1] for key in keys], dim=-1)
        out = torch.bmm(parts[0], values[0])
        for part, value in zip(parts[1:], values[1:], strict=True):
            out = torch.baddbmm(out, part, value)
        target_NGQD[first:last] = out.view(num_keys, last - first, q, head_dim).transpose(0, 1)


def _attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """What transformers calls in every layer."""
    step = cast("LayerStep | None", kwargs.get(STEP_KEYWORD))
    layer = module.layer_idx
    if step is None or not isinstance(layer, int):
        raise ModelError(
            f"{type(module).__name__} does not hand keywords through to its attention; this architecture is not "
            "supported"
        )
    if attention_mask is not None:
        raise ModelError(f"{type(module).__name__} makes a mask of its own, which is not supported")
    for keyword in _UNSUPPORTED_KEYWORDS:
        if kwargs.get(keyword) is not None:
            raise ModelError(
                f"{type(module).__name__} needs attention with `{keyword}`, which is not supported"
            )
    scale = kwargs.get("scaling")
    call = AttentionCall(
        layer=layer,
        scale=float(scale) if scale is not None else query.shape[-1] ** -0.5,
        window=kwargs.get("sliding_window"),
        softcap=kwargs.get("softcap"),
    )
    return step.attend(query, key, value, call), None


def _no_mask(*_: Any, **__: Any) -> None:
    """Visibility is the plan's business."""


def register() -> None:
    """Tell transformers about our attention; repeating it changes nothing."""
    AttentionInterface.register(NAME, _attention)
    AttentionMaskInterface.register(NAME, _no_mask)
