"""Are the models there, do they go together, and do they fit?"""

from dataclasses import dataclass

from simulator.doctor.verdicts.check import Check, failed, passed, skipped, warned
from simulator.doctor.verdicts.machine import in_gib

PROGRAM_BYTES = 512 * 2**20
"""Python, PyTorch and the other libraries before any model is loaded, with some room."""
HEADROOM = 1.25
"""Needed memory over the size of the weights: reading them, activations, caches of a few texts. With PROGRAM_BYTES this
comes to the measured peak of `paceline cloud` with smollm2-135m, 1.13 GiB."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFinding:
    """What is known of one model."""

    role: str
    """target or draft."""
    name: str
    error: str = ""
    """Why it cannot be used; then nothing below counts."""
    tokenizer_fingerprint: bytes = b""
    vocabulary_size: int = 0
    weight_bytes: int = 0
    """In the precision it would run in; 0: its weights are not needed on this machine."""
    loaded_s: float | None = None
    """How long loading took; None: it was not asked for."""


def judge_model(finding: ModelFinding) -> Check:
    """Judge one model by itself."""
    if finding.error:
        return failed(
            finding.role,
            finding.error,
            f"Check --{finding.role}: a folder, a GGUF file or a hub name; a hub name needs the internet the first time.",
        )
    found = f"{finding.name}: tokenizer {finding.tokenizer_fingerprint.hex()[:12]} with {finding.vocabulary_size} ids"
    if finding.weight_bytes:
        found += f", weights {in_gib(finding.weight_bytes)}"
    if finding.loaded_s is not None:
        found += f", loaded in {finding.loaded_s:.1f} s"
    return passed(finding.role, found)


def judge_pair(target: ModelFinding, draft: ModelFinding | None) -> Check:
    """Judge whether the draft can guess for the target: ids must mean the same words."""
    if draft is None:
        return skipped("same tokenizer", "there is no draft model that needs it")
    if target.error or draft.error:
        return skipped("same tokenizer", "a model cannot be used")
    if target.tokenizer_fingerprint != draft.tokenizer_fingerprint:
        return failed(
            "same tokenizer",
            f"{draft.name} has {draft.tokenizer_fingerprint.hex()[:12]}, "
            f"{target.name} has {target.tokenizer_fingerprint.hex()[:12]}",
            "Choose a draft of the target's family, or --draft lookup, which needs no model.",
        )
    return passed("same tokenizer", target.tokenizer_fingerprint.hex()[:12])


def judge_fit(models: tuple[ModelFinding, ...], *, available_bytes: int | None) -> Check:
    """Judge whether all weights that this machine needs fit into what memory is available."""
    name = "memory for models"
    if any(model.error for model in models):
        return skipped(name, "a model cannot be used")
    weights = sum(model.weight_bytes for model in models)
    if not weights:
        return skipped(name, "no weights are needed here")
    if available_bytes is None:
        return skipped(name, "the available memory is not known")
    needed = PROGRAM_BYTES + round(HEADROOM * weights)
    found = f"about {in_gib(needed)} needed, {in_gib(available_bytes)} available"
    if needed > available_bytes:
        return failed(name, found, "Choose smaller models, --dtype bfloat16, or a larger machine.")
    if 2 * needed > available_bytes:
        return warned(
            name, found, "Close: long prompts and many answers at once need memory beyond this."
        )
    return passed(name, found)
