"""A low-bit copy of the target: the draft that is most like it, for an edge that can hold its weights.

Weights of the linear layers, but for the output matrix, are rounded to a few bits in groups along each row, with the
least and the largest weight of a group kept (asymmetric round to nearest, as Q4_1 files have it). Four bits in groups of
32, 64, 128 or 256 are kept packed on a CPU and multiplied as they are (PyTorch's kernel, in bfloat16); all others are
unpacked again, guess like a low-bit model and cost as much as the whole one.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edge.draft_spec import LOW_BIT, LowBit
from edge.drafters.target_copy import Change

_PACKED_BITS = 4
_PACKED_GROUPS = (32, 64, 128, 256)
_PACKED_ROWS = 16
"""The kernel's blocks: a matrix has a multiple of so many rows."""
_FAST = ("AVX2", "AVX512")
"""Elsewhere the kernel is slower than a whole matrix."""


def low_bit_copy(spec: LowBit) -> Change:
    """Return what makes a target such a copy."""
    return Change(
        name=f"{LOW_BIT}{spec.bits}/{spec.group}",
        apply=partial(_round, spec),
        quantisation=f"{spec.bits} bits, groups of {spec.group}",
    )


def can_pack(spec: LowBit, weights: Tensor) -> bool:
    """Return whether a matrix [out, in] can stay packed and be fast."""
    rows, width = weights.shape
    return (
        spec.bits == _PACKED_BITS
        and spec.group in _PACKED_GROUPS
        and width % spec.group == 0
        and rows % _PACKED_ROWS == 0
        and weights.device.type == "cpu"
        and torch.backends.cpu.get_cpu_capability() in _FAST
    )


def _round(spec: LowBit, model: Any) -> None:
    head = model.get_output_embeddings()
    layers = [
        (parent, name, child)
        for parent in model.modules()
        for name, child in parent.named_children()
        if isinstance(child, nn.Linear) and child is not head
    ]
    for parent, name, child in layers:
        if can_pack(spec, child.weight):
            setattr(parent, name, PackedLinear(child, group=spec.group))
        else:
            child.weight.copy_(rounded(child.weight, bits=spec.bits, group=spec.group))


class PackedLinear(nn.Module):
    """A linear layer with weights of 4 bits.

    Args:
        whole: the layer it stands for; see `can_pack`.
        group: weights that share a scale.
    """

    _packed: Tensor
    _scales: Tensor
    _bias: Tensor | None

    def __init__(self, whole: nn.Linear, *, group: int) -> None:
        super().__init__()
        rows, width = whole.weight.shape
        grouped = whole.weight.float().view(rows, width // group, group)
        codes, low, step = _codes(grouped, bits=_PACKED_BITS)
        self._group = group
        self._rows = rows
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(  # noqa: SLF001 - has no other name
            codes.int().view(rows, width), 1
        )
        # The kernel counts codes from the middle: weight = (code - 8) * scale + zero.
        zero = low + 2 ** (_PACKED_BITS - 1) * step
        scales = torch.cat([step, zero], dim=2).transpose(0, 1).contiguous().bfloat16()
        self.register_buffer("_packed", packed)
        self.register_buffer("_scales", scales)
        self.register_buffer("_bias", None if whole.bias is None else whole.bias.detach())

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [..., out] for [..., in]; the product is in bfloat16."""
        flat = hidden.reshape(-1, hidden.shape[-1]).bfloat16()
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(  # noqa: SLF001 - has no other name
            flat, self._packed, self._group, self._scales
        )
        out = out.to(hidden.dtype).view(*hidden.shape[:-1], self._rows)
        return out if self._bias is None else out + self._bias


def rounded(weights: Tensor, *, bits: int, group: int) -> Tensor:
    """Return a matrix [out, in] with every group of `group` weights of a row on 2**bits even steps.

    The last group of a row may be smaller.
    """
    pieces = []
    for piece in torch.split(weights.float(), group, dim=1):
        codes, low, step = _codes(piece, bits=bits)
        pieces.append(codes * step + low)
    return torch.cat(pieces, dim=1).to(weights.dtype)


def _codes(weights: Tensor, *, bits: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return the codes from 0 to 2**bits - 1 of each group (the last dimension), its least weight and its step."""
    low, high = weights.amin(-1, keepdim=True), weights.amax(-1, keepdim=True)
    step = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
    return ((weights - low) / step).round(), low, step
