"""The student: some layers of the target, its embeddings, and an output matrix for the tokens that the target uses.

Shape suffixes: T = tokens of a batch; V = vocabulary of the target; W = output vocabulary of the student.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, AutoModelForCausalLM
from transformers.masking_utils import AttentionMaskInterface

from edge.distillation.block_attention import KEYWORD, Scores, attend_blocks
from edge.distillation.levels import READ_BITS, can_round, rounded
from paceline.errors import ConfigError, ModelError

ATTENTION = "paceline_packed"
LENGTHS = "paceline_lengths"


@dataclass(frozen=True, slots=True, kw_only=True)
class StudentShape:
    """What a student is made of."""

    layers: tuple[int, ...]
    """Layers of the target, in the order in which the student has them."""
    head: str = "frozen"
    """frozen: rows of the target's output matrix; trained: a copy of them that learns."""


def default_layers(num_layers: int, count: int) -> tuple[int, ...]:
    """Return the first and the last layers: they turn tokens into the target's inner language and back."""
    count = min(count, num_layers)
    first = (count + 1) // 2
    return (*range(first), *range(num_layers - (count - first), num_layers))


def spread_layers(num_layers: int, count: int) -> tuple[int, ...]:
    """Return layers as far from each other as can be: what is left out between two is little enough to be fitted."""
    count = min(count, num_layers)
    if count == 1:
        return (0,)
    return tuple(round(place * (num_layers - 1) / (count - 1)) for place in range(count))


class Student(nn.Module):
    """See the module. Made by `make_student`.

    Args:
        model: transformers model of the student's depth, with the target's embeddings.
        output_ids: [W] ascending; the tokens that it can draft.
        trains_head: give the output matrix weights of its own.
    """

    output_ids: Tensor

    def __init__(self, model: Any, *, output_ids: Tensor, trains_head: bool) -> None:
        super().__init__()
        attention_register()
        self.model = (
            model.eval()
        )  # a student this small needs no dropout, and its measures are to be exact
        model.set_attn_implementation(ATTENTION)
        model.requires_grad_(requires_grad=True)
        model.get_input_embeddings().requires_grad_(requires_grad=False)
        head = model.get_output_embeddings()
        head.requires_grad_(requires_grad=False)
        self.register_buffer("output_ids", output_ids, persistent=False)
        rows = head.weight.detach()[output_ids].clone()
        self.head = nn.Parameter(rows, requires_grad=trains_head)
        self._softcap = getattr(model.config.get_text_config(), "final_logit_softcapping", None)

    def forward(self, tokens: Tensor, positions: Tensor, lengths: Sequence[int]) -> Tensor:
        """Return logits [T, W] of packed texts.

        Args:
            tokens: [T].
            positions: [T]; of each token in its own text.
            lengths: of the texts, one after another; they add up to T.
        """
        inputs = {"input_ids": tokens[None], "position_ids": positions[None], "use_cache": False}
        inputs[LENGTHS] = list(lengths)
        return self.logits_of(self.model.base_model(**inputs).last_hidden_state[0])

    def logits_of(self, hidden: Tensor) -> Tensor:
        """Return logits [T, W] of hidden states behind the last norm."""
        logits: Tensor = nn.functional.linear(hidden, self.head.to(hidden.dtype))
        if self._softcap is not None:
            logits = torch.tanh(logits / self._softcap) * self._softcap
        return logits

    def layer_weights(self) -> list[nn.Parameter]:
        """Return all weights of the layers."""
        return list(layer_stack(self.model).parameters())

    @torch.no_grad()
    def round_embeddings(self, *, bits: int) -> None:
        """Put embeddings and output rows on levels, as they will be in a packed draft: the layers learn to live with it."""
        weight: Tensor = self.model.get_input_embeddings().weight
        if not can_round(weight):
            return
        said = rounded(weight[self.output_ids], bits=bits)
        if not self.head.requires_grad:
            self.head.copy_(rounded(self.head, bits=bits))
        weight.copy_(rounded(weight, bits=min(bits, READ_BITS)))
        weight[self.output_ids] = said.to(weight.dtype)

    def trained(self) -> list[tuple[str, nn.Parameter]]:
        """Return what the optimiser changes, by name."""
        return [(name, value) for name, value in self.named_parameters() if value.requires_grad]


