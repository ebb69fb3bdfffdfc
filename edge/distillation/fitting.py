"""Fits a student's layers to the target's before it is trained: no gradients, one pass over some text.

A kept layer also has to do the work of the layers left out behind it. All that a layer's feed-forward part adds goes
through one last matrix, so the matrix that comes nearest to the target's hidden states is a least-squares problem with an exact
solution. Layers are fitted in order, each on what the fitted ones before it really give, so that it corrects their errors
too. Source: the idea of replacing left-out layers by a linear map is ReplaceMe's (arXiv 2505.02819); here the whole last matrix
is solved for, on the student's own inputs.

Shape suffixes: T = tokens of a batch; H = hidden width; F = width inside the feed-forward part.
"""

# ruff: noqa: N806 - tensors carry shape suffixes
from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from edge.distillation.levels import rounded_weights
from edge.distillation.packing import Batch
from edge.distillation.student import ATTENTION, LENGTHS, Student, attention_register, layer_stack

RIDGE = 0.1
"""Pull towards the target's own matrix, in units of the mean square of what goes into it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """Arithmetic of the student that is fitted; the equations are solved in float32."""

    bfloat16: bool = True
    bits: int | None = None
    """Its layers are rounded to so many bits: each makes up for the rounding of those before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerFit:
    """How far a layer's output is from the target's hidden states, as a share of their size."""

    layer: int
    before: float
    after: float


@dataclass(slots=True, kw_only=True)
class _Piece:
    """One batch: where the student is, and what the target has at the layers to be met."""

    state: Tensor
    goals: dict[int, Tensor]
    keywords: dict[int, dict[str, Any]]
    weights: Tensor
    """[T, 1] square roots of the tokens' worth."""


@torch.no_grad()
def fit_student(
    student: Student,
    target: Any,
    *,
    layers: Sequence[int],
    batches: Sequence[Batch],
    settings: FitSettings,
    tell: Callable[[LayerFit], None] = lambda _: None,
) -> tuple[LayerFit, ...]:
    """Fit a student whose layers were copied from a target; return how well it went, none where it cannot be done.

    Only layers whose feed-forward part ends in a matrix `mlp.down_proj` that is added as it is can be fitted; a student with others
    stays as it is. Takes memory for the hidden states of all tokens at each kept layer.

    Args:
        student: changed in place.
        target: a transformers model; its attention is switched to that of packed texts.
        layers: of the target, in the student's order.
        batches: text to fit on.
        settings: arithmetic of the student.
        tell: told of each layer.
    """
    stack = layer_stack(student.model)
    if not all(isinstance(_last_matrix(layer), nn.Linear) for layer in stack):
        return ()
    attention_register()
    target.set_attn_implementation(ATTENTION)
    # Layers in another order than the target's have no work of layers behind them to do.
    follows = [*(following - 1 for following in layers[1:]), len(layer_stack(target)) - 1]
    ends = [max(layer, last) for layer, last in zip(layers, follows, strict=True)]
    device = student.head.device.type
    # Without its cache of converted weights: they change here.
    with torch.autocast(device, torch.bfloat16, enabled=settings.bfloat16, cache_enabled=False):
        pieces = [_observe(target, batch, layers=layers, ends=ends) for batch in batches]
        if not _is_added(stack[0], pieces[0], layers[0]):
            return ()
        found = []
        for layer, source, end in zip(stack, layers, ends, strict=True):
            found.append(_fit_layer(layer, pieces, source=source, end=end, bits=settings.bits))
            tell(found[-1])
    return tuple(found)


def _last_matrix(layer: nn.Module) -> Any:
    return getattr(getattr(layer, "mlp", None), "down_proj", None)


