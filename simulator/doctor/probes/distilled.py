"""Looks at drafts that `paceline distil` made: a folder, or the file that it is packed into."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
from safetensors import safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from edge.distillation.compact import read_description, unpacked
from edge.distillation.draft_reading import SLOTS, check_draft, read_slots
from paceline.clock import MonotonicClock
from paceline.engine.loading import DType, load_weights, resolve
from simulator.doctor.verdicts.models import ModelFinding

CONFIGURATION = "config.json"
BYTES_PER_WEIGHT: dict[DType, int] = {"float32": 4, "bfloat16": 2}


def look_at_distilled(
    name: str,
    path: Path,
    *,
    dtype: DType,
    weights: Literal["none", "count", "load"],
    is_block: bool,
) -> ModelFinding:
    """Return what can be told of a draft.

    Args:
        name: as in --draft.
        path: of the draft.
        dtype: what it would run in.
        weights: whether to leave them alone, to count them, or to load them.
        is_block: it stands behind block:, so it needs mask slots.

    Raises:
        PacelineError: it is damaged, or of another format.
    """
    record = read_description(path) if path.is_file() else check_draft(path)
    if is_block and not _has_slots(path):
        return ModelFinding(
            role="draft",
            name=name,
            error=f"{name}: has no mask slots and guesses one position a pass; leave block: out",
        )
    config = _configuration(path)
    found = ModelFinding(
        role="draft",
        name=name,
        tokenizer_fingerprint=bytes.fromhex(record["tokenizer"]),
        vocabulary_size=config.get_text_config().vocab_size,
    )
    if weights == "none":
        return found
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    num_weights = sum(parameter.numel() for parameter in model.parameters())
    found = replace(found, weight_bytes=num_weights * BYTES_PER_WEIGHT[dtype])
    if weights == "count":
        return found
    clock = MonotonicClock()
    started_s = clock.now_s()
    with _folder_of(path) as folder:
        load_weights(resolve(str(folder)), dtype=dtype)
    return replace(found, loaded_s=clock.now_s() - started_s)


def _has_slots(path: Path) -> bool:
    if path.is_dir():
        return read_slots(path) is not None
    with safe_open(path, framework="pt") as content:
        return SLOTS in set(content.keys())


def _configuration(path: Path) -> Any:
    """Return the configuration of a draft; a file is not unpacked for it, which takes seconds."""
    if path.is_dir():
        return AutoConfig.from_pretrained(**resolve(str(path)).arguments)
    with safe_open(path, framework="pt") as content:
        about = json.loads(content.metadata()["paceline"])
    with TemporaryDirectory(prefix="paceline-doctor-") as folder:
        (Path(folder) / CONFIGURATION).write_text(about["configuration"][CONFIGURATION])
        return AutoConfig.from_pretrained(folder)


@contextmanager
def _folder_of(path: Path) -> Iterator[Path]:
    """Give a draft's folder; a file is unpacked."""
    if path.is_dir():
        yield path
        return
    with unpacked(path) as folder:
        yield folder
