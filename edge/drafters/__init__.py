"""What guesses at the edge. Each drafter is one choice for `--draft`; docs/drafters.md says which to use when."""

from typing import TYPE_CHECKING, Any, Literal

from edge.draft_spec import LOOKUP, parse
from edge.drafters.assembly import assemble
from edge.drafters.draft_loading import DraftLoading
from edge.drafters.lookup import LookupDrafter
from paceline.drafter import ScoringDrafter
from paceline.engine.source import DType, Progress
from paceline.engine.tokenizer import Tokenizer

if TYPE_CHECKING:
    from edge.drafters.model import ModelDrafter

__all__ = ["LOOKUP", "LookupDrafter", "ModelDrafter", "load_drafter"]


def __getattr__(name: str) -> Any:
    """Import what needs PyTorch when it is asked for: an edge may do without."""
    if name == "ModelDrafter":
        from edge.drafters.model import ModelDrafter  # noqa: PLC0415

        return ModelDrafter
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def load_drafter(
    spec: str,
    *,
    tokenizer: Tokenizer,
    dtype: DType = "float32",
    device: Literal["cpu", "cuda"] = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
) -> ScoringDrafter:
    """Return the drafter that a user names. Takes long for a model: not in the event loop.

    Args:
        spec: see `edge.draft_spec`.
        tokenizer: the target's, by whose name its weights are found for drafts that are made of them. A draft model must
            have the same, unless the spec says how to do without.
        dtype: arithmetic of a draft model.
        device: where it runs.
        threads: of a model that llama.cpp computes; None: half as many as this machine has.
        progress: told each stage of the loading.

    Raises:
        ConfigError: it names nothing, or "none", which is the absence of a drafter; or a distilled draft is damaged.
        ModelError: the model cannot be loaded.
        IncompatibleError: the model has another tokenizer.
    """
    loading = DraftLoading(
        tokenizer=tokenizer, dtype=dtype, device=device, threads=threads, progress=progress
    )
    return assemble(parse(spec), loading)
