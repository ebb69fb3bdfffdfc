"""Makes the drafters that PyTorch computes. Imported only for those: it takes seconds, and an edge may do without."""

from __future__ import annotations

from collections.abc import Sequence

from edge.draft_spec import (
    LOOKUP,
    TEXT,
    AdaptSpec,
    BlockSpec,
    EarlyExit,
    LowBit,
    ModelSpec,
    Spec,
    TreeSpec,
)
from edge.drafters.adaptive import AdaptiveDrafter
from edge.drafters.block import BlockDrafter
from edge.drafters.block_loading import load_block
from edge.drafters.distilled import distilled_path, load_distilled
from edge.drafters.draft_loading import DraftLoading
from edge.drafters.early_exit import early_exit
from edge.drafters.foreign import ForeignDrafter
from edge.drafters.hierarchy import HierarchyDrafter
from edge.drafters.low_bit import low_bit_copy
from edge.drafters.model import SETTINGS, ModelDrafter
from edge.drafters.spoken import SpokenDrafter
from edge.drafters.suffix_tree import SuffixTreeDrafter
from edge.drafters.target_copy import load_copy
from edge.drafters.tree import TreeDrafter
from edge.drafters.words import Words
from paceline.drafter import ScoringDrafter
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.errors import IncompatibleError


def hierarchy_drafter(
    helpers: Sequence[ScoringDrafter], large: Spec, loading: DraftLoading
) -> HierarchyDrafter:
    """Return a model that other drafters draft for."""
    return HierarchyDrafter(helpers, model_drafter(large, loading))


def tree_drafter(spec: TreeSpec, loading: DraftLoading) -> TreeDrafter:
    """Return a model that drafts trees."""
    engine = model_drafter(spec.model, loading).engine
    kind = SuffixTreeDrafter if spec.with_suffix else TreeDrafter
    return kind(engine, vocabulary_size=loading.tokenizer.vocabulary_size)


def adaptive_drafter(spec: AdaptSpec, loading: DraftLoading) -> AdaptiveDrafter:
    """Return a model, chain or tree, that learns from what the target says."""
    if isinstance(spec.model, TreeSpec):
        return AdaptiveDrafter(tree_drafter(spec.model, loading))
    return AdaptiveDrafter(model_drafter(spec.model, loading))


def block_drafter(spec: BlockSpec | TreeSpec, loading: DraftLoading) -> BlockDrafter:
    """Return a draft that guesses several positions in one pass, for chains and trees alike."""
    block = spec.model if isinstance(spec, TreeSpec) else spec
    assert isinstance(block, BlockSpec), "looked at before"
    return load_block(block.model, loading)


def model_drafter(spec: Spec, loading: DraftLoading) -> ModelDrafter:
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


def _same_vocabulary(model: str, loading: DraftLoading) -> ModelDrafter:
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
        settings=SETTINGS,
        tokenizer=own,
        progress=loading.progress,
    )
    return ModelDrafter(engine, vocabulary_size=tokenizer.vocabulary_size)


def foreign_drafter(spec: ModelSpec, loading: DraftLoading) -> ScoringDrafter:
    """Return a drafter with a vocabulary of its own."""
    source = resolve(spec.model)
    tokenizer = load_tokenizer(source)
    own, target = Words(tokenizer), Words(loading.tokenizer)
    engine = load_model(
        source,
        dtype=loading.dtype,
        device=loading.device,
        settings=SETTINGS,
        tokenizer=tokenizer,
        progress=loading.progress,
    )
    drafter = ModelDrafter(engine, vocabulary_size=tokenizer.vocabulary_size)
    kind = SpokenDrafter if spec.how == TEXT else ForeignDrafter
    return kind(drafter, own=own, target=target)
