"""Makes the drafter that a user names: loads models and puts drafters together."""

from __future__ import annotations

from typing import assert_never

from edge.draft_spec import (
    LOOKUP,
    TEXT,
    CombinationSpec,
    EarlyExit,
    HierarchySpec,
    LowBit,
    ModelSpec,
    Spec,
    TableSpec,
    TreeSpec,
)
from edge.drafters.combination import CombinedDrafter
from edge.drafters.distilled import distilled_path, load_distilled
from edge.drafters.early_exit import early_exit
from edge.drafters.foreign import ForeignDrafter
from edge.drafters.hierarchy import HierarchyDrafter
from edge.drafters.lookup import LookupDrafter
from edge.drafters.low_bit import low_bit_copy
from edge.drafters.model import ModelDrafter
from edge.drafters.spoken import SpokenDrafter
from edge.drafters.suffix import SuffixDrafter
from edge.drafters.target_copy import CopyLoading, load_copy
from edge.drafters.tree import TreeDrafter
from edge.drafters.words import Words
from paceline.drafter import ScoringDrafter
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.errors import IncompatibleError


def assemble(spec: Spec, loading: CopyLoading) -> ScoringDrafter:
    """Return the drafter.

    Args:
        spec: from `parse`.
        loading: the target, and how models run here.

    Raises:
        ConfigError: a model is not there, or does not fit what is asked of it.
        ModelError: a model cannot be loaded.
        IncompatibleError: a model has a tokenizer that does not fit.
    """
    match spec:
        case TableSpec():
            return LookupDrafter() if spec.name == LOOKUP else SuffixDrafter()
        case LowBit() | EarlyExit():
            return _model_drafter(spec, loading)
        case ModelSpec():
            return _foreign(spec, loading) if spec.how else _model_drafter(spec, loading)
        case CombinationSpec():
            return CombinedDrafter([assemble(part, loading) for part in spec.parts])
        case HierarchySpec():
            large = _model_drafter(spec.large, loading)
            return HierarchyDrafter(assemble(spec.small, loading), large)
        case TreeSpec():
            engine = _model_drafter(spec.model, loading).engine
            return TreeDrafter(engine, vocabulary_size=loading.tokenizer.vocabulary_size)
        case _:
            assert_never(spec)


def _model_drafter(spec: Spec, loading: CopyLoading) -> ModelDrafter:
    """Return a drafter that draws tokens of the target's vocabulary."""
    match spec:
        case LowBit():
            engine = load_copy(low_bit_copy(spec), loading)
        case EarlyExit():
            engine = load_copy(early_exit(spec), loading)
        case _:
            assert isinstance(spec, ModelSpec), "checked by `parse`"
            return _same_vocabulary(spec.model, loading)
    return ModelDrafter(engine, vocabulary_size=loading.tokenizer.vocabulary_size)


def _same_vocabulary(model: str, loading: CopyLoading) -> ModelDrafter:
    tokenizer = loading.tokenizer
    path = distilled_path(model)
    if path is not None:
        engine = load_distilled(
            path,
            tokenizer=tokenizer,
            dtype=loading.dtype,
            device=loading.device,
            progress=loading.progress,
        )
        return ModelDrafter(engine, vocabulary_size=tokenizer.vocabulary_size)
    source = resolve(model)
    own = load_tokenizer(source)
    if own.fingerprint != tokenizer.fingerprint:
        # Before the weights are read: this takes a moment, they take minutes.
        raise IncompatibleError(
            f"draft: {model} has tokenizer {own.fingerprint.hex()}, the target {tokenizer.name} has "
            f"{tokenizer.fingerprint.hex()}; token ids would mean different words. Choose a draft of the same model "
            f"family, or say common:{model} or text:{model} to go by what the tokens stand for, or {LOOKUP!r}, which "
            "needs no model"
        )
    engine = load_model(
        source,
        dtype=loading.dtype,
        device=loading.device,
        tokenizer=own,
        progress=loading.progress,
    )
    return ModelDrafter(engine, vocabulary_size=tokenizer.vocabulary_size)


def _foreign(spec: ModelSpec, loading: CopyLoading) -> ScoringDrafter:
    source = resolve(spec.model)
    tokenizer = load_tokenizer(source)
    own, target = Words(tokenizer), Words(loading.tokenizer)
    engine = load_model(
        source,
        dtype=loading.dtype,
        device=loading.device,
        tokenizer=tokenizer,
        progress=loading.progress,
    )
    drafter = ModelDrafter(engine, vocabulary_size=tokenizer.vocabulary_size)
    kind = SpokenDrafter if spec.how == TEXT else ForeignDrafter
    return kind(drafter, own=own, target=target)