def _observe(target: Any, batch: Batch, *, layers: Sequence[int], ends: Sequence[int]) -> _Piece:
    """Run the target over a batch and keep what is to be met."""
    keywords: dict[int, dict[str, Any]] = {}
    goals: dict[int, Tensor] = {}
    first: list[Tensor] = []
    device = target.device

    def note(index: int) -> Callable[..., None]:
        def hook(_: nn.Module, inputs: tuple[Any, ...], given: dict[str, Any], out: Any) -> None:
            if index == 0:
                first.append(inputs[0] if inputs else given["hidden_states"])
            if index in layers:
                keywords[index] = {k: v for k, v in given.items() if k != "hidden_states"}
            if index in ends:
                goals[index] = _hidden(out)[0].bfloat16()

        return hook

    handles = [
        layer.register_forward_hook(note(index), with_kwargs=True)
        for index, layer in enumerate(layer_stack(target))
    ]
    try:
        target.base_model(
            input_ids=torch.from_numpy(batch.tokens).to(device)[None],
            position_ids=torch.from_numpy(batch.positions).to(device)[None],
            use_cache=False,
            **{LENGTHS: list(batch.lengths)},
        )
    finally:
        for handle in handles:
            handle.remove()
    # The first token of a text draws the attention of all others; its state is huge and the same everywhere.
    worth = torch.from_numpy(batch.weights * (batch.positions > 0)).to(device)
    return _Piece(
        state=first[0], goals=goals, keywords=keywords, weights=worth.float().sqrt()[:, None]
    )


def _hidden(out: Any) -> Tensor:
    state: Tensor = out[0] if isinstance(out, tuple) else out
    return state


@contextmanager
def _watched(matrix: nn.Module) -> Iterator[list[tuple[Tensor, Tensor]]]:
    """Keep what goes into a matrix and what comes out."""
    seen: list[tuple[Tensor, Tensor]] = []
    handle = matrix.register_forward_hook(lambda _, ins, out: seen.append((ins[0], out)))
    try:
        yield seen
    finally:
        handle.remove()


def _run(layer: nn.Module, piece: _Piece, source: int) -> Tensor:
    return _hidden(layer(piece.state, **piece.keywords[source]))


def _is_added(layer: nn.Module, piece: _Piece, source: int) -> bool:
    """Return whether what the last matrix gives is added to the layer's output as it is: no norm behind it, no scale."""
    plain = _run(layer, piece, source).float()
    with _watched(_last_matrix(layer)) as seen:
        _run(layer, piece, source)
    given = seen[0][1].float()
    handle = _last_matrix(layer).register_forward_hook(lambda _, __, out: out * 2)
    try:
        doubled = _run(layer, piece, source).float()
    finally:
        handle.remove()
    off = (doubled - plain - given) * piece.weights
    return float(off.norm()) <= 0.05 * float((given * piece.weights).norm())


def _fit_layer(
    layer: nn.Module, pieces: Sequence[_Piece], *, source: int, end: int, bits: int | None
) -> LayerFit:
    """Solve for a layer's last matrix, then move all batches through the layer."""
    matrix = _last_matrix(layer)
    with rounded_weights(list(layer.parameters()), bits=bits):
        solution_FH, before, size = _solved(layer, pieces, source=source, end=end)
    matrix.weight.copy_(solution_FH.T)
    after = 0.0
    with rounded_weights(list(layer.parameters()), bits=bits):
        for piece in pieces:
            piece.state = _run(layer, piece, source)
            gap = piece.goals[end].float() - piece.state[0].float()
            after += float((gap * piece.weights).square().sum())
    return LayerFit(layer=source, before=before / size, after=after / size)


def _solved(
    layer: nn.Module, pieces: Sequence[_Piece], *, source: int, end: int
) -> tuple[Tensor, float, float]:
    """Return the best last matrix [F, H], the square error without it, and the square size of what is to be met."""
    matrix = _last_matrix(layer)
    width, inner = matrix.weight.shape
    products_FF = torch.zeros(inner, inner, device=matrix.weight.device)
    products_FH = torch.zeros(inner, width, device=matrix.weight.device)
    before = size = 0.0
    for piece in pieces:
        with _watched(matrix) as seen:
            state = _run(layer, piece, source)[0].float()
        inputs_TF, given_TH = (part.reshape(len(state), -1).float() for part in seen[0])
        goal = piece.goals[end].float()
        inputs_TF = inputs_TF * piece.weights
        wanted_TH = (goal - state + given_TH) * piece.weights
        with torch.autocast(state.device.type, enabled=False):
            products_FF += inputs_TF.T @ inputs_TF
            products_FH += inputs_TF.T @ wanted_TH
        before += float(((goal - state) * piece.weights).square().sum())
        size += float((goal * piece.weights).square().sum())
    pull = RIDGE * products_FF.diagonal().mean()
    own_FH = matrix.weight.float().T
    products_FF.diagonal().add_(pull)
    solution_FH = torch.linalg.solve(products_FF, products_FH + pull * own_FH)
    return solution_FH, before, size
