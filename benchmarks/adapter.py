"""What it is worth that a draft learns on the job: the shipped draft reads real answers one after the other, as one user's.

    .venv/bin/python benchmarks/adapter.py --prompts spec_bench.jsonl --human-eval human_eval.jsonl --cache FOLDER \
        [--output benchmarks/results/adapter.json] [--image docs/images/adapter.png]

SmolLM2-135M answers the prompts of some categories greedily, once; the answers stay in --cache. The draft then reads the answers of a category
in a row, and `mixed`, which is an answer of each category in turn. At each position is asked whether the first guess is the target's token:

  plain:             the draft as it is;
  learned:           `adapt:`, whose drawing is the real one, gate and all; it hears of a token LAG tokens later, as over a link;
  suffix+plain:      n-gram with its memory of earlier answers first, the draft where that is not sure enough;
  suffix+learned:    the same with what was learned.

A chain that is judged every eight guesses gives the tokens per round. Cost is processor time of guessing after a text with one leaf and with
eight, plain and adapted in turn, with a lesson due in each call.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib as mpl
import torch
from adapter_memory import GREEDY, Answer, WithMemory

from edge.drafters import load_drafter
from edge.drafters.adaptive import AdaptedDrawing, AdaptiveDrafter, Experience
from edge.drafters.drawing import Drawing
from edge.drafters.model import ModelDrafter
from edge.drafters.tree import TreeDrafter, TreeModelDraft
from paceline.drafter import Guess
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import Logits, RowGroup
from paceline.engine.tokenizer import Tokenizer
from paceline.prompts import Message, PromptLine
from paceline.tokens import TokenId
from simulator.calibration.record import write_texts

mpl.use("agg")
from matplotlib import pyplot as plt

TARGET, DRAFT = "smollm2-135m", "smollm2-135m-draft"
CATEGORIES = {
    "math_reasoning": (40, 160),
    "human_eval": (60, 128),
    "translation": (40, 96),
    "qa": (40, 128),
}
"""How many prompts of each, and the most tokens of an answer."""
LAG = 8
ROUND = 8
BLOCK = 250
BLOCKS_PER_POINT = 4
"""A point of the picture is the mean of so many blocks of the curve, or of all there are."""
TIMED = 60
"""Calls of each kind in an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Read:
    """An answer and what the draft makes of each of its positions."""

    answer: Answer
    logits: Logits


def answers(arguments: argparse.Namespace, tokenizer: Tokenizer) -> dict[str, list[Answer]]:
    """Let the target answer what is not in the cache."""
    found, engine = {}, None
    for category, (count, max_tokens) in CATEGORIES.items():
        kept = arguments.cache / f"{category}.json"
        if not kept.exists():
            engine = engine or load_model(resolve(TARGET), dtype="bfloat16", tokenizer=tokenizer)
            lines = [
                PromptLine(
                    name=str(number),
                    messages=(Message(role="user", content=text),),
                    category=category,
                )
                for number, text in enumerate(prompts(arguments, category)[:count])
            ]
            texts = write_texts(engine, tokenizer, lines, sampling=GREEDY, max_tokens=max_tokens)
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(
                json.dumps([{"prompt": one.prompt, "output": one.output} for one in texts])
            )
        found[category] = [
            Answer(prompt=tuple(one["prompt"]), output=tuple(one["output"]))
            for one in json.loads(kept.read_text())
        ]
    return found


def prompts(arguments: argparse.Namespace, category: str) -> list[str]:
    """The prompts of a category."""
    if category == "human_eval":
        return [json.loads(line)["prompt"] for line in arguments.human_eval.open()]
    items = [json.loads(line) for line in arguments.prompts.open()]
    return [item["turns"][0] for item in items if item["category"] == category]


def read(engine: Engine, answer: Answer) -> Read:
    """Let the draft read an answer: logits before each of its tokens."""
    text, first = [*answer.prompt, *answer.output], len(answer.prompt) - 1
    sequence = engine.open(max_length=len(text), max_pending=0)
    for start in range(0, first, 256):
        part = text[start : min(start + 256, first)]
        engine.forward([RowGroup(sequence=sequence, tokens=part, logits="none", commit=True)])
    logits = engine.forward([RowGroup(sequence=sequence, tokens=text[first:-1], commit=True)])
    engine.close(sequence)
    return Read(answer=answer, logits=logits)


