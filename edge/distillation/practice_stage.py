"""A stage between two trainings: a trained student drafts after text of its target, and the target judges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from edge.distillation.allocation import return_large_blocks
from edge.distillation.array_files import count_shards
from edge.distillation.block_training import draw_starts
from edge.distillation.draft_pass import Judge, draft_on
from edge.distillation.draft_reading import DESCRIPTION, check_draft, read_trained, sha256_of
from edge.distillation.evaluation import BATCH_TOKENS, EvaluatedDraft
from edge.distillation.laws import top_laws
from edge.distillation.levels import rounded_weights
from edge.distillation.packing import Batch, Packer
from edge.distillation.practice import (
    TOKENS_SUM,
    Drafts,
    counting,
    num_drafted,
    read_drafts,
    write_drafts,
)
from edge.distillation.progress import Progress
from edge.distillation.recipe import RECIPE, kept_value, settle
from edge.distillation.shards import Shard, read_shard
from edge.distillation.slots import PreciseHead
from edge.distillation.train_state import load_weights as put_weights
from edge.distillation.write_stage import TEXT
from paceline.engine.loading import DType, load_tokenizer, load_weights, resolve
from paceline.errors import ConfigError

LENGTH = 4
"""Tokens of a draft."""
DENSITY = 0.75
"""Drafted tokens per token of text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PracticeStage:
    """What the drafts depend on, besides the text."""

    name: str
    """Folder of this practice in the run's."""
    draft: Path
    """Who drafts."""
    num_tokens: int
    """Stop once so many are drafted, or all text is through."""
    seed: int = 0
    dtype: DType = "bfloat16"
    device: Literal["cpu", "cuda"] = "cpu"


def practise(folder: Path, stage: PracticeStage, *, progress: Progress) -> Path:
    """Draft until there is enough; return the folder of the drafts.

    Raises:
        ConfigError: no text, no draft, or the practice was started with other settings.
        ModelError: the target cannot be loaded.
    """
    return_large_blocks()
    text, out = folder / TEXT, folder / stage.name
    if count_shards(text) == 0:
        raise ConfigError(f"out: {folder} holds no text; write some first (--only write)")
    record = check_draft(stage.draft)
    out.mkdir(exist_ok=True)
    # Text that is written later must not change what a practice was.
    available = int(kept_value(out, "text_shards") or count_shards(text))
    settle(
        out,
        {
            "draft": sha256_of(stage.draft / DESCRIPTION),
            "num_tokens": stage.num_tokens,
            "text_shards": available,
            "seed": stage.seed,
            "dtype": stage.dtype,
            "length": LENGTH,
            "density": DENSITY,
        },
    )
    done = count_shards(out)
    drafted = sum(num_drafted(out, number) for number in range(done))
    if drafted >= stage.num_tokens or done == available:
        return out
    writer = _DraftWriter(record, stage)
    progress.begin("practice", total=stage.num_tokens, done=drafted)
    for number in range(done, available):
        shard = read_shard(text, number, check=True)
        drafts = writer.write(shard, progress)
        write_drafts(out, number, drafts, text_sum=shard.description.sha256[TOKENS_SUM])
        drafted += drafts.tokens.size
        progress.settle(drafted, f"shard {number}: {drafts.counts.mean():.2f} to learn from")
        if drafted >= stage.num_tokens:
            break
    progress.end()
    return out


def read_practice(folder: Path, shards: Sequence[Shard]) -> list[Drafts]:
    """Return the drafts on the first shards of text, as many as there are.

    Raises:
        ConfigError: they are damaged, or were made on other text.
    """
    pairs = zip(range(count_shards(folder)), shards, strict=False)
    return [
        read_drafts(folder, number, text_sum=shard.description.sha256[TOKENS_SUM])
        for number, shard in pairs
    ]


