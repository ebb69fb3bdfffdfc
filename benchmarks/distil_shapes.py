"""Acceptance against cost for some student shapes, each trained on the same text for the same number of tokens.

    .venv/bin/python benchmarks/distil_shapes.py --run FOLDER [--tokens N] [--threads N] [--json FILE] [--plot FILE]

FOLDER is one of `paceline distil` that holds text. Every shape is a training of its own in that folder, so a benchmark
that was stopped goes on where it was. The rate is that of the best chain in rounds that wait for their answer, at a
round trip of 60 ms, with the acceptance on held-out greedy text and times measured on this machine.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from edge.distillation.progress import Progress
from edge.distillation.report_stage import ReportStage, write_report
from edge.distillation.train_stage import TrainStage, train_draft
from edge.distillation.training import TrainSettings

SHAPES: dict[str, dict[str, Any]] = {
    "1-layer": {"layers": (0,)},
    "2-layers": {"layers": (0, 29)},
    "3-layers": {"layers": (0, 1, 29)},
    "4-layers": {"layers": (0, 1, 28, 29)},
    "4-layers-8k": {"layers": (0, 1, 28, 29), "num_outputs": 8192},
    "4-layers-head": {"layers": (0, 1, 28, 29), "head": "trained"},
    "6-layers": {"layers": (0, 1, 2, 27, 28, 29)},
}
ROUND_TRIP = "rtt_60_ms"


def measured(run: Path, name: str, shape: dict[str, Any], *, tokens: int) -> dict[str, Any]:
    stage = TrainStage(name=f"shape-{name}", settings=TrainSettings(num_tokens=tokens), **shape)
    progress = Progress()
    draft = train_draft(run, stage, progress=progress)
    report = json.loads(write_report(run, ReportStage(draft=draft), progress=progress).read_text())
    everything = report["temperature_0"]["all"]
    return {
        "shape": name,
        "layers": len(shape["layers"]),
        "acceptance": everything["within"][0],
        "within_4": everything["within"][3],
        "coupled": report["temperature_1"]["all"]["coupled"],
        "cost": report["costs"]["share"],
        "draft_ms": round(1000 * report["costs"]["draft_s"], 2),
        "target_ms": round(1000 * report["costs"]["target_s"], 2),
        "tokens_per_s": round(report["best_chain"][ROUND_TRIP]["tokens_per_s"], 2),
        "chain": report["best_chain"][ROUND_TRIP]["length"],
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for row in rows:
        axes.plot(row["cost"], row["acceptance"], "o")
        label = f"{row['shape']}, {row['tokens_per_s']:.1f} tokens/s"
        axes.annotate(label, (row["cost"], row["acceptance"]), fontsize=8)
    axes.set(xlabel="cost of a drafted token in target steps", ylabel="acceptance at temperature 0")
    axes.margins(x=0.25)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--tokens", type=int, default=1_000_000)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name, shape in SHAPES.items():
        rows.append(measured(arguments.run, name, shape, tokens=arguments.tokens))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        content = {"tokens": arguments.tokens, "threads": arguments.threads, "shapes": rows}
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
