"""How well a distilled draft guesses the target's answers to prompts that it was never trained on, by category.

    .venv/bin/python benchmarks/distil_eval.py --draft FOLDER_OR_FILE --prompts spec_bench.jsonl --human-eval human_eval.jsonl \
        [--cache FOLDER] [--json FILE]

The target answers some prompts of each category once, greedily and at temperature 1, and its laws are kept in --cache.
Then the draft reads those answers: at each position, at which rank does it have the target's own token? That is the
acceptance probability of drafts made at that position, with no chain or tree around it.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from edge.distillation.compact import unpacked
from edge.distillation.evaluation import EvaluatedDraft, measure_draft, rows_of
from edge.distillation.exclusion import Exclusion
from edge.distillation.scripts import Script, Turn
from edge.distillation.shards import count_shards, read_shard, write_shard
from edge.distillation.slots import Slots
from edge.distillation.writing import Writer, WritingSettings
from paceline.engine.loading import load_tokenizer, load_weights, resolve

PER_CATEGORY = {"translation": 6, "summarization": 6, "qa": 6, "math_reasoning": 6, "rag": 6}
OTHERS_EACH = 1
NUM_CODE = 6
TEMPERATURES = (0.0, 1.0)
MT_BENCH = (
    "writing",
    "roleplay",
    "reasoning",
    "math",
    "coding",
    "extraction",
    "stem",
    "humanities",
)


def prompts(spec_bench: Path, human_eval: Path) -> list[tuple[str, str]]:
    """Category and prompt: the first of each category."""
    taken: dict[str, int] = {}
    chosen: list[tuple[str, str]] = []
    for line in spec_bench.read_text().splitlines():
        item = json.loads(line)
        category = item["category"]
        limit = PER_CATEGORY.get(category, OTHERS_EACH)
        if taken.get(category, 0) < limit:
            taken[category] = taken.get(category, 0) + 1
            chosen.append(("mt_bench" if category in MT_BENCH else category, item["turns"][0]))
    code = human_eval.read_text().splitlines()[:NUM_CODE]
    return chosen + [("human_eval", json.loads(line)["prompt"]) for line in code]


def answers(cache: Path, chosen: list[tuple[str, str]], *, target: str, max_tokens: int) -> None:
    """Let the target answer, once: shard 0 greedily, shard 1 at temperature 1."""
    if count_shards(cache) == len(TEMPERATURES):
        return
    source = resolve(target)
    tokenizer = load_tokenizer(source)
    settings = WritingSettings(num_slots=32, max_length=2048)
    model = load_weights(source, dtype="bfloat16")
    slots = Slots(model, num_slots=settings.num_slots, length=settings.max_length)
    writer = Writer(slots, tokenizer=tokenizer, settings=settings, exclusion=Exclusion())
    for number, temperature in enumerate(TEMPERATURES):
        scripts = [
            Script(
                number=index,
                category=category,
                seed=(number, index),
                system=None,
                turns=(Turn(prompt=prompt, max_tokens=max_tokens, temperature=temperature),),
            )
            for index, (category, prompt) in enumerate(chosen)
        ]
        kept, counts = writer.write(scripts)
        write_shard(
            cache,
            number,
            conversations=kept,
            vocabulary_size=tokenizer.vocabulary_size,
            counts=counts,
        )
        print(f"answers at temperature {temperature}: {counts}")


@contextmanager
def opened(draft: Path) -> Iterator[Path]:
    """The folder of a draft that is a folder, or packed into a file."""
    if draft.is_file():
        with unpacked(draft) as folder:
            yield folder
    else:
        yield draft


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draft", type=Path, required=True)
    parser.add_argument("--target", default="smollm2-135m")
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--human-eval", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    chosen = prompts(arguments.prompts, arguments.human_eval)
    answers(arguments.cache, chosen, target=arguments.target, max_tokens=arguments.max_tokens)
    with opened(arguments.draft) as folder:
        draft = EvaluatedDraft(folder)
    result: dict[str, Any] = {"draft": str(arguments.draft), "machine": platform.processor()}
    started = time.perf_counter()
    for number, temperature in enumerate(TEMPERATURES):
        shard = read_shard(arguments.cache, number, check=True)
        rows = rows_of(measure_draft(draft, [shard]))
        result[f"temperature_{temperature:g}"] = rows
        print(f"\nanswers at temperature {temperature:g}")
        print(
            f"{'category':<16}{'tokens':>8}{'first':>8}{'in 2':>8}{'in 4':>8}{'in 8':>8}{'coupled':>9}{'KL':>7}"
        )
        for name, row in rows.items():
            within = row["within"]
            print(
                f"{name:<16}{row['positions']:>8}{within[0]:>8.3f}{within[1]:>8.3f}{within[3]:>8.3f}"
                f"{within[7]:>8.3f}{row['coupled']:>9.3f}{row['divergence']:>7.2f}"
            )
    print(f"\nmeasured in {time.perf_counter() - started:.0f} s")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