def guessed(one: Read, drawing: Drawing) -> list[Guess]:
    """The first guess at each position; the drawing hears of what is committed LAG tokens later."""
    text, start = [*one.answer.prompt, *one.answer.output], len(one.answer.prompt)
    assert one.logits.hidden is not None
    guesses = []
    for row in range(len(one.answer.output)):
        at = replace(
            one.logits,
            values=one.logits.values[row : row + 1],
            hidden=one.logits.hidden[row : row + 1],
            offsets=(0, 1),
        )
        end = start + row
        known = max(start, end - LAG)
        leaf = tuple(text[known:end])
        guesses.append(drawing.ranked_leaves(at, {0: leaf}, text[:known], width=4)[0][0])
    return guesses


def replay(engine: Engine, texts: Sequence[Answer]) -> dict[str, Any]:
    """All four on the same answers in the same order."""
    size = engine.identity.vocabulary_size
    experience = Experience()
    memories = {"plain": WithMemory(), "learned": WithMemory()}
    hits: dict[str, list[list[bool]]] = {}
    opened_at, num_judged, num_open = None, 0, 0
    for answer in texts:
        one = read(engine, answer)
        length = len(answer.prompt)
        drawings = {
            "plain": Drawing(GREEDY, prompt_length=length, vocabulary_size=size),
            "learned": AdaptedDrawing(
                GREEDY, prompt_length=length, vocabulary_size=size, experience=experience
            ),
        }
        for name, drawing in drawings.items():
            guesses = guessed(one, drawing)
            right = [
                guess.token == token for guess, token in zip(guesses, answer.output, strict=True)
            ]
            hits.setdefault(name, []).append(right)
            hits.setdefault(f"suffix+{name}", []).append(memories[name].hits(answer, guesses))
        num_judged += len(answer.output)
        gate = experience.gates[True]
        num_open += gate.is_open * len(answer.output)
        if gate.is_open and opened_at is None:
            opened_at = num_judged
    return {
        "answers": len(texts),
        "positions": num_judged,
        "gate_open_after": opened_at,
        "gate_open_share": round(num_open / num_judged, 3),
        "drafts": {name: summary(right) for name, right in hits.items()},
        "learned_against_plain": lead(hits["plain"], hits["learned"]),
    }


