"""Brings a loaded model into its lean form, on the same weights.

Products that take the same rows become one, and weights move to huge pages where the system has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paceline.engine.huge_pages import HugePages
from paceline.engine.lean import LeanModel, is_lean


def lean_form(model: Any) -> LeanModel | None:
    """Return the lean form of a transformers model, whose own weights are gone then; None where it has none.

    Args:
        model: in evaluation mode, with our attention, on any device.
    """
    layers = {name: value for name, value in model.named_parameters() if ".layers." in name}
    device = model.get_input_embeddings().weight.device
    if device.type != "cpu" or not is_lean(model.config) or not _is_plain(model):
        return None

    def make(names: Sequence[str], order: Tensor | None) -> nn.Module:
        joined = torch.cat([layers[name].detach() for name in names])
        for name in names:  # a large model is not in memory twice
            layers[name].data = joined.new_empty(0)
        return _product(pages.place(joined if order is None else joined[order]))

    pages = HugePages()
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    is_tied = head.weight is embeddings.weight
    output = _product(pages.place(head.weight.detach()))
    if is_tied:
        embeddings.weight = output.weight
    return LeanModel(model, make=make, head=output)


def _is_plain(model: Any) -> bool:
    """Return whether all products are of whole matrices, without biases."""
    products = [part for part in model.modules() if getattr(part, "weight", None) is not None]
    matrices = [part for part in products if part.weight.dim() == 2]
    return all(
        type(part) is nn.Embedding or (type(part) is nn.Linear and part.bias is None)
        for part in matrices
    )


def _product(weight: Tensor) -> nn.Linear:
    rows, width = weight.shape
    product = nn.Linear(width, rows, bias=False, device="meta")
    product.weight = nn.Parameter(weight, requires_grad=False)
    return product
