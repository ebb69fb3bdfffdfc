"""What guesses at the edge. Each drafter is one choice for `--draft`; docs/drafters.md says which to use when."""

from typing import Literal

from edge.draft_spec import LOOKUP, parse
from edge.drafters.assembly import assemble
from edge.drafters.lookup import LookupDrafter
from edge.drafters.model import ModelDrafter
from edge.drafters.target_copy import CopyLoading
from paceline.drafter import ScoringDrafter
from paceline.engine.loading import DType, Progress
from paceline.engine.tokenizer import Tokenizer

__all__ = ["LOOKUP", "LookupDrafter", "ModelDrafter", "load_drafter"]


def load_drafter(
    spec: str,
    *,
    tokenizer: Tokenizer,
    dtype: DType = "float32",
    device: Literal["cpu", "cuda"] = "cpu",
    progress: Progress | None = None,
) -> ScoringDrafter:
    """Return the drafter that a user names. Takes long for a model: not in the event loop.

    Args:
        spec: see `edge.draft_spec`.
        tokenizer: the target's, by whose name its weights are found for drafts that are made of them. A draft model must
            have the same, unless the spec says how to do without.
        dtype: arithmetic of a draft model.
        device: where it runs.
        progress: told each stage of the loading.

    Raises:
        ConfigError: it names nothing, or "none", which is the absence of a drafter; or a distilled draft is damaged.
        ModelError: the model cannot be loaded.
        IncompatibleError: the model has another tokenizer.
    """
    parsed = parse(spec)
    return assemble(
        parsed, CopyLoading(tokenizer=tokenizer, dtype=dtype, device=device, progress=progress)
    )
