"""A model as few operations as can be: what Python and small operations cost is a good part of a small model's step.

Takes the weights of a transformers model of Llama's kind and runs under the engine like it. Queries, keys and values are one
product, so are gate and up. Turning by position is one product of complex numbers: the rows that make queries and keys are put
in an order in which the two parts of a number are neighbours, which changes no score. What a layer needs for its small operations
is made once per step. Products and attention are of the model's type; the sums between layers, norms and turns are float32.

Shape suffixes: R = rows of the step; H = hidden width; G = key heads; Q = query heads of a key head; D = head dim;
N = heads of queries, keys and values together; C = complex numbers of a head, D / 2.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from paceline.engine.attention import STEP_KEYWORD, AttentionCall, LayerStep
from paceline.engine.partial_head import PartialHead
from paceline.engine.step import Step

KINDS = ("llama",)
"""Architectures, by transformers' names, whose layers are exactly these operations."""
_PLAIN_TURNS = ("default", "linear", "llama3")
"""Ways to turn by position in which a position's angle does not depend on the length of the text."""

MakeMatrix = Callable[[Sequence[str], Tensor | None], nn.Module]
"""Makes one product without bias of some of the model's weights, one below another, from their names.

The second argument puts the rows of all of them in another order; None: as they are.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeanOutput:
    """What transformers calls a causal model's output, as far as the engine reads it."""

    logits: Tensor


def is_lean(config: Any) -> bool:
    """Return whether a model of this configuration can be run lean."""
    if config.model_type not in KINDS or config.attention_bias or config.mlp_bias:
        return False
    turns = getattr(config, "rope_parameters", None) or {}
    turns_all = turns.get("partial_rotary_factor", 1.0) == 1.0
    kind = turns.get("rope_type", "default")
    return config.hidden_act == "silu" and turns_all and kind in _PLAIN_TURNS


class LeanModel(nn.Module):
    """A model. `is_lean` must hold for it.

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
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        logits_to_keep: Tensor | slice,
        **keywords: Any,
    ) -> LeanOutput:
        """Return logits [1, wanted rows, V] of the rows named by `logits_to_keep`."""
        hidden_RH = self.base_model(input_ids, position_ids, **keywords)
        rows_RH = self.base_model.finish(hidden_RH, logits_to_keep)
        return LeanOutput(logits=self._head(rows_RH)[None])


class _Body(nn.Module):
    """Everything but the output matrix."""

    _turns: Tensor

    def __init__(self, model: Any, embeddings: nn.Module, make: MakeMatrix) -> None:
        super().__init__()
        config, body = model.config, model.base_model
        self._embeddings = embeddings
        self._norm = _Norm(body.norm)
        self._heads = _Heads.of(config, head_dim=body.layers[0].self_attn.head_dim)
        self.layers = nn.ModuleList(
            _Layer(layer, self._heads, number, make) for number, layer in enumerate(body.layers)
        )
        self._desks = _Desks()
        # A row that begins in this column is as long as the norm wants it: never 0, however small its numbers.
        self._least = (config.hidden_size * config.rms_norm_eps) ** 0.5
        weight: Tensor = body.embed_tokens.weight
        self._dtype = weight.dtype
        positions = torch.arange(config.max_position_embeddings, device=weight.device)
        cos, sin = body.rotary_emb(weight[:1, None].float(), positions[None])
        half = cos.shape[-1] // 2
        turns_PC = torch.complex(cos[0, :, :half], sin[0, :, :half])
        self.register_buffer("_turns", turns_PC, persistent=False)

    def forward(self, input_ids: Tensor, position_ids: Tensor, **keywords: Any) -> Tensor:
        """Return hidden states before the last norm, in float32 with a column for the norm: [R, H + 1]."""
        step: LayerStep = keywords[STEP_KEYWORD]
        embedded_RH: Tensor = self._embeddings(input_ids[0])
        desk = self._desk(embedded_RH, step)
        desk.begin(embedded_RH, self._turns[position_ids[0]], step)
        for layer in self.layers:
            layer.forward(desk)
        desk.end()
        return desk.summed

    def _desk(self, embedded_RH: Tensor, step: LayerStep) -> _Desk:
        """Return a desk for so many rows: the last one of its size, if they are few."""
        num_rows = embedded_RH.shape[0]
        is_folded = isinstance(step, Step) and step.is_folded
        desk = self._desks.get(num_rows) if is_folded else None
        if desk is None:
            desk = _Desk(self._heads, embedded_RH, least=self._least, is_folded=is_folded)
            if is_folded:
                self._desks[num_rows] = desk
        return desk

    def finish(self, summed_RH: Tensor, rows: Tensor | slice) -> Tensor:
        """Return some rows as the output matrix takes them."""
        summed_RH = summed_RH[rows]
        hidden_RH = summed_RH.narrow(1, 0, summed_RH.shape[1] - 1)
        return self._norm.forward(hidden_RH).div_(lengths(summed_RH)).to(self._dtype)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Heads:
    """How a layer's first product is cut: N = G * Q + 2 * G heads."""

    num_keys: int
    queries_per_key: int
    head_dim: int

    @classmethod
    def of(cls, config: Any, *, head_dim: int) -> _Heads:
        num_keys = config.num_key_value_heads
        return cls(
            num_keys=num_keys,
            queries_per_key=config.num_attention_heads // num_keys,
            head_dim=head_dim,
        )

    @property
    def num_queries(self) -> int:
        return self.num_keys * self.queries_per_key

    def order(self) -> Tensor:
        """The rows of the product so that what turns together stands together; values stay as they are."""
        rows_ND = torch.arange((self.num_queries + 2 * self.num_keys) * self.head_dim)
        rows_ND = rows_ND.view(-1, self.head_dim)
        turned, values = rows_ND[: -self.num_keys], rows_ND[-self.num_keys :]
        pairs = turned.view(len(turned), 2, -1).transpose(1, 2)
        return torch.cat((pairs.flatten(), values.flatten()))


