"""Makes the drafter that a user names: loads models and puts drafters together."""

from __future__ import annotations

from pathlib import Path
from typing import assert_never

from edge.draft_spec import (
    LOOKUP,
    AdaptSpec,
    BlockSpec,
    CombinationSpec,
    EarlyExit,
    HierarchySpec,
    LlamaSpec,
    LowBit,
    ModelSpec,
    Spec,
    TableSpec,
    TreeSpec,
)
from edge.drafters.combination import CombinedDrafter
from edge.drafters.draft_loading import DraftLoading
from edge.drafters.llama.chain import LlamaDrafter
from edge.drafters.llama.gguf_model import GgufModel, check_vocabulary
from edge.drafters.llama.tree import LlamaTreeDrafter
from edge.drafters.lookup import LookupDrafter
from edge.drafters.suffix import SuffixDrafter
from paceline.drafter import ScoringDrafter


def assemble(spec: Spec, loading: DraftLoading) -> ScoringDrafter:
    """Return the drafter.

    Args:
        spec: from `parse`.
        loading: the target, and how models run here.

    Raises:
        ConfigError: a model or a library is not there, or does not fit what is asked of it.
        ModelError: a model cannot be loaded.
        IncompatibleError: a model has a tokenizer that does not fit.
    """
    match spec:
        case TableSpec():
            return LookupDrafter() if spec.name == LOOKUP else SuffixDrafter()
        case LlamaSpec():
            return _llama(spec, loading, kind=LlamaDrafter)
        case CombinationSpec():
            return CombinedDrafter([assemble(part, loading) for part in spec.parts])
        case TreeSpec(model=LlamaSpec() as model):
            return _llama(model, loading, kind=LlamaTreeDrafter)
        case _:
            return _assemble_models(spec, loading)


def _assemble_models(
    spec: ModelSpec | LowBit | EarlyExit | BlockSpec | HierarchySpec | TreeSpec | AdaptSpec,
    loading: DraftLoading,
) -> ScoringDrafter:
    from edge.drafters import model_assembly as models  # noqa: PLC0415 - it imports PyTorch

    match spec:
        case LowBit() | EarlyExit():
            return models.model_drafter(spec, loading)
        case ModelSpec():
            make = models.foreign_drafter if spec.how else models.model_drafter
            return make(spec, loading)
        case HierarchySpec():
            helpers = [assemble(helper, loading) for helper in spec.helpers]
            return models.hierarchy_drafter(helpers, spec.large, loading)
        case BlockSpec() | TreeSpec(model=BlockSpec()):
            return models.block_drafter(spec, loading)
        case AdaptSpec():
            return models.adaptive_drafter(spec, loading)
        case TreeSpec():
            return models.tree_drafter(spec, loading)
        case _:
            assert_never(spec)


def _llama(spec: LlamaSpec, loading: DraftLoading, *, kind: type[LlamaDrafter]) -> LlamaDrafter:
    tell = loading.progress or (lambda _: None)
    tell(f"{spec.file}: loading it with llama.cpp")
    model = GgufModel(Path(spec.file).expanduser(), on_accelerator=loading.device == "cuda")
    vocabulary_size = check_vocabulary(model, loading.tokenizer)
    return kind(model, vocabulary_size=vocabulary_size, threads=loading.threads)
