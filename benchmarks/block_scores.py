"""Do the chances of a block draft's guesses hold, at each depth of a block?

    .venv/bin/python benchmarks/block_scores.py --draft FILE.draft [--prompts 40] [--max-tokens 64]

The target answers prompts at temperatures 0 and 1 in float32. The draft goes along each answer: from the end of what is committed it
is asked for four guesses at each position of its block, after the target's own tokens; then so much is committed as a chain of its
first guesses would have had accepted, and one token more. Told is the expected calibration error in ten even bins, of the first guesses
that a chain would have had judged, of all that were asked for, and by depth; besides, what perfect chances would have by luck.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from node_scores import Nodes, luck

from edge.drafters import load_drafter
from edge.drafters.block import BlockDrafter
from paceline.control.node_scores import calibration_error
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.prompts import read_prompts
from paceline.sampling.settings import SamplingSettings
from simulator.calibration.record import OwnText, write_texts

TARGET = "smollm2-135m"
TEMPERATURES = (0.0, 1.0)
WIDTH = 4
PROMPTS = Path(__file__).parent.parent / "tests" / "data" / "prompts" / "prompts.jsonl"


class Seen:
    """Guesses with their chances."""

    def __init__(self) -> None:
        self.judged: Nodes = []
        self.all: Nodes = []
        self.by_depth: dict[int, Nodes] = defaultdict(list)

    def go_along(self, drafter: BlockDrafter, text: OwnText) -> None:
        """Take what the draft says of an answer."""
        output = text.output
        draft = drafter.open(
            prompt_length=len(text.prompt), max_tokens=len(output) + 1, sampling=text.sampling
        )
        try:
            while draft.prepare(text.prompt):
                pass
            done = 0
            while done < len(output):
                ahead = output[done : done + drafter.num_positions]
                known = (*text.prompt, *output[:done])
                right, holds = 0, True
                for depth, token in enumerate(ahead):  # one after the other: all in one pass
                    (guesses,) = draft.branch(known, [ahead[:depth]], width=WIDTH)
                    nodes = [(guess.chance, guess.token == token) for guess in guesses]
                    self.all += nodes
                    self.by_depth[depth] += nodes[:1]
                    if holds:
                        self.judged += nodes[:1]
                        holds = bool(nodes) and nodes[0][1]
                        right += holds
                done += min(right, len(ahead) - 1) + 1
        finally:
            draft.close()

    def figures(self) -> dict[str, Any]:
        """What is told."""
        return {
            "judged": _told(self.judged),
            "all": _told(self.all),
            "by_depth": [_told(self.by_depth[depth]) for depth in sorted(self.by_depth)],
        }


def _told(nodes: Nodes) -> dict[str, float]:
    return {
        "nodes": len(nodes),
        "accepted": round(sum(right for _, right in nodes) / len(nodes), 4),
        "error": round(calibration_error(nodes), 4),
        "error_by_luck": round(luck(nodes), 4),
    }


def measured(drafter: BlockDrafter, texts: Mapping[float, Sequence[OwnText]]) -> dict[str, Any]:
    """Both temperatures, and both together."""
    both, found = Seen(), {}
    for temperature, answers in texts.items():
        seen = Seen()
        for text in answers:
            seen.go_along(drafter, text)
        found[f"temperature {temperature:g}"] = seen.figures()
        both.judged += seen.judged
        both.all += seen.all
        for depth, nodes in seen.by_depth.items():
            both.by_depth[depth] += nodes
    return {"both": both.figures()} | found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draft", required=True)
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = resolve(TARGET)
    tokenizer = load_tokenizer(source)
    drafter = load_drafter(f"block:{arguments.draft}", tokenizer=tokenizer)
    assert isinstance(drafter, BlockDrafter)
    target = load_model(source, dtype="float32", tokenizer=tokenizer)
    lines = read_prompts(PROMPTS)[: arguments.prompts]
    write = partial(write_texts, target, tokenizer, lines, max_tokens=arguments.max_tokens)
    greedy = SamplingSettings(temperature=0.0)
    texts = {t: write(sampling=replace(greedy, temperature=t)) for t in TEMPERATURES}
    print(json.dumps(measured(drafter, texts), indent=1))


if __name__ == "__main__":
    main()
