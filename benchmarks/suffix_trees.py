"""What it is worth that a tree's draft asks the suffix n-gram too: the shipped draft guesses along real answers, as one user's.

    .venv/bin/python benchmarks/suffix_trees.py --cache FOLDER [--answers 12] [--of-worlds 12] [--output benchmarks/results/suffix_trees.json]

FOLDER is that of benchmarks/adapter.py, which has the target's greedy answers to four kinds of prompts; the first of each are taken. The
drafts are the real ones, with their passes:

  positions:  at each token of an answer, with the LAG tokens before it as guesses that are not committed yet: is the first of four
              guesses right, is any, and do their chances hold (`benchmarks/node_scores.py` says how that is counted);
  rounds:     a tree of NODES guesses grows best first, the target says what is right of it and one token more, the next tree grows;
  worlds:     a simulated edge runs the same drafts against a simulated verifier, which draws these answers and guesses by n-gram itself
              or does not (`--race-drafts`); a step and a pass take what was measured. In virtual time.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from adapter_memory import GREEDY, Answer
from suffix_trees_world import worlds

from edge.drafters import load_drafter
from edge.drafters.model import ModelDrafter
from edge.drafters.suffix_tree import SuffixTreeDrafter
from edge.drafters.tree import TreeDrafter, TreeModelDraft
from paceline.control.node_scores import calibration_error
from paceline.engine.loading import load_tokenizer, resolve
from paceline.sampling.settings import SamplingSettings
from paceline.session.growth import Frontier, Growth, path_to
from paceline.session.tree import root_after
from paceline.tokens import TokenId

TARGET, DRAFT = "smollm2-135m", "smollm2-135m-draft"
CATEGORIES = ("math_reasoning", "human_eval", "translation", "qa")
KINDS = {"tree": TreeDrafter, "suffix+tree": SuffixTreeDrafter}
LAG = 8
WIDTH = 4
NODES = 12
NODES_PER_PASS = 3


def read_answers(cache: Path, category: str, count: int) -> list[Answer]:
    """The first answers of a category."""
    return [
        Answer(prompt=tuple(one["prompt"]), output=tuple(one["output"]))
        for one in json.loads((cache / f"{category}.json").read_text())[:count]
    ]


def opened(drafter: TreeDrafter, answer: Answer, sampling: SamplingSettings) -> TreeModelDraft:
    draft = drafter.open(
        prompt_length=len(answer.prompt), max_tokens=len(answer.output) + NODES, sampling=sampling
    )
    while draft.prepare(answer.prompt):
        pass
    return draft


def positions(
    drafter: TreeDrafter, answers: Sequence[Answer], sampling: SamplingSettings
) -> dict[str, Any]:
    """How often the first of some guesses is right, and any, and how far off their chances are."""
    first: list[tuple[float, bool]] = []
    every: list[tuple[float, bool]] = []
    num_any, took_s = 0, 0.0
    for answer in answers:
        draft = opened(drafter, answer, sampling)
        for place, token in enumerate(answer.output):
            known = max(0, place - LAG)
            text = (*answer.prompt, *answer.output[:known])
            began_s = time.thread_time()
            (guesses,) = draft.branch(text, [answer.output[known:place]], width=WIDTH)
            took_s += time.thread_time() - began_s
            judged = [(guess.chance, guess.token == token) for guess in guesses]
            first += judged[:1]
            every += judged
            num_any += any(right for _, right in judged)
        draft.close()
    return {
        "positions": len(first),
        "first_right": round(statistics.mean(right for _, right in first), 4),
        f"any_of_{WIDTH}_right": round(num_any / len(first), 4),
        "error_of_first": round(calibration_error(first), 4),
        "error_of_all": round(calibration_error(every), 4),
        "ms_per_call": round(took_s / len(first) * 1e3, 3),
    }


def rounds(
    drafter: TreeDrafter, answers: Sequence[Answer], sampling: SamplingSettings
) -> dict[str, Any]:
    """Tokens for each tree of NODES guesses."""
    num_tokens = num_rounds = 0
    for answer in answers:
        draft = opened(drafter, answer, sampling)
        place = 0
        while place < len(answer.output):
            text = (*answer.prompt, *answer.output[:place])
            place += 1 + right_in_tree(draft, text, answer.output[place:])
            num_rounds += 1
        num_tokens += len(answer.output)
        draft.close()
    return {"tokens_per_round": round(num_tokens / num_rounds, 3)}


def right_in_tree(draft: TreeModelDraft, text: Sequence[TokenId], ahead: Sequence[TokenId]) -> int:
    """Grow a tree best first; return how many tokens of what is ahead it holds."""
    growth = Growth(width=WIDTH, floor=1e-9)
    root = root_after(tuple(text))
    frontier, size = Frontier(root), 0
    while size < NODES:
        leaves = frontier.best(growth, deepest=NODES, stops=frozenset())
        if not leaves:
            break
        found = draft.branch(text, [path_to(leaf) for leaf in leaves], width=WIDTH)
        for leaf, guesses in zip(leaves, found, strict=True):
            frontier.grown(leaf, guesses)
        hung = len(list(frontier.promoted(min(NODES_PER_PASS, NODES - size), growth)))
        if not hung:
            break
        size += hung
    node, count = root, 0
    for token in ahead[:-1]:
        if token not in node.children:
            break
        node, count = node.children[token], count + 1
    return count


def measured(model: ModelDrafter, answers: Sequence[Answer]) -> dict[str, Any]:
    """Both kinds of draft on the same answers, each new and one after the other."""
    found: dict[str, Any] = {}
    for name, kind in KINDS.items():
        made = [
            kind(model.engine, vocabulary_size=model.engine.identity.vocabulary_size)
            for _ in range(2)
        ]
        found[name] = positions(made[0], answers, GREEDY) | rounds(made[1], answers, GREEDY)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--answers", type=int, default=12)
    parser.add_argument("--of-worlds", type=int, default=12, help="answers of each kind there")
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(resolve(TARGET))
    model = load_drafter(DRAFT, tokenizer=tokenizer)
    assert isinstance(model, ModelDrafter)
    found, mixed = {}, []
    for category in CATEGORIES:
        answers = read_answers(arguments.cache, category, arguments.answers)
        mixed += answers[: arguments.of_worlds]
        found[category] = measured(model, answers)
        print(category, json.dumps(found[category], indent=1), flush=True)
    end_to_end = worlds(model, mixed)
    print(json.dumps(end_to_end, indent=1))
    if arguments.output is not None:
        whole = {
            "command": "benchmarks/suffix_trees.py --cache FOLDER "
            f"--answers {arguments.answers} --of-worlds {arguments.of_worlds}",
            "machine": f"{platform.machine()}, 2 cores, shared; worlds in virtual time",
            "versions": {"python": platform.python_version(), "torch": version("torch")},
            "target": TARGET,
            "draft": DRAFT,
            "answers_of_each": arguments.answers,
            "guesses_per_tree": NODES,
            "categories": found,
            "worlds": end_to_end,
        }
        arguments.output.write_text(json.dumps(whole, indent=1) + "\n")


if __name__ == "__main__":
    main()
