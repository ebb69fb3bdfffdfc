"""An output matrix for some tokens of the vocabulary: most of a small draft's time goes into the whole one.

Shape suffixes: W = tokens it knows; V = vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from paceline.engine.rows import SomeTokens


class PartialHead(nn.Module):
    """Computes logits of some tokens.

    Args:
        ids_W: the tokens, ascending.
        product: gives their logits [..., W] for hidden states.
        vocabulary_size: V, of the model.
    """

    _ids: Tensor

    def __init__(self, ids_W: Tensor, product: nn.Module, *, vocabulary_size: int) -> None:
        super().__init__()
        self.product = product
        self.register_buffer("_ids", ids_W, persistent=False)
        self._vocabulary_size = vocabulary_size

    @property
    def tokens(self) -> SomeTokens:
        """The tokens."""
        return SomeTokens(ids=self._ids, vocabulary_size=self._vocabulary_size)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return logits [..., W] for hidden states [..., H]."""
        logits: Tensor = self.product(hidden)
        return logits


def limited(head: nn.Module, ids_W: Tensor, rows_WH: Tensor) -> PartialHead:
    """Return a partial head in place of a whole one, on its device and of its type.

    Raises:
        ValueError: ids are not different tokens of the vocabulary, or rows do not fit them or the model.
    """
    weight: Tensor = head.weight  # type: ignore[assignment]  # a linear layer
    vocabulary_size, width = weight.shape
    ids_W, order_W = ids_W.sort()
    ids = ids_W.tolist()
    if len(set(ids)) != len(ids) or not all(0 <= token < vocabulary_size for token in ids):
        raise ValueError(f"ids: expected different tokens below {vocabulary_size}")
    if rows_WH.shape != (len(ids), width):
        raise ValueError(f"rows: got shape {tuple(rows_WH.shape)}, expected {(len(ids), width)}")
    rows = rows_WH[order_W.to(rows_WH.device)].to(
        device=weight.device, dtype=weight.dtype, copy=True
    )
    product = nn.Linear(width, len(ids), bias=False, device="meta")
    product.weight = nn.Parameter(rows, requires_grad=False)
    places = ids_W.to(weight.device, torch.long)
    return PartialHead(places, product, vocabulary_size=vocabulary_size)
