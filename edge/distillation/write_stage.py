"""The first stage: the target writes text, shard after shard, until there is enough."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from edge.distillation.allocation import return_large_blocks
from edge.distillation.conversation import Role
from edge.distillation.exclusion import Exclusion, read_texts
from edge.distillation.licensed import Document, find_documents, read_documents
from edge.distillation.progress import Progress
from edge.distillation.recipe import fingerprint_of, keep_documents, kept_documents, settle
from edge.distillation.scripts import Materials, script
from edge.distillation.shards import Shard, count_shards, read_shard, write_shard
from edge.distillation.slots import Slots
from edge.distillation.writing import Writer, WritingSettings
from paceline.engine.fingerprint import weights_fingerprint
from paceline.engine.loading import DType, load_tokenizer, load_weights, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import ConfigError

QUOTED_CATEGORIES = frozenset({"passage", "writing", "question"})
QUOTED_SHARDS = 6
"""Shards whose texts may be quoted in the next: enough for variety, few enough to read in a moment."""
SHORTEST_QUOTED = 400
"""Characters."""
HOTTEST_QUOTED = 0.8
"""Temperature; above, a small target writes what nobody would paste."""
MIN_DISTINCT = 0.45
"""Distinct words over words: below, a text goes in circles."""
TEXT = "text"


@dataclass(frozen=True, slots=True, kw_only=True)
class WriteStage:
    """What the text depends on."""

    target: str
    num_tokens: int
    """Stop once so many positions are there; not part of the recipe, so that more can be written later."""
    seed: int = 0
    dtype: DType = "bfloat16"
    device: Literal["cpu", "cuda"] = "cpu"
    scripts_per_shard: int = 384
    settings: WritingSettings = field(default_factory=WritingSettings)
    exclude: tuple[Path, ...] = ()
    documents: tuple[Path, ...] = ()
    """Texts to continue instead of the licensed ones that are found here."""
    prompts: tuple[Path, ...] = ()


def write_text(folder: Path, stage: WriteStage, *, progress: Progress) -> int:
    """Write until there is enough; return how many tokens there are.

    Raises:
        ConfigError: the folder was started with other settings, or a file cannot be read.
        ModelError: the target cannot be loaded or run.
    """
    return_large_blocks()
    text = folder / TEXT
    source = resolve(stage.target)
    progress.note(f"loading {stage.target} as {stage.dtype}")
    tokenizer = load_tokenizer(source)
    exclusion = Exclusion(read_texts(stage.exclude))
    documents = _documents(folder, stage)
    model = load_weights(source, dtype=stage.dtype, device=stage.device)
    settle(
        folder,
        {
            "target": stage.target,
            "weights": weights_fingerprint(model, name=stage.target).hex(),
            "tokenizer": tokenizer.fingerprint.hex(),
            "seed": stage.seed,
            "dtype": stage.dtype,
            "scripts_per_shard": stage.scripts_per_shard,
            "writing": asdict(stage.settings),
            "exclusion": exclusion.fingerprint,
            "documents": fingerprint_of(documents),
        },
    )
    keep_documents(folder, documents)
    settings = stage.settings
    slots = Slots(model, num_slots=settings.num_slots, length=settings.max_length)
    writer = Writer(slots, tokenizer=tokenizer, settings=settings, exclusion=exclusion)
    prompts = read_texts(stage.prompts)
    shards = [read_shard(text, number) for number in range(count_shards(text))]
    written = sum(len(shard.tokens) for shard in shards)
    progress.begin("writing", total=stage.num_tokens, done=written)
    while written < stage.num_tokens:
        number = len(shards)
        materials = _materials(shards, tokenizer=tokenizer, documents=documents, prompts=prompts)
        first = number * stage.scripts_per_shard
        scripts = [
            script(i, seed=stage.seed, materials=materials, can_chat=tokenizer.has_chat_template)
            for i in range(first, first + stage.scripts_per_shard)
        ]
        kept, counts = writer.write(scripts, progress.advance)
        if not kept:
            raise ConfigError(f"exclude: shard {number} has no text left after dropping {counts}")
        write_shard(
            text,
            number,
            conversations=kept,
            vocabulary_size=tokenizer.vocabulary_size,
            counts=counts,
        )
        shards.append(read_shard(text, number))
        written += len(shards[-1].tokens)
        progress.settle(written, f"shard {number}: {len(shards[-1].tokens)} tokens, {counts}")
    progress.end()
    return written


def _documents(folder: Path, stage: WriteStage) -> tuple[Document, ...]:
    """The user's texts, those that the run has already, or what this machine has."""
    if stage.documents:
        return read_documents(stage.documents)
    kept = kept_documents(folder)
    return find_documents() if kept is None else kept


def _materials(
    shards: Sequence[Shard],
    *,
    tokenizer: Tokenizer,
    documents: Sequence[Document],
    prompts: Sequence[str],
) -> Materials:
    passages: list[str] = []
    for shard in shards[-QUOTED_SHARDS:]:
        passages.extend(_quotable(shard, tokenizer))
    return Materials(
        passages=passages,
        documents=[document.text for document in documents],
        prose=[document.text for document in documents if document.is_prose],
        prompts=prompts,
    )


def _quotable(shard: Shard, tokenizer: Tokenizer) -> list[str]:
    """First answers that are long enough to be quoted."""
    texts: list[str] = []
    for passage in shard.description.passages:
        if passage.category not in QUOTED_CATEGORIES or passage.temperature > HOTTEST_QUOTED:
            continue
        roles: Any = shard.roles[passage.start : passage.start + passage.length]
        answer = np.flatnonzero(roles == Role.ANSWER)
        if len(answer) == 0:
            continue
        # The first run of answer tokens: a follow-up prompt ends it.
        gaps = np.flatnonzero(np.diff(answer) > 1)
        last = answer[gaps[0]] if len(gaps) else answer[-1]
        tokens = shard.tokens[passage.start + answer[0] : passage.start + last + 1]
        written = tokenizer.decode(tokens.tolist()).strip()
        found = written.lower().split()
        if len(written) >= SHORTEST_QUOTED and len(set(found)) >= MIN_DISTINCT * len(found):
            texts.append(written)
    return texts
