"""Finds out what a model caches by running one token through it and watching its layers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from paceline.engine.attention import STEP_KEYWORD, AttentionCall
from paceline.engine.layout import KVLayout
from paceline.errors import ModelError


class _Probe:
    """Answers attention calls of a single row, whose attention is its own value, and notes the shapes."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.shapes: dict[int, tuple[int, int, int]] = {}
        self.windows: dict[int, int | None] = {}

    def attend(self, query: Tensor, key: Tensor, value: Tensor, call: AttentionCall) -> Tensor:
        if call.layer in self.shapes:
            raise ModelError(
                f"{self.name}: layer {call.layer} attends more than once per token, which is not supported"
            )
        if key.shape[-1] != value.shape[-1]:
            raise ModelError(
                f"{self.name}: keys have {key.shape[-1]} and values {value.shape[-1]} dimensions, which is not supported"
            )
        self.shapes[call.layer] = (query.shape[1], key.shape[1], key.shape[-1])
        self.windows[call.layer] = call.window
        return value.repeat_interleave(query.shape[1] // value.shape[1], dim=1).transpose(1, 2)


def probe(model: Any) -> tuple[KVLayout, int]:
    """The cache layout of a model that has our attention, and its query heads per key head.

    Raises:
        ModelError: layers bypass our attention or differ in shape.
    """
    name = type(model).__name__
    parameter = next(model.parameters())
    seen = _Probe(name)
    tokens = torch.zeros((1, 1), dtype=torch.long, device=parameter.device)
    with torch.inference_mode():
        model.base_model(
            input_ids=tokens, position_ids=tokens, use_cache=False, **{STEP_KEYWORD: seen}
        )
    config = model.config.get_text_config()
    num_layers = config.num_hidden_layers
    if sorted(seen.shapes) != list(range(num_layers)):
        raise ModelError(
            f"{name}: {len(seen.shapes)} of {num_layers} layers use the common attention interface; this "
            "architecture is not supported"
        )
    shapes = set(seen.shapes.values())
    if len(shapes) != 1:
        raise ModelError(f"{name}: layers differ in heads or head size, which is not supported")
    heads, kv_heads, head_dim = shapes.pop()
    types = getattr(config, "layer_types", None) or ["full_attention"] * num_layers
    for layer, kind in enumerate(types):
        if kind == "sliding_attention" and seen.windows[layer] is None:
            raise ModelError(
                f"{name}: layer {layer} slides but does not say how far; not supported"
            )
    layout = KVLayout(
        num_layers=num_layers,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        dtype=parameter.dtype,
        device=parameter.device,
    )
    return layout, heads // kv_heads
