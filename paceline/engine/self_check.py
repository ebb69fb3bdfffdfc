"""Proves, when a model is loaded, that the engine computes what the model itself computes.

An architecture can use the common attention interface and still do what the engine cannot know of: mix neighbouring
rows, which are strangers here, attend twice in a layer, or carry something from token to token. Its text would be
wrong without any error, so every model has to show once that it does none of this.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paceline.engine import attention
from paceline.engine.engine import Engine
from paceline.engine.rows import RowGroup
from paceline.engine.source import DType
from paceline.errors import ModelError
from paceline.tokens import TokenId

NUM_TOKENS = 12
NUM_PREFILLED = 8
MAX_DEVIATION = {"float32": 0.01, "bfloat16": 0.3}
"""Root mean square of the differences over the spread of the logits. Rounding makes below 1e-5 in float32 and 0.06 in
bfloat16 (SmolLM2), a missing mask 0.3 to 0.7 (BERT and its kin), two unrelated models 1.4."""


def check_arithmetic(engine: Engine, model: Any, *, name: str) -> None:
    """Compare an engine with the transformers model inside it, which is left as it was; see `check_logits`."""
    expected = plain_logits(model, vocabulary_size=engine.identity.vocabulary_size)
    check_logits(engine, expected, name=f"{name} ({model.config.model_type})")


def plain_logits(model: Any, *, vocabulary_size: int) -> Tensor:
    """Return what one plain forward pass of a transformers model says of the text that is compared."""
    tokens = torch.tensor([_tokens(vocabulary_size)], device=model.device)
    with torch.inference_mode():
        model.set_attn_implementation("eager")
        try:
            logits: Tensor = model(tokens, use_cache=False).logits[0]
        finally:
            model.set_attn_implementation(attention.NAME)
        return logits[NUM_PREFILLED:].float()


def check_logits(
    engine: Engine, expected: Tensor, *, name: str, products: DType | None = None
) -> None:
    """Compare a prefill and a tree, among rows of another sequence, with one plain forward pass.

    Args:
        engine: with nothing in its cache.
        expected: from `plain_logits`.
        name: of the model, for the error.
        products: the type that products are rounded to; None: the engine's own.

    Raises:
        ModelError: they differ by more than rounding can explain.
    """
    tokens = _tokens(engine.identity.vocabulary_size)
    with torch.inference_mode():
        difference = _by_engine(engine, tokens) - expected
        deviation = float(difference.square().mean().sqrt() / expected.std().clamp(min=1e-20))
    # Weights that are not finite are for the sampler to find, which names them.
    if deviation > MAX_DEVIATION[products or engine.identity.dtype]:
        raise ModelError(
            f"{name}: computed row by row its logits differ by {deviation:.2g} of their spread "
            "from its own forward pass; this architecture is not supported"
        )


def _tokens(vocabulary_size: int) -> list[TokenId]:
    return [TokenId((7919 * (i + 1)) % vocabulary_size) for i in range(NUM_TOKENS)]


def _by_engine(engine: Engine, tokens: list[TokenId]) -> torch.Tensor:
    """Return the logits after each token from NUM_PREFILLED on."""
    head, tail = tokens[:NUM_PREFILLED], tokens[NUM_PREFILLED:]
    sequence, other = (
        engine.open(max_length=NUM_TOKENS, max_pending=1 + len(tail)) for _ in range(2)
    )
    try:
        engine.forward([RowGroup(sequence=sequence, tokens=head, logits="none", commit=True)])
        groups = [
            RowGroup(sequence=other, tokens=tail),
            # A sibling that is not on the path comes before the chain.
            RowGroup(
                sequence=sequence,
                tokens=[head[0], *tail],
                parents=(-1, -1, *range(1, len(tail))),
            ),
        ]
        return engine.forward(groups).of(1)[1:]
    finally:
        for item in (sequence, other):
            engine.rollback(item, 0)  # nothing of it stays for others
            engine.close(item)
        engine.reset_counters()
