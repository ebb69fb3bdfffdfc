"""A draft model as few operations as can be: what Python and small operations cost is most of a small model's step.

Takes the weights of a transformers model of Llama's kind and runs under the engine like it. Queries, keys and values are one
product, so are gate and up; turning by position takes a table and three operations. Everything is bfloat16, as the model itself.

Shape suffixes: R = rows of the step; H = hidden width; Q = query heads; G = key heads; D = head dim.
"""

# ruff: noqa: N803, N806 - tensors carry shape suffixes
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import layer_norm, silu

from paceline.engine.attention import STEP_KEYWORD, AttentionCall, LayerStep
from paceline.engine.partial_head import PartialHead

KINDS = ("llama",)
"""Architectures, by transformers' names, whose layers are exactly these operations."""
_PLAIN_TURNS = ("default", "linear", "llama3")
"""Ways to turn by position in which a position's angle does not depend on the length of the text."""

MakeMatrix = Callable[[Sequence[str]], nn.Module]
"""Makes one product without bias of some of the model's weights, one below another, from their names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeanOutput:
    """What transformers calls a causal model's output, as far as the engine reads it."""

    logits: Tensor


def is_lean(config: Any) -> bool:
    """Return whether a model of this configuration can be run lean."""
    if config.model_type not in KINDS or config.attention_bias or config.mlp_bias:
        return False
    turns = getattr(config, "rope_parameters", None) or {}
    return config.hidden_act == "silu" and turns.get("rope_type", "default") in _PLAIN_TURNS


class LeanModel(nn.Module):
    """A draft model. `is_lean` must hold for it.

    Args:
        model: a transformers model, from which embeddings, norms and the output matrix are taken as they are.
        make: makes each product of a layer.
        head: the output matrix; None: the model's.
    """

    def __init__(self, model: Any, *, make: MakeMatrix, head: nn.Module | None = None) -> None:
        super().__init__()
        self.config = model.config
        self._embeddings = model.get_input_embeddings()
        self.base_model = _Body(model, self._embeddings, make)
        self._head = head or model.get_output_embeddings()

    def matrices(self) -> list[Any]:
        """Return all products of a step, in their order."""
        layers = [layer for layer in self.base_model.layers if isinstance(layer, _Layer)]
        products = [product for layer in layers for product in layer.products()]
        head = self._head.product if isinstance(self._head, PartialHead) else self._head
        return [*products, head]

    def get_input_embeddings(self) -> Any:
        """Return what turns tokens into hidden states."""
        return self._embeddings

    def get_output_embeddings(self) -> nn.Module:
        """Return what turns hidden states into logits."""
        return self._head

    def set_output_embeddings(self, head: nn.Module) -> None:
        """Put another output matrix in place."""
        self._head = head

    def forward(
        self, input_ids: Tensor, position_ids: Tensor, logits_to_keep: Tensor, **keywords: Any
    ) -> LeanOutput:
        """Return logits [1, wanted rows, V] of the rows named by `logits_to_keep`."""
        hidden_RH = self.base_model(input_ids, position_ids, **keywords)
        rows_RH = self.base_model.finish(hidden_RH[logits_to_keep])
        return LeanOutput(logits=self._head(rows_RH)[None])


