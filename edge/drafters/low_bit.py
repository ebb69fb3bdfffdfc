"""A low-bit copy of the target: the draft that is most like it, for an edge that can hold its weights.

Weights of the linear layers, but for the output matrix, are rounded to a few bits in groups along each row, with the
least and the largest weight of a group kept (asymmetric round to nearest, as Q4_1 files have it). Four bits in groups of
32, 64, 128 or 256 are kept packed on a CPU and multiplied as they are (PyTorch's kernel, in bfloat16); all others are
unpacked again, guess like a low-bit model and cost as much as the whole one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from edge.draft_spec import LOW_BIT, LowBit
from edge.drafters.target_copy import Change
from paceline.engine.huge_pages import HugePages
from paceline.engine.lean import LeanModel, is_lean
from paceline.engine.lean_form import lean_form

_PACKED_BITS = 4
_PACKED_GROUPS = (32, 64, 128, 256)
_PACKED_ROWS = 16
"""The kernel's blocks: a matrix has a multiple of so many rows."""
_FAST = ("AVX2", "AVX512")
"""Elsewhere the kernel is slower than a whole matrix."""


def low_bit_copy(spec: LowBit) -> Change:
    """Return what makes a target such a copy."""
    may_be_packed = spec.bits == _PACKED_BITS and spec.group in _PACKED_GROUPS
    return Change(
        name=f"{LOW_BIT}{spec.bits}/{spec.group}",
        apply=partial(_round, spec),
        quantisation=f"{spec.bits} bits, groups of {spec.group}",
        lean=_lean,
        products="bfloat16" if may_be_packed else None,
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
            codes = Codes.of(child.weight, group=spec.group)
            bias = None if child.bias is None else child.bias.detach()
            setattr(parent, name, PackedLinear(codes, bias=bias))
        else:
            child.weight.copy_(rounded(child.weight, bits=spec.bits, group=spec.group))


def _lean(model: Any) -> LeanModel | None:
    """Return the lean form of a copy, with its packed matrices joined where they take the same rows; None where it has none."""
    packed = {name: part for name, part in model.named_modules() if isinstance(part, PackedLinear)}
    if not packed:
        return lean_form(model)
    whole = [
        part
        for part in model.modules()
        if isinstance(part, nn.Linear) and part is not model.get_output_embeddings()
    ]
    try:
        if whole or not is_lean(model.config) or any(part.has_bias for part in packed.values()):
            return None
        pages = HugePages()
        head = model.get_output_embeddings()
        head.weight.data = pages.place(head.weight.data)

        def make(names: Sequence[str], order: Tensor | None) -> PackedLinear:
            parts = [packed[name.removesuffix(".weight")].unpacked for name in names]
            for name in names:  # a large model is not in memory twice
                packed[name.removesuffix(".weight")].forget()
            return PackedLinear(joined(parts, order), place=pages.place)

        return LeanModel(model, make=make)
    finally:
        for part in packed.values():
            part.forget()


@dataclass(frozen=True, slots=True, kw_only=True)
class Codes:
    """A matrix [out, in] on 2**4 even steps for each group of a row."""

    codes: Tensor
    """uint8 [out, in]."""
    low: Tensor
    """The least weight of each group: [out, groups]."""
    step: Tensor
    """[out, groups]."""

    @classmethod
    def of(cls, weights: Tensor, *, group: int) -> Codes:
        """Round a matrix whose width is whole groups."""
        rows, width = weights.shape
        grouped = weights.float().view(rows, width // group, group)
        codes, low, step = _codes(grouped, bits=_PACKED_BITS)
        return cls(codes=codes.byte().view(rows, width), low=low[:, :, 0], step=step[:, :, 0])


def joined(parts: Sequence[Codes], order: Tensor | None) -> Codes:
    """Return matrices one below another, their rows in another order if one is given."""
    rows = slice(None) if order is None else order
    return Codes(
        codes=torch.cat([part.codes for part in parts])[rows],
        low=torch.cat([part.low for part in parts])[rows],
        step=torch.cat([part.step for part in parts])[rows],
    )


class PackedLinear(nn.Module):
    """A product with weights of 4 bits, for whose shape `can_pack` holds.

    Args:
        codes: the weights.
        bias: [out], or None.
        place: puts a tensor where it is read fast.
    """

    _packed: Tensor
    _scales: Tensor
    _bias: Tensor | None

    def __init__(
        self,
        codes: Codes,
        *,
        bias: Tensor | None = None,
        place: Callable[[Tensor], Tensor] = Tensor.contiguous,
    ) -> None:
        super().__init__()
        self._codes: Codes | None = codes
        self._rows, width = codes.codes.shape
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(  # noqa: SLF001 - has no other name
            codes.codes.int(), 1
        )
        # The kernel counts codes from the middle: weight = (code - 8) * scale + zero.
        zero = codes.low + 2 ** (_PACKED_BITS - 1) * codes.step
        scales = torch.stack([codes.step, zero], dim=2).transpose(0, 1).contiguous().bfloat16()
        self.register_buffer("_packed", place(packed))
        self.register_buffer("_scales", place(scales))
        self.register_buffer("_bias", bias)
        # To find a tensor in a module takes longer than some operations.
        self._arguments = self._packed, width // codes.step.shape[1], self._scales

    @property
    def has_bias(self) -> bool:
        """Whether something is added to the product."""
        return self._bias is not None

    @property
    def unpacked(self) -> Codes:
        """The weights, until `forget`."""
        assert self._codes is not None
        return self._codes

    def forget(self) -> None:
        """Keep the weights only as they are multiplied."""
        self._codes = None

    def forward(self, hidden: Tensor) -> Tensor:
        """Return [..., out] for [..., in]; the product is in bfloat16."""
        flat = hidden.reshape(-1, hidden.shape[-1]).bfloat16()
        out: Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(  # noqa: SLF001 - has no other name
            flat, *self._arguments
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
