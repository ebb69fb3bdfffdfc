"""Loads drafts that `paceline distil` made: a folder, or the one small file that a folder is packed into."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from edge.distillation.compact import (
    OUTPUT,
    SUFFIX,
    read_description,
    read_levels,
    read_output_type,
    unpacked,
)
from edge.distillation.draft_reading import check_draft, is_draft, read_head
from edge.drafters.matrices import LowBitMatrix, can_multiply
from edge.drafters.model import SETTINGS
from paceline.engine.architecture import context_length
from paceline.engine.engine import Engine
from paceline.engine.fingerprint import weights_fingerprint
from paceline.engine.lean import LeanModel, is_lean
from paceline.engine.loading import load_model, load_weights, resolve
from paceline.engine.partial_head import PartialHead
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import IncompatibleError
from paceline.messages import ModelIdentity

SHIPPED = Path(__file__).parents[1] / "drafts"
"""Drafts that come with the package, each found by its file's name without the suffix."""


def distilled_path(spec: str) -> Path | None:
    """Return where a distilled draft is, or None if the name means something else."""
    shipped = SHIPPED / f"{spec}{SUFFIX}"
    if spec == Path(spec).name and shipped.is_file():
        return shipped
    path = Path(spec).expanduser()
    if path.suffix == SUFFIX and path.is_file():
        return path
    return path if spec and path.is_dir() and is_draft(path) else None


def load_distilled(path: Path, *, tokenizer: Tokenizer, **loading: Any) -> Engine:
    """Load a draft for the target whose tokenizer is given.

    Args:
        path: from `distilled_path`.
        tokenizer: the target's.
        loading: `dtype`, `device` and `progress` of `load_model`.

    Raises:
        ConfigError: the draft is damaged or of another format.
        IncompatibleError: it was made for another tokenizer.
        ModelError: it cannot be loaded.
    """
    if path.is_file():
        check_tokenizer(path, read_description(path)["tokenizer"], tokenizer)
        with unpacked(path) as folder:
            packed = _load_packed(path, folder, tokenizer, loading)
            return packed or _load(folder, tokenizer, loading)
    check_tokenizer(path, check_draft(path)["tokenizer"], tokenizer)
    return _load(path, tokenizer, loading)


def _load(folder: Path, tokenizer: Tokenizer, loading: dict[str, Any]) -> Engine:
    engine = load_model(resolve(str(folder)), tokenizer=tokenizer, settings=SETTINGS, **loading)
    engine.limit_output(*read_head(folder))
    return engine


def lean_model(file: Path, folder: Path) -> LeanModel | None:
    """Return a packed draft as a model that multiplies its levels as they are; None where that cannot be done.

    Args:
        file: the draft.
        folder: the same, unpacked.
    """
    levels = read_levels(file)
    if not can_multiply(list(levels.values())):
        return None
    model = load_weights(resolve(str(folder)), dtype="bfloat16")
    names = {
        name for name, value in model.named_parameters() if "layers" in name and value.dim() == 2
    }
    if not is_lean(model.config) or not {OUTPUT, *names} <= set(levels):
        return None

    def make(parts: Sequence[str], order: Tensor | None = None) -> LowBitMatrix:
        return LowBitMatrix([levels[name] for name in parts], order)

    ids, _ = read_head(folder)
    size = model.get_input_embeddings().num_embeddings
    ids, order = ids.long().sort()
    head = PartialHead(ids, make([OUTPUT], order), vocabulary_size=size)
    return LeanModel(model, make=make, head=head)


def _load_packed(
    file: Path, folder: Path, tokenizer: Tokenizer, loading: dict[str, Any]
) -> Engine | None:
    """Run a packed draft on its levels, in bfloat16 whatever is asked for; None where that cannot be done."""
    if loading.get("device", "cpu") != "cpu":
        return None
    tell = loading.get("progress") or (lambda _: None)
    tell(f"{file.name}: packing its matrices")
    model = lean_model(file, folder)
    if model is None:
        return None
    return Engine(model, identity=packed_identity(file, model, tokenizer), settings=SETTINGS)


def packed_identity(file: Path, model: LeanModel, tokenizer: Tokenizer) -> ModelIdentity:
    """Return what a packed draft that runs on its levels is."""
    size = model.get_input_embeddings().num_embeddings
    bits = read_output_type(file).removeprefix("L")
    return ModelIdentity(
        name=file.stem,
        weights_fingerprint=weights_fingerprint(model, name=file.name),
        dtype="bfloat16",
        quantisation=f"levels of {bits} bits",
        tokenizer_fingerprint=tokenizer.fingerprint,
        vocabulary_size=min(tokenizer.vocabulary_size, size),
        context_length=context_length(model.config),
    )


def check_tokenizer(path: Path, expected: str, tokenizer: Tokenizer) -> None:
    """Raise unless a draft was made for this tokenizer.

    Args:
        path: of the draft.
        expected: fingerprint of its tokenizer, hexadecimal.
        tokenizer: the target's.

    Raises:
        IncompatibleError: it was made for another one.
    """
    if expected != tokenizer.fingerprint.hex():
        raise IncompatibleError(
            f"draft: {path} was made for tokenizer {expected}, the target {tokenizer.name} has "
            f"{tokenizer.fingerprint.hex()}; token ids would mean different words. Make one for this target: "
            f"paceline distil --target {tokenizer.name} --out FOLDER"
        )
