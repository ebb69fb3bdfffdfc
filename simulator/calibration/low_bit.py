"""A low-bit copy of a model: the simplest draft that is much like its target.

Weights of the linear layers, but for the output matrix, are rounded to a few bits in groups along each row, with the
least and the largest weight of a group kept (asymmetric round to nearest, as Q4_1 files have it). The arithmetic is not
packed here: the copy guesses like a low-bit model and costs as much as the whole one.
"""

from __future__ import annotations

import re
from typing import Literal

import torch
from torch import Tensor, nn

from paceline.engine.architecture import context_length
from paceline.engine.engine import Engine
from paceline.engine.fingerprint import weights_fingerprint
from paceline.engine.loading import DType, ModelSource, load_weights
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError
from paceline.messages import ModelIdentity

PATTERN = re.compile(r"low-bit:([1-8])/([1-9][0-9]{0,4})")
"""How a user names one: bits and weights per group."""


def rounded(weights: Tensor, *, bits: int, group: int) -> Tensor:
    """Return a matrix [out, in] with every group of `group` weights of a row on 2**bits even steps.

    The last group of a row may be smaller.
    """
    pieces = []
    for piece in torch.split(weights.float(), group, dim=1):
        low, high = piece.amin(1, keepdim=True), piece.amax(1, keepdim=True)
        step = ((high - low) / (2**bits - 1)).clamp(min=1e-12)
        pieces.append(((piece - low) / step).round() * step + low)
    return torch.cat(pieces, dim=1).to(weights.dtype)


def load_low_bit(
    spec: str,
    source: ModelSource,
    *,
    tokenizer: Tokenizer,
    dtype: DType,
    device: Literal["cpu", "cuda"] = "cpu",
) -> Engine:
    """Load a model and round its weights.

    Args:
        spec: "low-bit:4/64" for 4 bits in groups of 64.
        source: the model.
        tokenizer: the model's.
        dtype: arithmetic.
        device: where it runs.

    Raises:
        ConfigError: the spec is not such a text.
        ModelError: the model cannot be loaded.
    """
    match = PATTERN.fullmatch(spec)
    if match is None:
        raise ConfigError(
            f"draft: got {spec!r}, expected low-bit:BITS/GROUP with 1 to 8 bits, low-bit:4/64 for example"
        )
    bits, group = int(match[1]), int(match[2])
    model = load_weights(source, dtype=dtype, device=device)
    head = model.get_output_embeddings()
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.Linear) and module is not head:
                module.weight.copy_(rounded(module.weight, bits=bits, group=group))
    identity = ModelIdentity(
        name=spec,
        weights_fingerprint=weights_fingerprint(model, name=spec),
        dtype=dtype,
        quantisation=f"{bits} bits, groups of {group}",
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocabulary_size=min(tokenizer.vocabulary_size, model.get_input_embeddings().num_embeddings),
        context_length=context_length(model.config),
    )
    return Engine(model, identity=identity)
