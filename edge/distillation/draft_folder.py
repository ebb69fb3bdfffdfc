"""A draft in a folder: everything an edge needs, and nothing of the target.

config.json, model.safetensors   the student as a transformers model, with embeddings for the whole vocabulary
head.safetensors                 ids [W] int32 that it can say, rows [W, hidden] of its output matrix
slots.safetensors                embeddings of mask slots, if it guesses several positions in one pass
tokenizer.json ...               the target's tokenizer
draft.json                       format, version, target, recipe, sha256 of every file above
README.md                        model card
"""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoTokenizer

from edge.distillation.block_student import BlockStudent
from edge.distillation.draft_reading import (
    DESCRIPTION,
    FORMAT,
    HEAD,
    SLOTS,
    SLOTS_FILE,
    TRAINED,
    sha256_of,
)
from edge.distillation.progress import without_bars
from edge.distillation.student import ATTENTION, Student
from paceline.engine.loading import ModelSource

VERSION = "0.1.0"
CARD = "README.md"


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
    if isinstance(student, BlockStudent):
        save_file({SLOTS: student.slots.detach().cpu().contiguous()}, temporary / SLOTS_FILE)
    # In full precision: training goes on from here.
    exact = {name: value.detach().cpu().contiguous() for name, value in student.trained()}
    save_file(exact, temporary / TRAINED)
    AutoTokenizer.from_pretrained(**source.arguments).save_pretrained(temporary)
    (temporary / CARD).write_text(_card(record, student), encoding="utf-8")
    sums = {path.name: sha256_of(path) for path in sorted(temporary.iterdir())}
    description = {"format": FORMAT, "version": VERSION} | asdict(record)
    description |= {"matrices": _matrices(model), "sha256": sums}
    (temporary / DESCRIPTION).write_text(json.dumps(description, indent=2), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _matrices(model: Any) -> dict[str, str | None]:
    """Names in the file of the embeddings and of the output matrix, if that is another."""
    names = {id(value): name for name, value in model.named_parameters()}
    embeddings = names[id(model.get_input_embeddings().weight)]
    output = names[id(model.get_output_embeddings().weight)]
    return {"embeddings": embeddings, "output": None if output == embeddings else output}


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
        f"{_block_line(student)}"
        f"- Trained on text that the target wrote itself; recipe and checksums: `{DESCRIPTION}`.\n"
        "- Licence: that of the target.\n"
    )


def _block_line(student: Student) -> str:
    if not isinstance(student, BlockStudent):
        return ""
    return f"- Guesses {student.num_slots + 1} positions in one pass: `--draft block:...`.\n"
