"""Loads drafts that `paceline distil` made: a folder, or the one small file that a folder is packed into."""

from pathlib import Path
from typing import Any

from edge.distillation.compact import SUFFIX, read_description, unpacked
from edge.distillation.draft_reading import check_draft, is_draft, read_head
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import IncompatibleError


def distilled_path(spec: str) -> Path | None:
    """Return where a distilled draft is, or None if the name means something else."""
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
        _check_tokenizer(path, read_description(path)["tokenizer"], tokenizer)
        with unpacked(path) as folder:
            return _load(folder, tokenizer, loading)
    _check_tokenizer(path, check_draft(path)["tokenizer"], tokenizer)
    return _load(path, tokenizer, loading)


def _load(folder: Path, tokenizer: Tokenizer, loading: dict[str, Any]) -> Engine:
    engine = load_model(resolve(str(folder)), tokenizer=tokenizer, **loading)
    engine.limit_output(*read_head(folder))
    return engine


def _check_tokenizer(path: Path, expected: str, tokenizer: Tokenizer) -> None:
    if expected != tokenizer.fingerprint.hex():
        raise IncompatibleError(
            f"draft: {path} was made for tokenizer {expected}, the target {tokenizer.name} has "
            f"{tokenizer.fingerprint.hex()}; token ids would mean different words. Make one for this target: "
            f"paceline distil --target {tokenizer.name} --out FOLDER"
        )
