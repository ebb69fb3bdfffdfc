"""What a training reads, and in which order: the same after every kill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edge.distillation.fitting import FitSettings, LayerFit, fit_student
from edge.distillation.packing import Batch, Packer, Text
from edge.distillation.practice import Practice
from edge.distillation.practice_stage import read_practice
from edge.distillation.progress import Progress
from edge.distillation.shards import Shard, count_shards, read_shard
from edge.distillation.student import Student
from edge.distillation.train_state import TrainState
from edge.distillation.training import TrainSettings, step_batches


class WrittenText:
    """The written text, as much of it as an epoch reads."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._shards: list[Shard] = []

    @property
    def available(self) -> int:
        """Shards that are finished."""
        return count_shards(self._folder)

    def first(self, count: int) -> Sequence[Shard]:
        """Return the first shards."""
        for number in range(len(self._shards), count):
            self._shards.append(read_shard(self._folder, number, check=True))
        return self._shards[:count]


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainRun:
    """A student and the text that it learns from."""

    text: WrittenText
    state: TrainState
    student: Student
    settings: TrainSettings

    def fit(
        self, target: Any, *, layers: tuple[int, ...], num_tokens: int, progress: Progress
    ) -> None:
        """Fit the copied layers on the text that the first steps will read."""
        packer = self._packer(self._shards(0))
        texts = packer.texts(is_held_out=False)
        groups = packer.epoch(texts, seed=(self.settings.seed, 0))
        groups = groups[: max(1, num_tokens // self.settings.batch_tokens)]
        progress.note(f"fitting layers on {len(groups) * self.settings.batch_tokens} tokens")

        def tell(fit: LayerFit) -> None:
            self.state.note({"step": 0} | asdict(fit))
            progress.note(f"layer {fit.layer}: error {fit.before:.3f} -> {fit.after:.3f}")

        batches = [packer.pack(group) for group in groups]
        if not fit_student(
            self.student,
            target,
            layers=layers,
            batches=batches,
            settings=FitSettings(bfloat16=self.settings.bfloat16, bits=self.settings.bits),
            tell=tell,
        ):
            progress.note("this architecture cannot be fitted; training starts from copies")

    def steps(self, *, first: int) -> Iterator[tuple[int, list[list[Text]], Packer]]:
        """Return the steps from `first` on; each epoch reads the text that there was when it began."""
        number, epoch = 0, 0
        while number < self.settings.num_steps:
            packer = self._packer(self._shards(epoch))
            texts = packer.texts(is_held_out=False)
            for groups in step_batches(packer, self.settings, epoch=epoch, texts=texts):
                if first <= number < self.settings.num_steps:
                    yield number, groups, packer
                number += 1
            epoch += 1

    def held_out(self, num_batches: int) -> Iterator[Batch]:
        """Return the batches of the live estimate: always the same, from the first epoch's text."""
        packer = self._packer(self._shards(0))
        groups = packer.in_order(packer.texts(is_held_out=True))
        return (packer.pack(group) for group in groups[:num_batches])

    def practice(self, folder: Path) -> Practice:
        """Return the drafts on the text."""
        shards = self._shards(0)
        places = self._packer(shards).places
        return Practice(read_practice(folder, shards), places=places)

    def _shards(self, epoch: int) -> Sequence[Shard]:
        return self.text.first(self.state.epoch_shards(epoch, available=self.text.available))

    def _packer(self, shards: Sequence[Shard]) -> Packer:
        ids = self.student.output_ids.cpu().numpy()
        return Packer(shards, output_ids=ids, batch_tokens=self.settings.batch_tokens)
