"""Loads distilled drafts with mask slots: the slots become inputs behind the tokens, so the engine runs them like any row."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from edge.distillation.compact import read_description, unpacked
from edge.distillation.draft_reading import check_draft, read_head, read_slots
from edge.drafters.block import BlockDrafter
from edge.drafters.distilled import (
    check_tokenizer,
    distilled_path,
    lean_model,
    packed_identity,
)
from edge.drafters.draft_loading import DraftLoading
from edge.drafters.model import SETTINGS
from paceline.engine.architecture import context_length
from paceline.engine.engine import Engine
from paceline.engine.fingerprint import weights_fingerprint
from paceline.engine.lean import LeanModel
from paceline.engine.lean_form import lean_form
from paceline.engine.loading import load_weights, resolve
from paceline.errors import ConfigError, ModelError
from paceline.messages import ModelIdentity


def load_block(name: str, loading: DraftLoading) -> BlockDrafter:
    """Load a draft that `paceline distil --block` made.

    Args:
        name: a folder, a packed draft, or the name of one that comes with the package.
        loading: the target, and how it runs here.

    Raises:
        ConfigError: no draft, a damaged one, or one without mask slots.
        IncompatibleError: it was made for another tokenizer.
        ModelError: it cannot be loaded.
    """
    path = distilled_path(name)
    if path is None:
        raise ConfigError(
            f"draft: got block:{name}, expected a draft that was made with paceline distil --block there"
        )
    record = read_description(path) if path.is_file() else check_draft(path)
    check_tokenizer(path, record["tokenizer"], loading.tokenizer)
    if path.is_file():
        with unpacked(path) as folder:
            slots = _slots(folder, path)
            can_be_lean = loading.device == "cpu"
            lean = lean_model(path, folder) if can_be_lean else None
            if lean is not None:
                identity = packed_identity(path, lean, loading.tokenizer)
                return _drafter(lean, slots, identity=identity, head=None, loading=loading)
            return _from_folder(folder, slots, loading, name=path.stem)
    return _from_folder(path, _slots(path, path), loading, name=path.name)


def _slots(folder: Path, path: Path) -> Tensor:
    slots = read_slots(folder)
    if slots is None:
        raise ConfigError(
            f"draft: {path} has no mask slots and guesses one position a pass; leave block: out, or train it on: "
            f"paceline distil --continue-from DRAFT --block 8 --out FOLDER"
        )
    return slots


def _from_folder(folder: Path, slots: Tensor, loading: DraftLoading, *, name: str) -> BlockDrafter:
    tell = loading.progress or (lambda _: None)
    tell(f"{name}: loading weights as {loading.dtype}")
    model = load_weights(resolve(str(folder)), dtype=loading.dtype, device=loading.device)
    size = model.get_input_embeddings().num_embeddings
    identity = ModelIdentity(
        name=name,
        weights_fingerprint=weights_fingerprint(model, name=name),
        dtype=loading.dtype,
        quantisation="",
        tokenizer_fingerprint=loading.tokenizer.fingerprint,
        vocabulary_size=min(loading.tokenizer.vocabulary_size, size),
        context_length=context_length(model.config),
    )
    lean = lean_form(model) or model
    return _drafter(lean, slots, identity=identity, head=read_head(folder), loading=loading)


def _drafter(
    model: Any | LeanModel,
    slots: Tensor,
    *,
    identity: ModelIdentity,
    head: tuple[Tensor, Tensor] | None,
    loading: DraftLoading,
) -> BlockDrafter:
    first = add_inputs(model, slots)
    inputs = replace(identity, vocabulary_size=first + len(slots))
    engine = Engine(model, identity=inputs, settings=SETTINGS)
    if head is not None:
        engine.limit_output(*head)
    return BlockDrafter(
        engine,
        vocabulary_size=min(loading.tokenizer.vocabulary_size, identity.vocabulary_size),
        first_slot=first,
        num_slots=len(slots),
    )


def add_inputs(model: Any, rows: Tensor) -> int:
    """Give a model inputs that stand for no token; return the id of the first. What it can say stays as it is.

    Args:
        model: its output matrix may be its embeddings.
        rows: [inputs, hidden]; as they are to enter the first layer.

    Raises:
        ModelError: they are not as wide as the model.
    """
    embeddings = model.get_input_embeddings()
    weight: Tensor = embeddings.weight
    first, width = weight.shape
    if rows.shape[1] != width:
        raise ModelError(f"slots: got rows of {rows.shape[1]} numbers, expected {width}")
    # Gemma and its kin multiply embeddings on their way into the first layer.
    scale = float(getattr(embeddings, "embed_scale", 1.0))
    more = (rows.float() / scale).to(device=weight.device, dtype=weight.dtype)
    # A new matrix: the old one may be the output matrix as well.
    embeddings.weight = nn.Parameter(torch.cat((weight.detach(), more)), requires_grad=False)
    embeddings.num_embeddings = first + len(rows)
    return int(first)
