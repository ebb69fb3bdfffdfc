"""The second stage: a student learns from the written text, from where it was left."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from edge.distillation.block_student import BlockStudent
from edge.distillation.block_training import BlockTrainer
from edge.distillation.draft_folder import DraftRecord, save_draft
from edge.distillation.draft_reading import SLOTS, check_draft, read_trained
from edge.distillation.measure import Guesses, Tally
from edge.distillation.packing import output_vocabulary
from edge.distillation.practice_stage import practice_recipe
from edge.distillation.practice_training import PracticeTrainer
from edge.distillation.progress import Progress
from edge.distillation.recipe import RECIPE, settle
from edge.distillation.student import (
    Student,
    StudentShape,
    default_layers,
    make_student,
    spread_layers,
)
from edge.distillation.train_run import TrainRun, WrittenText
from edge.distillation.train_state import TrainState, load_weights
from edge.distillation.training import Trainer, TrainSettings
from edge.distillation.write_stage import TEXT
from paceline.engine.loading import load_tokenizer, resolve
from paceline.engine.loading import load_weights as load_target
from paceline.errors import ConfigError

TRAINING = "training"
DRAFT = "draft"
MEASURED_TOKENS = 32_768
"""Held-out positions that the live estimate looks at."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainStage:
    """What the draft depends on, besides the text."""

    name: str = TRAINING
    """Folder of this training in the run's; several students can learn from one text."""
    num_layers: int = 4
    layers: tuple[int, ...] = ()
    """Layers of the target; none: `num_layers` spread over all, or the first and the last where nothing is fitted."""
    head: str = "frozen"
    num_outputs: int = 16_384
    continue_from: Path | None = None
    """A draft of the same shape whose weights are taken over."""
    fit_tokens: int = 131_072
    """Text on which the copied layers are fitted before training; 0: they are left as they are."""
    device: Literal["cpu", "cuda"] = "cpu"
    block: int = 1
    """Positions that the draft guesses in one pass; all but the first are learned by mask slots."""
    practice: Path | None = None
    """Drafts of an earlier student that are learned from besides the text, see `practice_stage`."""
    save_every: int = 25
    """Steps between two states on disk."""
    measure_every: int = 100
    settings: TrainSettings = field(default_factory=TrainSettings)


def train_draft(folder: Path, stage: TrainStage, *, progress: Progress) -> Path:
    """Train to the end and save the draft; return its folder.

    Raises:
        ConfigError: no text yet, or the training was started with other settings.
        ModelError: the target cannot be loaded.
    """
    text = WrittenText(folder / TEXT)
    if text.available == 0:
        raise ConfigError(f"out: {folder} holds no text; write some first (--only write)")
    recipe = json.loads((folder / RECIPE).read_text(encoding="utf-8"))
    state = TrainState(folder / stage.name)
    source = resolve(recipe["target"])
    target = load_target(source, dtype="float32", device=stage.device)
    num_layers = target.config.get_text_config().num_hidden_layers
    choose = spread_layers if stage.fit_tokens > 0 else default_layers
    layers = stage.layers or choose(num_layers, stage.num_layers)
    if stage.practice is not None and stage.block > 1:
        raise ConfigError(f"block: got {stage.block} with practice; expected one or the other")
    settle(folder / stage.name, _settings(stage, layers))
    student = _student(target, stage, state=state, layers=layers, text=text, source=source)
    run = TrainRun(text=text, state=state, student=student, settings=stage.settings)
    trainer = _trainer(run, stage)
    step = state.load(student, trainer.optimiser)
    if step is None:
        step = 0
        if stage.continue_from is None and stage.fit_tokens > 0:
            run.fit(target, layers=layers, num_tokens=stage.fit_tokens, progress=progress)
        state.save(student, trainer.optimiser, step=step)
    del target
    _learn(run, trainer, stage, first=step, progress=progress)
    record = DraftRecord(
        target=recipe["target"],
        target_weights=recipe["weights"],
        tokenizer=recipe["tokenizer"],
        layers=layers,
        head=stage.head,
        text=recipe,
        training=_history(stage, layers),
    )
    draft = draft_folder(folder, stage.name)
    save_draft(draft, student, source=source, record=record)
    return draft


