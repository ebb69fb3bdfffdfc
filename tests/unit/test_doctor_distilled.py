"""What the doctor says of drafts that `paceline distil` made."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from edge.drafters.distilled import distilled_path
from simulator.doctor.probes.models import look_at_model
from simulator.doctor.verdicts.models import ModelFinding

SHIPPED = "smollm2-135m-draft"


def looked(name: str, *, is_block: bool = False) -> ModelFinding:
    return look_at_model(
        name, role="draft", dtype="bfloat16", weights="count", deadline_s=60.0, is_block=is_block
    )


def test_the_draft_that_comes_along_can_be_used_and_has_no_slots() -> None:
    found = looked(SHIPPED)
    assert found.error == ""
    path = distilled_path(SHIPPED)
    assert path is not None
    with safe_open(path, framework="pt") as content:
        description = json.loads(content.metadata()["paceline"])["description"]
    assert found.tokenizer_fingerprint.hex() == description["tokenizer"]
    assert found.vocabulary_size == 49_152
    # Embeddings of 576 numbers and eight layers of 3.5 million, two bytes each.
    assert found.weight_bytes == pytest.approx(2 * (576 * 49_152 + 8 * 3.54e6), rel=0.01)
    assert "no mask slots" in looked(SHIPPED, is_block=True).error


def test_a_draft_with_slots_can_stand_behind_block(tmp_path: Path) -> None:
    path = distilled_path(SHIPPED)
    assert path is not None
    with safe_open(path, framework="pt") as content:
        metadata = content.metadata()
    file = tmp_path / "slots.draft"
    save_file(load_file(path) | {"slots": torch.zeros(3, 576)}, file, metadata=metadata)
    assert looked(str(file), is_block=True).error == ""


def test_a_damaged_draft_and_one_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "broken.draft"
    file.write_bytes(b"no draft")
    assert "cannot be read" in looked(str(file)).error
    assert "no draft that paceline distil --block made" in looked("gone", is_block=True).error