def practice_recipe(folder: Path) -> dict[str, Any]:
    """Return what a practice was made with.

    Raises:
        ConfigError: there is none.
    """
    names = ("draft", "num_tokens", "text_shards", "seed", "dtype", "length", "density")
    found = {name: kept_value(folder, name) for name in names}
    if found["draft"] is None:
        raise ConfigError(f"practice: no {RECIPE} in {folder}; make one with --practice-tokens")
    return found


class _DraftWriter:
    """The student that drafts and the target that judges."""

    def __init__(self, record: dict[str, Any], stage: PracticeStage) -> None:
        source = resolve(record["target"])
        self._stage = stage
        self._student = EvaluatedDraft(stage.draft, device=stage.device).student
        put_weights(self._student, read_trained(stage.draft).weights)  # in full precision
        self._bits = record["training"].get("training", {}).get("bits")
        self._stop_tokens = load_tokenizer(source).stop_tokens
        target = load_weights(source, dtype=stage.dtype, device=stage.device)
        target.set_output_embeddings(PreciseHead(target.get_output_embeddings()))
        self._judge = Judge(target)

    def write(self, shard: Shard, progress: Progress) -> Drafts:
        """Make the drafts on a shard of text; never on what is held out."""
        ids = self._student.output_ids.cpu().numpy()
        packer = Packer([shard], output_ids=ids, batch_tokens=BATCH_TOKENS)
        groups = packer.in_order(packer.texts(is_held_out=False))
        parts = []
        # As the packed draft will have them, if it learned with rounded weights.
        with rounded_weights(self._student.layer_weights(), bits=self._bits):
            for index, group in enumerate(groups):
                drafts = self._on_batch(packer.pack(group), shard, index)
                parts.append(drafts)
                progress.advance(drafts.tokens.size)
        joined = {name: [getattr(part, name) for part in parts] for name in Drafts.__slots__}
        return Drafts(**{name: np.concatenate(values) for name, values in joined.items()})

    def _on_batch(self, batch: Batch, shard: Shard, index: int) -> Drafts:
        seed = (self._stage.seed, shard.description.number, index)
        most = int(DENSITY * len(batch.tokens)) // LENGTH
        starts = draw_starts(batch, num_slots=LENGTH, most=most, seed=(*seed, 0))
        cuts, temperatures = _origins(batch, starts)
        device = self._student.head.device.type
        with torch.autocast(device, torch.bfloat16, enabled=self._stage.dtype == "bfloat16"):
            tokens = draft_on(
                self._student,
                batch,
                starts=starts,
                length=LENGTH,
                temperatures=temperatures,
                rng=np.random.default_rng((*seed, 1)),
            )
        followed = batch.tokens[starts[:, None] + np.arange(1, LENGTH + 1)]
        counts = counting(tokens, followed, stop_tokens=self._stop_tokens)
        useful = counts.any(axis=1)
        starts, tokens = starts[useful], tokens[useful]
        width = shard.top_ids.shape[1]
        top_ids = np.zeros((0, width), np.int64)
        logprobs = np.zeros((0, width), np.float32)
        if len(starts):
            found = top_laws(self._judge.logits(batch, starts=starts, tokens_BL=tokens), k=width)
            top_ids, logprobs = (part.cpu().numpy() for part in found)
        return Drafts(
            cuts=cuts[useful].astype(np.uint32),
            tokens=tokens.astype(shard.tokens.dtype),
            counts=counts[useful],
            top_ids=top_ids.reshape(-1, LENGTH, width).astype(shard.top_ids.dtype),
            top_logprobs=logprobs.reshape(-1, LENGTH, width).astype(np.float16),
        )


def _origins(
    batch: Batch, starts: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return where in the shard each followed token is, and the temperature of its text, at which is drafted too."""
    ends = np.cumsum(batch.lengths)
    number = np.searchsorted(ends, starts, side="right")
    begins = ends - np.asarray(batch.lengths)
    places = np.array([text.passage.start for text in batch.texts])
    temperatures = np.array([text.passage.temperature for text in batch.texts])
    return places[number] + starts - begins[number], temperatures[number]
