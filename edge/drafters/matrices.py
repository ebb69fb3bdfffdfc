"""Products with a matrix whose weights have 4 bits at most: a drafter's few rows are paid by the bytes that are read.

Few rows go through PyTorch's own kernel for 4-bit weights; many rows, whose products are bound by arithmetic, through the same weights
in bfloat16. One row through the four matrices of a SmolLM2 layer takes a tenth of the time that bfloat16 takes on one core
with AVX-512.

Shape suffixes: R = rows; N = outputs; K = inputs; G = groups of inputs that share a scale; V = vocabulary.
"""

# ruff: noqa: N803, N806 - tensors carry shape suffixes
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from edge.distillation.levels import GROUP, values_of
from edge.distillation.packed_types import Levels

FEW_ROWS = 12
"""Up to so many rows the 4-bit kernel is faster."""
_OUTPUT_BLOCK = 16
_KERNEL_BITS = 4
_FAST = ("AVX2", "AVX512")
"""Elsewhere the kernel is slower than a whole matrix."""


def can_multiply(levels: Sequence[Levels]) -> bool:
    """Return whether the kernel takes these matrices, one below another, and is fast here."""
    return torch.backends.cpu.get_cpu_capability() in _FAST and all(
        part.bits <= _KERNEL_BITS and len(part.codes) % _OUTPUT_BLOCK == 0 for part in levels
    )


class LowBitMatrix(nn.Module):
    """A product without bias. What comes in and goes out is bfloat16. See `can_multiply`.

    Args:
        parts: matrices, one below another.
        order: puts the rows of all of them in another order.
    """

    _packed: Tensor
    _scales: Tensor

    def __init__(self, parts: Sequence[Levels], order: Tensor | None = None) -> None:
        super().__init__()
        rows = slice(None) if order is None else order
        values = [values_of(part.codes, part.scales, bits=part.bits) for part in parts]
        self.weight = nn.Parameter(torch.cat(values)[rows].bfloat16(), requires_grad=False)
        # The kernel computes (code - 8) * scale + zero; a level is (code - (2**bits - 1) / 2) * scale.
        codes_NK = torch.cat([part.codes.int() + 8 - 2 ** (part.bits - 1) for part in parts])[rows]
        packed = torch._convert_weight_to_int4pack_for_cpu(codes_NK.contiguous(), 1)  # noqa: SLF001 - has no other name
        scales_GN = torch.cat([part.scales for part in parts])[rows].T.bfloat16()
        pairs = torch.stack((scales_GN, scales_GN / 2), dim=-1).contiguous()
        self.register_buffer("_packed", packed, persistent=False)
        self.register_buffer("_scales", pairs, persistent=False)
        # To find a tensor in a module takes longer than some operations.
        self._arguments = packed, GROUP, pairs

    def forward(self, rows_RK: Tensor) -> Tensor:
        """Return [R, N]."""
        if rows_RK.shape[0] > FEW_ROWS:
            return linear(rows_RK, self.weight)
        product: Tensor = torch._weight_int4pack_mm_for_cpu(  # noqa: SLF001 - has no other name
            rows_RK.contiguous(), *self._arguments
        )
        return product
