"""Do the chances of drafted nodes hold? Of all nodes with chance 0.7, are 70 in 100 accepted?

    .venv/bin/python benchmarks/node_scores.py [--trace FILE ...] [--output benchmarks/results/node_scores.json]

Replays the recorded guesses of each draft in simulator/recordings, or of files that `paceline calibrate` wrote, in the order they were made: each node is scored by what
was judged before it, then learned from. Greedy and drawn answers are scored apart, as an edge does. A draft's own
confidence is its margin of logits as the odds of two candidates, or the length of a match for prompt lookup. Told is the
expected calibration error in ten even bins; besides, what the raw confidence would have, and what perfect chances would
have by luck alone with so few nodes.
"""

from __future__ import annotations

import argparse
import json
import platform
import random
from math import exp
from pathlib import Path
from typing import Any

from edge.drafters.lookup import GUESSES_PER_MATCHED
from paceline.control.node_scores import NodeScores, calibration_error
from paceline.ngram.rules import lookup_chance
from simulator.acceptance.guess_trace import GuessTrace, read_trace
from simulator.acceptance.recordings import recorded_trace, trace_names

TEMPERATURES = (0.0, 1.0)
MOST_RANKS = 8
LUCK_ROUNDS = 50

Nodes = list[tuple[float, bool]]
"""Chance, and whether it was accepted."""


def confidence(trace: GuessTrace, byte: int) -> float:
    """What a recorded byte means as a number from 0 to 1."""
    if (
        trace.abstains
    ):  # the tokens that lookup would guess in a row, which go by the length of the match
        return lookup_chance(byte / GUESSES_PER_MATCHED)
    return 1.0 / (1.0 + exp(-byte * trace.confidence.step))


def replay(trace: GuessTrace, *, temperature: float) -> tuple[dict[int, Nodes], Nodes]:
    """Nodes of each rank with their chances, and those of the first rank with the raw confidence."""
    scores = NodeScores()
    by_rank: dict[int, Nodes] = {rank: [] for rank in range(1, min(trace.width, MOST_RANKS) + 1)}
    raw: Nodes = []
    for text in trace.chosen(temperature=temperature):
        for found, byte in zip(text.ranks, text.confidence, strict=True):
            if trace.abstains and byte == 0:
                continue
            sure = confidence(trace, byte)
            raw.append((sure, found == 1))
            for rank, nodes in by_rank.items():
                nodes.append((scores.chance(sure, rank=rank), found == rank))
            for rank in by_rank:
                scores.observe(sure, rank=rank, accepted=found == rank)
    return by_rank, raw


def luck(nodes: Nodes) -> float:
    """The error that chances have which hold exactly, on average."""
    drawn = random.Random(0)
    rounds = [
        calibration_error([(chance, drawn.random() < chance) for chance, _ in nodes])
        for _ in range(LUCK_ROUNDS)
    ]
    return sum(rounds) / len(rounds)


def measured(trace: GuessTrace, *, name: str) -> dict[str, Any]:
    parts = {t: replay(trace, temperature=t) for t in TEMPERATURES}
    best: Nodes = [node for by_rank, _ in parts.values() for node in by_rank[1]]
    tree: Nodes = [
        node for by_rank, _ in parts.values() for nodes in by_rank.values() for node in nodes
    ]
    raw: Nodes = [node for _, nodes in parts.values() for node in nodes]
    return {
        "draft": name,
        "nodes": len(best),
        "ranks": min(trace.width, MOST_RANKS),
        "error": round(calibration_error(best), 4),
        "error_by_luck": round(luck(best), 4),
        "error_of_raw_confidence": round(calibration_error(raw), 4),
        "error_of_all_ranks": round(calibration_error(tree), 4),
        "by_temperature": {
            str(t): {
                "nodes": len(by_rank[1]),
                "accepted": round(sum(right for _, right in by_rank[1]) / len(by_rank[1]), 4),
                "error": round(calibration_error(by_rank[1]), 4),
                "error_by_luck": round(luck(by_rank[1]), 4),
            }
            for t, (by_rank, _) in parts.items()
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path)
    parser.add_argument("--trace", type=Path, action="append", help="instead of those that ship")
    arguments = parser.parse_args()
    traces = {name: recorded_trace(name) for name in trace_names()}
    if arguments.trace:
        traces = {path.stem.removeprefix("guesses-"): read_trace(path) for path in arguments.trace}
    rows = [measured(trace, name=name) for name, trace in traces.items()]
    print(f"{'draft':24} {'nodes':>6} {'error':>7} {'luck':>7} {'raw':>7} {'ranks':>7}")
    for row in rows:
        figures = ("error", "error_by_luck", "error_of_raw_confidence", "error_of_all_ranks")
        print(
            f"{row['draft']:24} {row['nodes']:6} "
            + " ".join(f"{row[name]:7.4f}" for name in figures)
        )
        for temperature, part in row["by_temperature"].items():
            print(
                f"  temperature {temperature:10} {part['nodes']:6} {part['error']:7.4f} {part['error_by_luck']:7.4f}"
            )
    if arguments.output is not None:
        result = {
            "command": "benchmarks/node_scores.py",
            "python": platform.python_version(),
            "drafts": rows,
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
