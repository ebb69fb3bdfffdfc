"""Reads a draft's folder; `draft_folder` says what is in it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from paceline.errors import ConfigError

FORMAT = 1
DESCRIPTION, HEAD, TRAINED = "draft.json", "head.safetensors", "trained.safetensors"
SLOTS, SLOTS_FILE = "slots", "slots.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `--continue-from` takes over."""

    output_ids: NDArray[np.int64]
    weights: dict[str, torch.Tensor]


def is_draft(folder: Path) -> bool:
    """Return whether a folder holds a draft made here."""
    return (folder / DESCRIPTION).is_file()


def check_draft(folder: Path) -> dict[str, Any]:
    """Return what a draft's description says, after comparing every file with its checksum.

    Raises:
        ConfigError: no draft, one of another format, or a damaged one.
    """
    path = folder / DESCRIPTION
    try:
        description: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if description["format"] != FORMAT:
            raise ConfigError(f"draft {path}: of format {description['format']}, expected {FORMAT}")
        for name, expected in description["sha256"].items():
            if sha256_of(folder / name) != expected:
                raise ConfigError(
                    f"draft {folder / name}: its sha256 is not the one in {path.name}"
                )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"draft {path}: cannot be read: {error!r}") from error
    return description


def read_head(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the ids that a draft can say, [W] int64, and its output matrix [W, hidden] in bfloat16."""
    content = load_file(folder / HEAD)
    return content["ids"].long(), content["rows"]


def read_slots(folder: Path) -> torch.Tensor | None:
    """Return the embeddings of a draft's mask slots as they enter its first layer, [slots, hidden]; None: it has none."""
    path = folder / SLOTS_FILE
    return load_file(path)[SLOTS] if path.is_file() else None


def read_trained(folder: Path) -> Trained:
    """Read what a training goes on from.

    Raises:
        ConfigError: as in `check_draft`.
    """
    check_draft(folder)
    ids, _ = read_head(folder)
    return Trained(output_ids=ids.numpy(), weights=load_file(folder / TRAINED))


def read_exact(folder: Path) -> dict[str, torch.Tensor]:
    """Return the trained weights in float32 by their names in the model, without a head of their own."""
    prefix = "model."
    weights = load_file(folder / TRAINED)
    return {k.removeprefix(prefix): v for k, v in weights.items() if k.startswith(prefix)}


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