def _learn(
    run: TrainRun, trainer: Trainer, stage: TrainStage, *, first: int, progress: Progress
) -> None:
    """Take all steps from `first` on."""
    settings, state = stage.settings, run.state
    num_batches = max(1, MEASURED_TOKENS // settings.batch_tokens)
    progress.begin("training", total=_seen(stage, settings.num_steps), done=_seen(stage, first))
    for number, groups, packer in run.steps(first=first):
        loss = trainer.step([packer.pack(group) for group in groups], number=number)
        state.note({"step": number + 1, "loss": loss})
        progress.advance(_seen(stage, 1))
        done = number + 1
        last = done == settings.num_steps
        if last or done % stage.measure_every == 0:
            tally = trainer.measure(run.held_out(num_batches))
            state.note({"step": done} | _line(tally))
            if isinstance(trainer, BlockTrainer):
                tallies = trainer.measure_slots(run.held_out(num_batches))
                state.note({"step": done, "block": [_figures(one.total) for one in tallies]})
            progress.settle(_seen(stage, done), f"step {done}, loss {loss:.3f}, {_brief(tally)}")
        if last or done % stage.save_every == 0:
            state.save(run.student, trainer.optimiser, step=done)
    progress.end()


def draft_folder(folder: Path, name: str) -> Path:
    """Return where the draft of a training is saved."""
    return folder / (DRAFT if name == TRAINING else f"{DRAFT}-{name}")


def _settings(stage: TrainStage, layers: Sequence[int]) -> dict[str, Any]:
    settings = {
        "layers": list(layers),
        "head": stage.head,
        "num_outputs": stage.num_outputs,
        "fit_tokens": stage.fit_tokens,
        "continue_from": None if stage.continue_from is None else str(stage.continue_from),
        "training": asdict(stage.settings),
    }
    # Left out where there are none, so that trainings from before there were blocks go on.
    settings |= {"block": stage.block} if stage.block > 1 else {}
    return settings | (
        {} if stage.practice is None else {"practice": practice_recipe(stage.practice)}
    )


def _history(stage: TrainStage, layers: Sequence[int]) -> dict[str, Any]:
    """Return the settings, with those of the draft that it went on from in place of where that stood."""
    before = None if stage.continue_from is None else check_draft(stage.continue_from)["training"]
    return _settings(stage, layers) | {"continue_from": before}


def _trainer(run: TrainRun, stage: TrainStage) -> Trainer:
    if stage.practice is not None:
        return PracticeTrainer(run.student, stage.settings, run.practice(stage.practice))
    if isinstance(run.student, BlockStudent):
        return BlockTrainer(run.student, stage.settings)
    return Trainer(run.student, stage.settings)


def _student(
    target: Any,
    stage: TrainStage,
    *,
    state: TrainState,
    layers: tuple[int, ...],
    text: WrittenText,
    source: Any,
) -> Student:
    outputs = state.outputs()
    trained = None
    if stage.continue_from is not None:
        trained = read_trained(stage.continue_from)
        outputs = trained.output_ids
    if outputs is None:
        stops = load_tokenizer(source).stop_tokens
        shards = text.first(state.epoch_shards(0, available=text.available))
        outputs = output_vocabulary(shards, size=stage.num_outputs, stop_tokens=stops)
    state.keep_outputs(outputs)
    shape = StudentShape(layers=layers, head=stage.head)
    student = make_student(target, shape, output_ids=outputs.tolist())
    if stage.settings.bits is not None:
        student.round_embeddings(bits=stage.settings.bits)
    if stage.block > 1:
        head = student.head.detach()
        student = BlockStudent(student, num_slots=stage.block - 1, seed=stage.settings.seed)
        with torch.no_grad():
            student.head.copy_(head)  # rounded, where the rows of the model are not
    if trained is not None:
        load_weights(student, trained.weights | _slots(student, trained.weights.get(SLOTS)))
    return student


def _slots(student: Student, trained: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Return the slots to begin with: a draft's own as far as it has some."""
    if not isinstance(student, BlockStudent):
        return {}
    slots = student.slots.detach().clone()
    if trained is not None:
        count = min(len(slots), len(trained))
        slots[:count] = trained[:count]
    return {SLOTS: slots}


def _seen(stage: TrainStage, steps: int) -> int:
    return steps * stage.settings.batch_tokens * stage.settings.batches_per_step


def _line(tally: Tally) -> dict[str, Any]:
    return {name: _figures(guesses) for name, guesses in tally.rows().items()}


def _figures(guesses: Guesses) -> dict[str, Any]:
    return {
        "positions": guesses.num_positions,
        "acceptance": round(guesses.acceptance, 4),
        "within_4": round(guesses.coverage[3], 4),
        "coupled": round(guesses.coupled, 4),
        "divergence": round(guesses.mean_divergence, 4),
    }


def _brief(tally: Tally) -> str:
    cold = [guesses for name, guesses in tally.by_category.items() if name != "hot"]
    everything = tally.total
    greedy = sum(cold[1:], start=cold[0]) if cold else everything
    return (
        f"held out: acceptance at temperature 0 {greedy.acceptance:.3f}, within 4 {greedy.coverage[3]:.3f}, "
        f"KL {everything.mean_divergence:.3f}"
    )
