"""Weights on a few levels: 2 to 6 bits each, in groups of 32 that share a scale.

A weight is (code - middle) * scale with codes 0 to 2**bits - 1 and middle = (2**bits - 1) / 2: as many levels below zero as above.
The scale is a bfloat16 number that float16 can hold too, so that whoever multiplies with the packed weights uses the same. Codes are
stored as planes of bits, so any number of bits takes what it says.

Shape suffixes: N = rows; K = columns; G = groups of a row.
"""

# ruff: noqa: N803 - tensors carry shape suffixes
from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

GROUP = 32
BITS = range(2, 7)
READ_BITS = 3
"""For embeddings that are only read, not said: they are rare, and two thirds of all."""
_SHRINKS = (1.0, 0.92, 0.8)
_SHRINKS_OF_FOUR = (1.0, 0.85, 0.72)
"""Shares of the largest weight that the outermost level may stand at; the best for each group is taken. Few levels like it nearer."""
_BLOCK_ROWS = 128
"""Rows that are rounded at once, so that they stay in the processor's cache."""
_LEAST_SCALE = 2.0**-14
"""The smallest number that float16 holds with all its digits."""


def can_round(weights: Tensor) -> bool:
    """Return whether a tensor is a matrix whose rows are whole groups."""
    is_whole: bool = weights.dim() == 2 and weights.shape[1] % GROUP == 0
    return is_whole


def codes_of(weights_NK: Tensor, *, bits: int) -> tuple[Tensor, Tensor]:
    """Return codes [N, K] uint8 and scales [N, G] bfloat16 with the least square error among some scales.

    Raises:
        ValueError: K is no multiple of GROUP.
    """
    rows, width = weights_NK.shape
    if width % GROUP:
        raise ValueError(f"columns: got {width}, expected a multiple of {GROUP}")
    groups = weights_NK.float().view(rows, -1, GROUP)
    outermost = groups.abs().amax(dim=-1, keepdim=True)
    highest = 2**bits - 1
    best_codes, best_scales, best_error = None, None, None
    for shrink in _SHRINKS if bits > BITS[0] else _SHRINKS_OF_FOUR:
        scales = (shrink * 2 / highest) * outermost
        scales = scales.clamp(min=_LEAST_SCALE).bfloat16().float()
        codes = (groups / scales + highest / 2).round_().clamp_(0, highest)
        error = ((codes - highest / 2) * scales - groups).square().sum(-1, keepdim=True)
        if best_codes is None or best_scales is None or best_error is None:
            best_codes, best_scales, best_error = codes, scales, error
            continue
        better = error < best_error
        best_codes = torch.where(better, codes, best_codes)
        best_scales = torch.where(better, scales, best_scales)
        best_error = torch.where(better, error, best_error)
    assert best_codes is not None
    assert best_scales is not None
    return best_codes.view(rows, width).to(torch.uint8), best_scales[..., 0].bfloat16()


def values_of(codes_NK: Tensor, scales_NG: Tensor, *, bits: int) -> Tensor:
    """Return the weights that codes and scales stand for, [N, K] float32."""
    rows, width = codes_NK.shape
    groups = codes_NK.view(rows, -1, GROUP).float() - ((1 << bits) - 1) / 2
    return (groups * scales_NG.float()[..., None]).view(rows, width)


def rounded(weights_NK: Tensor, *, bits: int) -> Tensor:
    """Return the nearest weights that have such levels, in float32."""
    result = torch.empty(weights_NK.shape, dtype=torch.float32, device=weights_NK.device)
    for start in range(0, len(weights_NK), _BLOCK_ROWS):
        rows = slice(start, start + _BLOCK_ROWS)
        codes, scales = codes_of(weights_NK[rows], bits=bits)
        result[rows] = values_of(codes, scales, bits=bits)
    return result


@contextmanager
def rounded_weights(weights: Sequence[nn.Parameter], *, bits: int | None) -> Iterator[None]:
    """Round those that can be for as long as the block runs, then put them back. None: leave them exact."""
    exact: list[tuple[nn.Parameter, Tensor]] = []
    try:
        for value in weights if bits is not None else ():
            if can_round(value):
                exact.append((value, value.data))
                value.data = rounded(value.data, bits=bits or 0)
        yield
    finally:
        for value, data in exact:
            value.data = data


def planes_of(codes_NK: Tensor, *, bits: int) -> Tensor:
    """Return codes as planes of bits, [bits, N * K / 8] uint8, the lowest bit first."""
    places = 2 ** torch.arange(8, dtype=torch.uint8)
    flat = codes_NK.reshape(-1, 8)
    planes = [((flat >> bit & 1) * places).sum(1, dtype=torch.uint8) for bit in range(bits)]
    return torch.stack(planes)


def codes_from(planes: Tensor, *, width: int) -> Tensor:
    """Return codes [N, K] uint8 for the planes that `planes_of` made."""
    shifts = torch.arange(8, dtype=torch.uint8)
    codes = torch.zeros(planes.shape[1], 8, dtype=torch.uint8)
    for bit, plane in enumerate(planes):
        codes |= (plane[:, None] >> shifts & 1) << bit
    return codes.view(-1, width)
