"""Types of the tensors in a packed draft, and their bytes.

L2 ... L6: levels of 2 to 6 bits with a scale for 32 (`levels`), 2.5 to 6.5 bits a weight. Q4_0, Q5_1 ...: GGUF's types, with
its own reference code. F32: as they are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from gguf import GGMLQuantizationType, quants
from torch import Tensor

from edge.distillation.levels import BITS, can_round, codes_from, codes_of, planes_of, values_of
from paceline.errors import ConfigError

PLAIN = "F32"
_LEVELS = {f"L{bits}": bits for bits in BITS}
_SCALES = ".scales"


@dataclass(frozen=True, slots=True, kw_only=True)
class Levels:
    """A matrix as codes and scales; shapes as in `levels`."""

    codes: Tensor
    scales: Tensor
    bits: int


def stored(name: str, value: Tensor, kind: str) -> tuple[dict[str, Tensor], str]:
    """Return the tensors that hold a value, and the type that they have: what is no matrix of whole groups stays as it is.

    Raises:
        ConfigError: no such type, or one that GGUF's reference code cannot write.
    """
    if not can_round(value):
        return {name: value.float().contiguous()}, PLAIN
    bits = _LEVELS.get(kind)
    if bits is not None:
        codes, scales = codes_of(value.float(), bits=bits)
        return {name: planes_of(codes, bits=bits), name + _SCALES: scales}, kind
    try:
        packed = quants.quantize(value.float().numpy(), GGMLQuantizationType[kind])
    except (KeyError, NotImplementedError) as error:
        raise ConfigError(f"type: got {kind}, which cannot be written: {error}") from error
    return {name: torch.from_numpy(np.ascontiguousarray(packed))}, kind


def levels_in(tensors: Mapping[str, Tensor], name: str, kind: str) -> Levels | None:
    """Return a value's codes and scales, or None if its type has none."""
    bits = _LEVELS.get(kind)
    if bits is None:
        return None
    scales = tensors[name + _SCALES]
    codes = codes_from(tensors[name], width=scales.shape[1] * 32)
    return Levels(codes=codes, scales=scales, bits=bits)


def value_in(tensors: Mapping[str, Tensor], name: str, kind: str) -> Tensor:
    """Return a value in float32."""
    if kind == PLAIN:
        return tensors[name]
    found = levels_in(tensors, name, kind)
    if found is not None:
        return values_of(found.codes, found.scales, bits=found.bits)
    return torch.from_numpy(quants.dequantize(tensors[name].numpy(), GGMLQuantizationType[kind]))
