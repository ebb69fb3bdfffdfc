"""Runs the stages of a distillation one after another, each from where it was left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from edge.distillation.compact import SUFFIX, pack_draft
from edge.distillation.practice_stage import PracticeStage, practise
from edge.distillation.progress import Progress
from edge.distillation.recipe import working_in
from edge.distillation.report_stage import ReportStage, write_report
from edge.distillation.train_stage import TrainStage, draft_folder, train_draft
from edge.distillation.training import TrainSettings
from edge.distillation.write_stage import WriteStage, write_text
from edge.distillation.writing import WritingSettings
from paceline.errors import ConfigError

PRACTISED_SHARE = 0.5
"""Tokens that a practised student sees, of those that it saw before."""
PRACTISED_RATE = 0.4
"""Its peak learning rate, of the one before: it is near where it should be."""


def run(values: Mapping[str, Any]) -> None:
    """Run what the options of `paceline distil` ask for."""
    if values["threads"] is not None:
        torch.set_num_threads(values["threads"])
    folder: Path = values["out"]
    progress = Progress()
    if values["only"] in (None, "write"):
        with working_in(folder, on="writing"):
            write_text(folder, _write_stage(values), progress=progress)
    if values["only"] in (None, "train"):
        with working_in(folder, on=f"training-{values['student']}"):
            draft = train_draft(folder, _train_stage(values), progress=progress)
        progress.note(f"draft saved in {draft}")
    if values["only"] in (None, "practice"):
        _practise(values, progress)
    if values["only"] in (None, "report"):
        stage = ReportStage(
            draft=_last_draft(values),
            dtype=values["dtype"],
            device=values["device"],
        )
        progress.note(f"report saved in {write_report(folder, stage, progress=progress)}")
    if values["only"] in (None, "pack"):
        draft = _last_draft(values)
        file = draft.with_name(draft.name + SUFFIX)
        size = pack_draft(draft, file)
        progress.note(f"packed into {file}: {size / 1e6:.1f} MB")


def _practise(values: Mapping[str, Any], progress: Progress) -> None:
    """Let the trained student draft, and train it on that too; nothing without --practice-tokens."""
    if not values["practice_tokens"]:
        if values["only"] == "practice":
            raise ConfigError("practice-tokens: got 0 with --only practice; say how many to draft")
        return
    folder, student = values["out"], values["student"]
    stage = PracticeStage(
        name=f"practice-{student}",
        draft=draft_folder(folder, student),
        num_tokens=values["practice_tokens"],
        seed=values["seed"],
        dtype=values["dtype"],
        device=values["device"],
    )
    with working_in(folder, on=stage.name):
        drafts = practise(folder, stage, progress=progress)
    with working_in(folder, on=f"training-{_practised(student)}"):
        onward = _onward(values, practice=drafts, draft=stage.draft)
        draft = train_draft(folder, onward, progress=progress)
    progress.note(f"draft saved in {draft}")


def _onward(values: Mapping[str, Any], *, practice: Path, draft: Path) -> TrainStage:
    """The training after the practice: shorter and gentler than the one before, of which it is the end."""
    first = _train_stage(values)
    settings = replace(
        first.settings,
        num_tokens=int(PRACTISED_SHARE * first.settings.num_tokens),
        rate=PRACTISED_RATE * first.settings.rate,
    )
    name = _practised(first.name)
    return replace(first, name=name, practice=practice, continue_from=draft, settings=settings)


def _practised(student: str) -> str:
    return f"{student}-practised"


def _last_draft(values: Mapping[str, Any]) -> Path:
    """The draft that all stages together make."""
    student = values["student"]
    name = _practised(student) if values["practice_tokens"] else student
    return draft_folder(values["out"], name)


def _write_stage(values: Mapping[str, Any]) -> WriteStage:
    return WriteStage(
        target=values["target"],
        num_tokens=values["write_tokens"],
        seed=values["seed"],
        dtype=values["dtype"],
        device=values["device"],
        scripts_per_shard=values["scripts_per_shard"],
        settings=WritingSettings(num_slots=values["batch"], max_length=values["max_length"]),
        exclude=values["exclude"],
        documents=values["documents"],
        prompts=values["prompts"],
    )


def _train_stage(values: Mapping[str, Any]) -> TrainStage:
    return TrainStage(
        name=values["student"],
        num_layers=values["num_layers"],
        layers=values["layers"],
        head=values["head"],
        num_outputs=values["outputs"],
        continue_from=values["continue_from"],
        fit_tokens=values["fit_tokens"],
        block=values["block"],
        device=values["device"],
        settings=TrainSettings(
            num_tokens=values["train_tokens"],
            batches_per_step=values["batches_per_step"],
            rate=values["rate"],
            bfloat16=values["dtype"] == "bfloat16",
            bits=None if values["bits"] == "none" else int(values["bits"]),
            seed=values["seed"],
        ),
    )