def make_student(
    target: Any,
    shape: StudentShape,
    *,
    output_ids: Sequence[int],
    dtype: torch.dtype = torch.float32,
) -> Student:
    """Build a student from layers of a target, which stays as it is.

    Raises:
        ConfigError: the target has no such layer.
        ModelError: its layers are not where transformers keeps them.
    """
    stack = layer_stack(target)
    if not shape.layers or not all(0 <= layer < len(stack) for layer in shape.layers):
        raise ConfigError(
            f"layers: got {shape.layers}; expected some of 0 to {len(stack) - 1}, the layers of the target"
        )
    config = deepcopy(target.config)
    text = config.get_text_config()
    text.num_hidden_layers = len(shape.layers)
    types = getattr(text, "layer_types", None)
    if types is not None:
        text.layer_types = [types[layer] for layer in shape.layers]
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="eager")
    own = layer_stack(model)
    for layer, source in zip(own, shape.layers, strict=True):
        layer.load_state_dict(stack[source].state_dict())
    prefixes = tuple(f"{name}." for name in _stack_names(target))
    rest = {k: v for k, v in target.state_dict().items() if not k.startswith(prefixes)}
    model.load_state_dict(rest, strict=False)
    model.tie_weights()
    ids = torch.tensor(sorted(output_ids), device=target.device)
    model.to(target.device)
    return Student(model, output_ids=ids, trains_head=shape.head == "trained")


def _stack_names(model: Any) -> list[str]:
    count = model.config.get_text_config().num_hidden_layers
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count and name.count(".") <= 2
    ]


def layer_stack(model: Any) -> Any:
    """Return the list of a model's layers.

    Raises:
        ModelError: there is not exactly one such list.
    """
    names = _stack_names(model)
    if len(names) != 1:
        raise ModelError(
            f"{type(model).__name__}: expected one list of layers, found {names or 'none'}; no student can be made of it"
        )
    return model.get_submodule(names[0])


def _packed_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention within each of some packed texts, and of blocks behind them: query [1, H, T, D] -> [1, T, H, D]."""
    del attention_mask
    lengths: list[int] = kwargs[LENGTHS]
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = (part.repeat_interleave(groups, dim=1) for part in (key, value))
    scale = kwargs.get("scaling") or query.shape[-1] ** -0.5
    window, softcap = kwargs.get("sliding_window"), kwargs.get("softcap")
    pieces = []
    num_tokens = sum(lengths)
    parts = (torch.split(part[:, :, :num_tokens], lengths, dim=2) for part in (query, key, value))
    for q, k, v in zip(*parts, strict=True):
        if softcap is None and (window is None or window >= q.shape[2]):
            pieces.append(scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale))
        else:
            pieces.append(_masked(q, k, v, scale=scale, window=window, softcap=softcap))
    blocks = kwargs.get(KEYWORD)
    if blocks is not None:
        scores = Scores(scale=scale, window=window, softcap=softcap)
        pieces.append(
            attend_blocks(query, key, value, lengths=lengths, blocks=blocks, scores=scores)
        )
    return torch.cat(pieces, dim=2).transpose(1, 2), None


def _masked(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """The same with a sliding window or capped scores."""
    place = torch.arange(query.shape[2], device=query.device)
    distance = place[:, None] - place
    hidden = distance < 0
    if window is not None:
        hidden |= distance >= window
    scores = torch.matmul(query, key.transpose(-1, -2)).float() * scale
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    scores = scores.masked_fill(hidden, float("-inf"))
    return torch.matmul(torch.softmax(scores, dim=-1).to(value.dtype), value)


def _no_mask(*_: Any, **__: Any) -> None:
    """Texts are kept apart by the attention itself."""


def attention_register() -> None:
    """Tell transformers about attention over packed texts; repeating it changes nothing."""
    AttentionInterface.register(ATTENTION, _packed_attention)
    AttentionMaskInterface.register(ATTENTION, _no_mask)