def summary(hits: Sequence[Sequence[bool]]) -> dict[str, Any]:
    """How often right, tokens per round, and the curve."""
    flat = [right for one in hits for right in one]
    half = flat[len(flat) // 2 :]
    return {
        "acceptance": round(statistics.mean(flat), 4),
        "second_half": round(statistics.mean(half), 4),
        "tokens_per_round": round(len(flat) / sum(map(rounds, hits)), 3),
        "curve": [
            round(statistics.mean(flat[start : start + BLOCK]), 4)
            for start in range(0, len(flat) - BLOCK + 1, BLOCK)
        ],
    }


def rounds(hits: Sequence[bool]) -> int:
    """Rounds until all is said: the guesses that are right in a row, ROUND at most, and one token of the target's."""
    count, at = 0, 0
    while at < len(hits):
        run = 0
        while run < ROUND and at + run < len(hits) and hits[at + run]:
            run += 1
        at += run + 1
        count += 1
    return count


def lead(plain: Sequence[Sequence[bool]], learned: Sequence[Sequence[bool]]) -> dict[str, float]:
    """The gain, and its standard error over answers."""
    gains = [sum(b) - sum(a) for a, b in zip(plain, learned, strict=True)]
    total = sum(map(len, plain))
    error = statistics.stdev(gains) * len(gains) ** 0.5 / total
    return {"gain": round(sum(gains) / total, 4), "standard_error": round(error, 4)}


def costs(engine: Engine, texts: Sequence[Answer]) -> dict[str, Any]:
    """Processor time of a call, plain and adapted in turn."""
    size = engine.identity.vocabulary_size
    drafters: dict[str, ModelDrafter | AdaptiveDrafter] = {
        "plain": TreeDrafter(engine, vocabulary_size=size),
        "learned": AdaptiveDrafter(TreeDrafter(engine, vocabulary_size=size)),
    }
    found: dict[str, Any] = {}
    for num_leaves in (1, 8):
        took: dict[str, list[float]] = {name: [] for name in drafters}
        for answer in texts:
            drafts = {
                name: drafter.open(
                    prompt_length=len(answer.prompt),
                    max_tokens=len(answer.output) + 8,
                    sampling=GREEDY,
                )
                for name, drafter in drafters.items()
            }
            for count in range(min(TIMED, len(answer.output))):
                text = (*answer.prompt, *answer.output[:count])
                for name, draft in drafts.items():
                    assert isinstance(draft, TreeModelDraft)
                    took[name].append(timed(draft, text, num_leaves))
            for draft in drafts.values():
                draft.close()
        half = {name: values[len(values) // 2 :] for name, values in took.items()}
        ratios = [b / a for a, b in zip(half["plain"], half["learned"], strict=True)]
        found[f"{num_leaves} leaves"] = {
            **{f"{name}_ms": round(statistics.median(v) * 1e3, 3) for name, v in half.items()},
            "ratio": round(statistics.median(ratios), 3),
            "tenths": [round(statistics.quantiles(ratios, n=10)[at], 3) for at in (0, 8)],
        }
    return found


def timed(draft: TreeModelDraft, text: Sequence[TokenId], num_leaves: int) -> float:
    """Seconds of this thread for guesses after a text, or after eight places below it."""
    while draft.prepare(text):
        pass
    paths: list[tuple[TokenId, ...]] = [()]
    if num_leaves > 1:
        first = draft.branch(text, [()], width=num_leaves)[0]
        paths = [(guess.token,) for guess in first]
    started_s = time.thread_time()
    draft.branch(text, paths, width=4)
    return time.thread_time() - started_s


def draw(results: dict[str, Any], path: Path) -> None:
    """One panel for each sequence of answers."""
    figure, axes = plt.subplots(1, len(results), figsize=(3.0 * len(results), 3.2), sharey=True)
    styles = {
        "plain": ("tab:gray", "-"),
        "learned": ("tab:blue", "-"),
        "suffix+plain": ("tab:gray", ":"),
        "suffix+learned": ("tab:blue", ":"),
    }
    for axis, (category, result) in zip(axes, results.items(), strict=True):
        for name, (colour, line) in styles.items():
            curve = result["drafts"][name]["curve"]
            points = [
                statistics.mean(curve[max(0, end - BLOCKS_PER_POINT) : end])
                for end in range(1, len(curve) + 1)
            ]
            places = [BLOCK * end for end in range(1, len(curve) + 1)]
            axis.plot(places, points, color=colour, linestyle=line, label=name)
        axis.set_title(f"{category}, {result['answers']} answers", fontsize=9)
        axis.set_xlabel("tokens of answers so far")
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("first guess is the target's token\n(mean of the last 1,000)")
    lines, names = axes[0].get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0, 1, 0.93))
    figure.legend(lines, names, loc="upper center", ncols=len(names), fontsize=9, frameon=False)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--prompts", type=Path, required=True)
    parser.add_argument("--human-eval", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--image", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(resolve(TARGET))
    by_category = answers(arguments, tokenizer)
    drafter = load_drafter(DRAFT, tokenizer=tokenizer)
    assert isinstance(drafter, ModelDrafter)
    least = min(map(len, by_category.values()))
    sequences = {
        **by_category,
        "mixed": [texts[number] for number in range(least) for texts in by_category.values()],
    }
    results = {}
    for category, texts in sequences.items():
        results[category] = result = replay(drafter.engine, texts)
        print(
            category,
            result["positions"],
            result["gate_open_after"],
            result["learned_against_plain"],
        )
        for name, one in result["drafts"].items():
            print(
                f"  {name:15} {one['acceptance']:.4f} second half {one['second_half']:.4f} "
                f"tokens per round {one['tokens_per_round']:.2f}",
                flush=True,
            )
    cost = costs(drafter.engine, by_category["math_reasoning"][:8])
    print(cost)
    if arguments.output is not None:
        whole = {
            "command": "benchmarks/adapter.py --prompts spec_bench_even.jsonl --human-eval human_eval_first82.jsonl --cache FOLDER",
            "machine": f"{platform.machine()}, 2 cores, shared; costs are ratios of calls in turn",
            "versions": {"python": platform.python_version(), "torch": version("torch")},
            "target": TARGET,
            "draft": DRAFT,
            "lag_tokens": LAG,
            "guesses_per_round": ROUND,
            "positions_per_point": BLOCK,
            "sequences": results,
            "cost_of_a_call": cost,
        }
        arguments.output.write_text(json.dumps(whole, indent=1) + "\n")
    if arguments.image is not None:
        draw(results, arguments.image)


if __name__ == "__main__":
    main()
