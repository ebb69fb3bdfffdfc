"""What guesses at the edge. Each drafter is one choice for `--draft`."""

from typing import Literal

from edge.drafters.distilled import distilled_path, load_distilled
from edge.drafters.lookup import LookupDrafter
from edge.drafters.model import ModelDrafter
from paceline.drafter import Drafter
from paceline.engine.loading import DType, Progress, load_model, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError, IncompatibleError

LOOKUP = "lookup"
"""Names the drafter that needs no model."""

__all__ = ["LOOKUP", "LookupDrafter", "ModelDrafter", "load_drafter"]


def load_drafter(
    spec: str,
    *,
    tokenizer: Tokenizer,
    dtype: DType = "float32",
    device: Literal["cpu", "cuda"] = "cpu",
    progress: Progress | None = None,
) -> Drafter:
    """Return the drafter that a user names. Takes long for a model: not in the event loop.

    Args:
        spec: "lookup", or a model: hub name, folder, GGUF file or short name; or what
            `paceline distil` made.
        tokenizer: the target's; a draft model must have the same.
        dtype: arithmetic of a draft model.
        device: where it runs.
        progress: told each stage of the loading.

    Raises:
        ConfigError: it names nothing, or "none", which is the absence of a drafter; or a distilled draft is damaged.
        ModelError: the model cannot be loaded.
        IncompatibleError: the model has another tokenizer.
    """
    if spec == LOOKUP:
        return LookupDrafter()
    if spec == "none":
        raise ConfigError("draft: 'none' names no drafter; leave the drafter out instead")
    path = distilled_path(spec)
    if path is not None:
        engine = load_distilled(
            path, tokenizer=tokenizer, dtype=dtype, device=device, progress=progress
        )
        return ModelDrafter(engine, vocabulary_size=tokenizer.vocabulary_size)
    source = resolve(spec)
    own = load_tokenizer(source)
    if own.fingerprint != tokenizer.fingerprint:
        # Before the weights are read: this takes a moment, they take minutes.
        raise IncompatibleError(
            f"draft: {spec} has tokenizer {own.fingerprint.hex()}, the target {tokenizer.name} has "
            f"{tokenizer.fingerprint.hex()}; token ids would mean different words. Choose a draft of the same model "
            f"family, or {LOOKUP!r}, which needs no model"
        )
    engine = load_model(source, dtype=dtype, device=device, tokenizer=own, progress=progress)
    return ModelDrafter(engine, vocabulary_size=tokenizer.vocabulary_size)
