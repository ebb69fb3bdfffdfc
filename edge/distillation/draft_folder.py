"""A draft in a folder: everything an edge needs, and nothing of the target.

config.json, model.safetensors   the student as a transformers model, with embeddings for the whole vocabulary
head.safetensors                 ids [W] int32 that it can say, rows [W, hidden] of its output matrix
tokenizer.json ...               the target's tokenizer
draft.json                       format, version, target, recipe, sha256 of every file above
README.md                        model card
"""

from __future__ import annotations

import hashlib
import json
import shutil
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from edge.distillation.progress import without_bars
from edge.distillation.student import ATTENTION, Student
from paceline.engine.loading import ModelSource
from paceline.errors import ConfigError

FORMAT = 1
VERSION = "0.1.0"
DESCRIPTION, HEAD, CARD = "draft.json", "head.safetensors", "README.md"
TRAINED = "trained.safetensors"


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRecord:
    """What a draft was made from."""

    target: str
    target_weights: str
    """Fingerprint, hexadecimal."""
    tokenizer: str
    """Fingerprint, hexadecimal."""
    layers: tuple[int, ...]
    head: str
    text: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """What `--continue-from` takes over."""

    output_ids: NDArray[np.int64]
    weights: dict[str, torch.Tensor]


def save_draft(folder: Path, student: Student, *, source: ModelSource, record: DraftRecord) -> None:
    """Write a draft; one that was there before is replaced once the new one is whole."""
    temporary = folder.with_name(f".{folder.name}.unfinished")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    model = student.model
    model.set_attn_implementation("eager")  # the name that is saved; ours means nothing elsewhere
    try:
        with without_bars():
            _half(model).save_pretrained(temporary)
    finally:
        model.set_attn_implementation(ATTENTION)
    head = {"ids": student.output_ids.int().cpu(), "rows": student.head.detach().bfloat16().cpu()}
    save_file(head, temporary / HEAD)
    # In full precision: training goes on from here.
    exact = {name: value.detach().cpu().contiguous() for name, value in student.trained()}
    save_file(exact, temporary / TRAINED)
    AutoTokenizer.from_pretrained(**source.arguments).save_pretrained(temporary)
    (temporary / CARD).write_text(_card(record, student), encoding="utf-8")
    sums = {path.name: _sha256(path) for path in sorted(temporary.iterdir())}
    description = {"format": FORMAT, "version": VERSION} | asdict(record) | {"sha256": sums}
    (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


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
            if _sha256(folder / name) != expected:
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


def read_trained(folder: Path) -> Trained:
    """Read what a training goes on from.

    Raises:
        ConfigError: as in `check_draft`.
    """
    check_draft(folder)
    ids, _ = read_head(folder)
    return Trained(output_ids=ids.numpy(), weights=load_file(folder / TRAINED))


def _half(model: Any) -> Any:
    """A copy in bfloat16, the arithmetic that drafts are run in."""
    return deepcopy(model).to(torch.bfloat16)


def _card(record: DraftRecord, student: Student) -> str:
    num_trained = sum(value.numel() for _, value in student.trained())
    return (
        f"# Draft model for {record.target}\n\n"
        f"Guesses what {record.target} says next, for speculative decoding with Paceline. Not a model to talk to.\n\n"
        f"- Made from layers {', '.join(map(str, record.layers))} of the target; {num_trained:,} trained weights.\n"
        f"- Can say {len(student.output_ids):,} of the target's tokens; the target says the others itself.\n"
        f"- Trained on text that the target wrote itself; recipe and checksums: `{DESCRIPTION}`.\n"
        "- Licence: that of the target.\n"
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
