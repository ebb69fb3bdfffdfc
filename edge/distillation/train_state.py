"""What a training is on disk, so that a kill at any moment costs some steps and changes nothing.

training/settings.json  what the training was started with
         epochs.json    shards that each epoch reads, written before it begins
         outputs.npy    ids that the student can say
         state.pt       weights, optimiser, step; replaced as a whole
         log.jsonl      one line per step; lines after the state's step are cut when a training goes on
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edge.distillation.recipe import write_atomically
from edge.distillation.student import Student

STATE = "state.pt"
_LOG, _EPOCHS, _OUTPUTS = "log.jsonl", "epochs.json", "outputs.npy"


class TrainState:
    """The folder of a training."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder

    def outputs(self) -> NDArray[np.int64] | None:
        """Return the ids that the student can say, if they were chosen already."""
        path = self._folder / _OUTPUTS
        return np.load(path, allow_pickle=False) if path.is_file() else None

    def keep_outputs(self, ids: NDArray[np.int64]) -> None:
        """Choose them for good."""
        temporary = self._folder / f".unfinished-{_OUTPUTS}"
        np.save(temporary, ids)
        temporary.replace(self._folder / _OUTPUTS)

    def epoch_shards(self, epoch: int, *, available: int) -> int:
        """Return how many shards an epoch reads: those that there are when it begins for the first time."""
        path = self._folder / _EPOCHS
        known: list[int] = json.loads(path.read_text()) if path.is_file() else []
        while len(known) <= epoch:
            known.append(available)
            write_atomically(path, json.dumps(known))
        return known[epoch]

    def save(self, student: Student, optimiser: torch.optim.Optimizer, *, step: int) -> None:
        """Replace the state."""
        content = {
            "weights": {name: value.detach() for name, value in student.trained()},
            "optimiser": optimiser.state_dict(),
            "step": step,
        }
        temporary = self._folder / f".unfinished-{STATE}"
        with temporary.open("wb") as file:
            torch.save(content, file)
        temporary.replace(self._folder / STATE)

    def load(self, student: Student, optimiser: torch.optim.Optimizer) -> int | None:
        """Put the state back; return the steps done, None if there is none. Cuts the log to them."""
        path = self._folder / STATE
        step: int | None = None
        if path.is_file():
            content = torch.load(path, map_location="cpu", weights_only=True)
            load_weights(student, content["weights"])
            optimiser.load_state_dict(content["optimiser"])
            step = int(content["step"])
        self._cut_log(-1 if step is None else step)
        return step

    def note(self, line: dict[str, Any]) -> None:
        """Add a line to the log."""
        with (self._folder / _LOG).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def _cut_log(self, step: int) -> None:
        path = self._folder / _LOG
        if not path.is_file():
            return
        lines = []
        for line in path.read_text(encoding="utf-8").splitlines():
            try:
                if json.loads(line)["step"] <= step:
                    lines.append(line)
            except ValueError:  # torn by the kill
                continue
        write_atomically(path, "".join(f"{line}\n" for line in lines))


def load_weights(student: Student, weights: dict[str, torch.Tensor]) -> None:
    """Put trained weights into a student of the same shape."""
    with torch.no_grad():
        for name, value in student.trained():
            value.copy_(weights[name])
