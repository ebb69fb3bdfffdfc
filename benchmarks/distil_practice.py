"""Is it worth training a draft on its own drafts? The same draft goes on learning with and without.

    .venv/bin/python benchmarks/distil_practice.py --run FOLDER --draft FOLDER --cache FOLDER --json FILE [--tokens N] [--rate R] \
        [--held-out FOLDER] [--equal-time]

FOLDER of --run is one of `paceline distil` that holds text, all of which is drafted on; --draft is where all begin. They go on from it:

    practised   sees --tokens of the text, and its drafts on it behind it
    text        sees as many tokens of the text, without drafts
    time        with --equal-time: sees as many tokens of the text as take the processor time that the practice and the
                practised took together

--held-out is a run whose held-out text is guessed at too, that of --run if left out; --cache is that of `distil_eval.py` and
holds answers of the target to prompts from outside. Every training is one of its own in --run, and --json is written after
each: a benchmark that was stopped goes on, but what was half way counts from there.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from edge.distillation.compact import pack_draft, unpacked
from edge.distillation.draft_reading import check_draft
from edge.distillation.evaluation import EvaluatedDraft, measure_draft, rows_of
from edge.distillation.packing import Packer, Text
from edge.distillation.practice_stage import PracticeStage, practise
from edge.distillation.progress import Progress
from edge.distillation.shards import count_shards, read_shard
from edge.distillation.train_stage import TrainStage, train_draft
from edge.distillation.training import TrainSettings
from edge.distillation.write_stage import TEXT

BITS, SEED = 4, 5
EVERYTHING = 10**9
"""Tokens of a practice that goes through all text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """What all arms have in common."""

    run: Path
    draft: Path
    cache: Path
    held_out: Path
    rate: float


def timed(work: Callable[[], Path]) -> tuple[Path, float]:
    """What some work returns, and its processor time in seconds."""
    started_s = time.process_time()
    return work(), round(time.process_time() - started_s, 1)


def trained(setting: Setting, name: str, *, tokens: int, practice: Path | None = None) -> Path:
    record = check_draft(setting.draft)
    settings = TrainSettings(
        num_tokens=tokens, batches_per_step=1, rate=setting.rate, bits=BITS, seed=SEED
    )
    stage = TrainStage(
        name=f"practice-arm-{name}",
        layers=tuple(record["layers"]),
        continue_from=setting.draft,
        practice=practice,
        settings=settings,
    )
    return train_draft(setting.run, stage, progress=Progress())


def worth(setting: Setting, draft: Path) -> dict[str, Any]:
    """Acceptance of the packed draft: on answers to prompts from outside, and on held-out text of the run."""

    def held_out(packer: Packer) -> list[Text]:
        return packer.texts(is_held_out=True)

    with TemporaryDirectory() as name:
        file = Path(name) / "arm.draft"
        pack_draft(draft, file)
        with unpacked(file) as folder:
            evaluated = EvaluatedDraft(folder)
    text = setting.held_out / TEXT
    own = [read_shard(text, number) for number in range(count_shards(text))]
    found = {"own text": measure_draft(evaluated, own, choose=held_out)}
    for number, kind in enumerate(("temperature 0", "temperature 1")):
        found[kind] = measure_draft(evaluated, [read_shard(setting.cache, number)])
    return {name: rows_of(tally)["all"] for name, tally in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--rate", type=float, default=2e-4)
    parser.add_argument("--held-out", type=Path)
    parser.add_argument("--equal-time", action="store_true")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=49_152)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    setting = Setting(
        run=arguments.run,
        draft=arguments.draft,
        cache=arguments.cache,
        held_out=arguments.held_out or arguments.run,
        rate=arguments.rate,
    )
    result: dict[str, Any] = {
        "command": [
            Path(sys.argv[0]).name,
            f"--tokens={arguments.tokens}",
            f"--rate={arguments.rate:g}",
        ],
        "machine": {"processor": platform.processor(), "torch": torch.__version__},
        "settings": {
            "rate": arguments.rate,
            "bits": BITS,
            "seed": SEED,
            "threads": arguments.threads,
        },
        "arms": {},
    }
    if arguments.json.is_file():
        result["arms"] = json.loads(arguments.json.read_text())["arms"]
    arms = result["arms"]

    def keep(name: str, took_s: float, found: dict[str, Any]) -> None:
        arms[name] = {"processor_s": took_s} | found
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")
        print(name, json.dumps(arms[name]), flush=True)

    stage = PracticeStage(
        name="practice-arm", draft=setting.draft, num_tokens=EVERYTHING, seed=SEED
    )
    practice, took_s = timed(lambda: practise(setting.run, stage, progress=Progress()))
    if "practice" not in arms:
        keep("practice", took_s, {})
    if "start" not in arms:
        keep("start", 0.0, worth(setting, setting.draft))

    def arm(name: str, *, tokens: int, practice: Path | None = None) -> None:
        if name not in arms:
            draft, took_s = timed(lambda: trained(setting, name, tokens=tokens, practice=practice))
            keep(name, took_s, {"tokens": tokens} | worth(setting, draft))

    arm("practised", tokens=arguments.tokens, practice=practice)
    arm("text", tokens=arguments.tokens)
    if arguments.equal_time:
        whole_s = arms["practice"]["processor_s"] + arms["practised"]["processor_s"]
        arm("time", tokens=int(arguments.tokens * whole_s / arms["text"]["processor_s"]))


if __name__ == "__main__":
    main()
