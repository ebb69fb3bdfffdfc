"""Drafts made from the target's own weights when they are loaded: a change of the model, and an engine around it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from edge.drafters.draft_loading import DraftLoading
from edge.drafters.model import SETTINGS
from paceline.engine.architecture import context_length
from paceline.engine.engine import Engine
from paceline.engine.fingerprint import weights_fingerprint
from paceline.engine.lean import LeanModel
from paceline.engine.lean_form import lean_form
from paceline.engine.loading import load_weights, resolve
from paceline.engine.self_check import check_logits, plain_logits
from paceline.engine.source import DType
from paceline.messages import ModelIdentity


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What makes a draft of a target."""

    name: str
    """What users call the draft."""
    apply: Callable[[Any], None]
    """Changes a transformers model in place; no gradients are kept."""
    quantisation: str = ""
    lean: Callable[[Any], LeanModel | None] = lean_form
    """See `lean_form`: returns the lean form of a changed model, whose own weights may be gone then; None where it has none."""
    products: DType | None = None
    """The type that the changed model rounds its products to; None: the type it is loaded in."""


def load_copy(change: Change, loading: DraftLoading) -> Engine:
    """Load the target's weights, change them, and wrap the model in an engine.

    Raises:
        ConfigError: the change does not fit the model.
        ModelError: the target cannot be loaded, or its copy cannot be run.
    """
    tell = loading.progress or (lambda _: None)
    source = resolve(loading.tokenizer.name)
    tell(f"{source.name}: loading its weights")
    model = load_weights(source, dtype=loading.dtype, device=loading.device)
    tell(f"{change.name}: making it")
    with torch.no_grad():
        change.apply(model)
    embeddings = model.get_input_embeddings().num_embeddings
    identity = ModelIdentity(
        name=change.name,
        weights_fingerprint=weights_fingerprint(model, name=change.name),
        dtype=loading.dtype,
        quantisation=change.quantisation,
        tokenizer_fingerprint=loading.tokenizer.fingerprint,
        vocabulary_size=min(loading.tokenizer.vocabulary_size, embeddings),
        context_length=context_length(model.config),
    )
    expected = plain_logits(model, vocabulary_size=identity.vocabulary_size)
    engine = Engine(change.lean(model) or model, identity=identity, settings=SETTINGS)
    name = f"{change.name} ({model.config.model_type})"
    check_logits(engine, expected, name=name, products=change.products)
    return engine