class _Desk:
    """What every layer of a step writes on: hidden states, inputs of products, queries, keys and values.

    Views are made once: to make one takes as long as a small operation.

    Args:
        heads: of the model.
        embedded_RH: rows as long, as many, of the type and on the device of those that will come.
        least: what stands in the column for the norm.
        is_folded: every step to come is.
    """

    __slots__ = (
        "_heads",
        "_is_folded",
        "_mixed",
        "_new",
        "_queries",
        "_query_rows",
        "_query_view",
        "_step",
        "_turned",
        "_turns",
        "hidden",
        "normed",
        "rows",
        "summed",
    )

    def __init__(
        self, heads: _Heads, embedded_RH: Tensor, *, least: float, is_folded: bool
    ) -> None:
        self._heads = heads
        num_rows, width = embedded_RH.shape
        device = embedded_RH.device
        self.summed = torch.empty((num_rows, width + 1), device=device)
        """Hidden states, in float32, with a column for the norm: [R, H + 1]."""
        self.summed[:, width] = least
        self.hidden = self.summed[:, :width]
        self.normed = torch.empty((num_rows, width), device=device)
        self.rows = torch.empty_like(embedded_RH)
        """What goes into a product, in the model's type."""
        g, q, d = heads.num_keys, heads.queries_per_key, heads.head_dim
        self._mixed = torch.empty((num_rows, (g * q + 2 * g) * d), device=device)
        pairs = self._mixed.view(num_rows, -1, d // 2, 2)
        self._turned = torch.view_as_complex(pairs)[:, : g * q + g]
        self._step: LayerStep | None = None
        self._turns: Tensor | None = None
        self._is_folded = is_folded
        if is_folded:
            self._query_rows = self.rows.new_empty((g, num_rows, q, d))
            self._queries = self._query_rows.view(1, g, num_rows * q, d)
            self._query_view = self._mixed[:, : g * q * d].view(num_rows, g, q, d).transpose(0, 1)
            self._new = self._mixed[:, g * q * d :].view(num_rows, 2, g, d).permute(1, 2, 0, 3)

    def begin(self, embedded_RH: Tensor, turns_RC: Tensor, step: LayerStep) -> None:
        """Take the rows of a step."""
        self.hidden.copy_(embedded_RH)
        self._turns = turns_RC[:, None]
        self._step = step

    def end(self) -> None:
        """Let go of the step: it holds memory of sequences."""
        self._step = None

    def attend(self, mixed_RN: Tensor, lengths_R1: Tensor, call: AttentionCall) -> Tensor:
        """Make queries, keys and values of unit rows, turn, write keys and values, attend: [R, G * Q * D]."""
        heads, num_rows, step = self._heads, mixed_RN.shape[0], self._step
        assert step is not None and self._turns is not None, "begun"  # noqa: PT018 - one look
        torch.div(mixed_RN, lengths_R1, out=self._mixed)
        self._turned.mul_(self._turns)
        if self._is_folded:
            assert isinstance(step, Step)
            self._query_rows.copy_(self._query_view)
            seen = step.attend_folded(self._queries, self._new, layer=call.layer, scale=call.scale)
            by_key = seen.view(heads.num_keys, num_rows, -1, heads.head_dim)
            return by_key.transpose(0, 1).reshape(num_rows, -1)
        mixed = self._mixed.to(mixed_RN.dtype).view(num_rows, -1, heads.head_dim).transpose(0, 1)
        parts = [heads.num_queries, heads.num_keys, heads.num_keys]
        queries, keys, values = torch.split(mixed[None], parts, dim=1)
        return step.attend(queries, keys, values, call).reshape(num_rows, -1)


class _Desks(dict[int, _Desk]):
    """The desks of one engine's steps by their number of rows, a few at most; another engine on the same weights has its own."""

    def __deepcopy__(self, memo: dict[int, object]) -> _Desks:
        del memo
        return _Desks()


class _Layer(nn.Module):
    def __init__(self, layer: Any, heads: _Heads, number: int, make: MakeMatrix) -> None:
        super().__init__()
        scope, parts = f"model.layers.{number}.self_attn", f"model.layers.{number}.mlp"
        self._mix = make([f"{scope}.{part}_proj.weight" for part in "qkv"], heads.order())
        self._out = make([f"{scope}.o_proj.weight"], None)
        self._gates = make([f"{parts}.gate_proj.weight", f"{parts}.up_proj.weight"], None)
        self._down = make([f"{parts}.down_proj.weight"], None)
        self._before = _Norm(layer.input_layernorm)
        self._between = _Norm(layer.post_attention_layernorm)
        # Not modules but functions: nobody hooks these, and to find and call a module takes longer than some operations.
        self._functions = (
            self._before.forward,
            self._mix.forward,
            self._out.forward,
            self._between.forward,
            self._gates.forward,
            self._down.forward,
        )
        self._call = AttentionCall(
            layer=number, scale=float(layer.self_attn.scaling), window=None, softcap=None
        )

    def products(self) -> tuple[nn.Module, ...]:
        """Return the four products of the layer."""
        return self._mix, self._out, self._gates, self._down

    def forward(self, desk: _Desk) -> None:
        """Add what the layer has to say to the hidden states on the desk."""
        hidden_RH, summed_RH = desk.hidden, desk.summed
        before, mix, out, between, gates, down = self._functions
        # What is divided may as well be divided behind the product, where something is copied anyway.
        mixed_RN = mix(before(hidden_RH, out=desk.rows))
        hidden_RH.add_(out(desk.attend(mixed_RN, lengths(summed_RH), self._call)))
        normed_RH = between(hidden_RH, out=desk.normed)
        both_RF = gates(torch.div(normed_RH, lengths(summed_RH), out=desk.rows))
        width = both_RF.shape[1] // 2
        hidden_RH.add_(
            down(silu(both_RF.narrow(1, 0, width)).mul_(both_RF.narrow(1, width, width)))
        )


def lengths(summed_RH: Tensor) -> Tensor:
    """Return the length of each row: the square root of its width times its root mean square, in one operation."""
    found_R1: Tensor = torch.linalg.vector_norm(summed_RH, dim=-1, keepdim=True)
    return found_R1


class _Norm(nn.Module):
    """Root mean square norm but for the division by a row's length."""

    _weight: Tensor

    def __init__(self, norm: Any) -> None:
        super().__init__()
        weight: Tensor = norm.weight.detach().float()
        self.register_buffer("_weight", weight * len(weight) ** 0.5)
        self._constant = self._weight

    def forward(self, rows_RH: Tensor, *, out: Tensor | None = None) -> Tensor:
        """Return rows times the weights; `out` may be of a smaller type."""
        return torch.mul(rows_RH, self._constant, out=out)