class _Body(nn.Module):
    """Everything but the output matrix."""

    _turns: Tensor

    def __init__(self, model: Any, embeddings: nn.Module, make: MakeMatrix) -> None:
        super().__init__()
        config, body = model.config, model.base_model
        self._embeddings = embeddings
        self._norm = _Norm(body.norm)
        self.layers = nn.ModuleList(
            _Layer(layer, config, number, make) for number, layer in enumerate(body.layers)
        )
        weight: Tensor = body.embed_tokens.weight
        positions = torch.arange(config.max_position_embeddings, device=weight.device)
        cos, sin = body.rotary_emb(weight[:1, None], positions[None])
        half = cos.shape[-1] // 2
        # Swapping the halves of a head takes the sign along in the table.
        signed = torch.cat((-sin[..., :half], sin[..., half:]), dim=-1)
        self.register_buffer("_turns", torch.stack((cos[0], signed[0])), persistent=False)

    def forward(self, input_ids: Tensor, position_ids: Tensor, **keywords: Any) -> Tensor:
        """Return hidden states [R, H] before the last norm."""
        step: LayerStep = keywords[STEP_KEYWORD]
        hidden_RH: Tensor = self._embeddings(input_ids[0])
        cos_RD, sin_RD = self._turns[:, position_ids[0]]
        for layer in self.layers:
            hidden_RH = layer.forward(hidden_RH, cos_RD, sin_RD, step)
        return hidden_RH

    def finish(self, hidden_RH: Tensor) -> Tensor:
        """Return the rows as the output matrix takes them."""
        finished: Tensor = self._norm(hidden_RH)
        return finished


class _Layer(nn.Module):
    def __init__(self, layer: Any, config: Any, number: int, make: MakeMatrix) -> None:
        super().__init__()
        attention = layer.self_attn
        self._before = _Norm(layer.input_layernorm)
        self._between = _Norm(layer.post_attention_layernorm)
        heads, parts = f"model.layers.{number}.self_attn", f"model.layers.{number}.mlp"
        self._mix = make([f"{heads}.{part}_proj.weight" for part in "qkv"])
        self._out = make([f"{heads}.o_proj.weight"])
        self._gates = make([f"{parts}.gate_proj.weight", f"{parts}.up_proj.weight"])
        self._down = make([f"{parts}.down_proj.weight"])
        self._num_queries = config.num_attention_heads
        self._num_keys = config.num_key_value_heads
        self._head_dim = attention.head_dim
        self._half = attention.head_dim // 2
        self._call = AttentionCall(
            layer=number, scale=float(attention.scaling), window=None, softcap=None
        )

    def products(self) -> tuple[nn.Module, ...]:
        """Return the four products of the layer."""
        return self._mix, self._out, self._gates, self._down

    def forward(self, hidden_RH: Tensor, cos_RD: Tensor, sin_RD: Tensor, step: LayerStep) -> Tensor:
        # Not called but run: nobody hooks these, and a call takes longer than some of the operations.
        mixed = self._mix.forward(self._before.forward(hidden_RH))
        num_rows = mixed.shape[0]
        heads = mixed.view(num_rows, -1, self._head_dim).transpose(0, 1)
        num_turned = self._num_queries + self._num_keys
        turned, values = heads[:num_turned], heads[num_turned:]
        turned = torch.addcmul(turned * cos_RD, turned.roll(self._half, -1), sin_RD)
        queries, keys = turned[: self._num_queries], turned[self._num_queries :]
        seen = step.attend(queries[None], keys[None], values[None], self._call)
        hidden_RH = hidden_RH + self._out.forward(seen.view(num_rows, -1))
        gate, up = self._gates.forward(self._between.forward(hidden_RH)).chunk(2, dim=-1)
        result: Tensor = hidden_RH + self._down.forward(silu(gate).mul_(up))
        return result


class _Norm(nn.Module):
    """Root mean square norm by the kernel of another one, which takes a third of the time of PyTorch's own for one row.

    Next to its negative a row has mean zero, so that a layer norm over both divides by the root of the mean square.
    """

    _weight: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        weight = norm.weight.detach()
        self.register_buffer("_weight", torch.cat((weight, weight)))
        self._width = len(weight)
        self._epsilon = float(norm.variance_epsilon)

    def forward(self, rows_RH: Tensor) -> Tensor:
        both = torch.cat((rows_RH, -rows_RH), dim=-1)
        normed = layer_norm(both, self._weight.shape, self._weight, None, self._epsilon)
        return normed[:, : self._width]
