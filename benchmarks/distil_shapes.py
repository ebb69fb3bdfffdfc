"""Acceptance against cost for some student shapes, each trained on the same text for the same number of tokens.

    .venv/bin/python benchmarks/distil_shapes.py --run FOLDER [--fit-tokens N] [--tokens N] [--threads N] [--json FILE] [--plot FILE]

FOLDER is one of `paceline distil` that holds text. Every shape is a training of its own in that folder, so a benchmark
that was stopped goes on where it was. The rate is that of the best chain in rounds that wait for their answer, at a
round trip of 60 ms, with the acceptance on held-out greedy text and times measured on this machine.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure

from edge.distillation.compact import pack_draft
from edge.distillation.progress import Progress
from edge.distillation.report_stage import ReportStage, write_report
from edge.distillation.train_stage import TrainStage, train_draft
from edge.distillation.training import TrainSettings

SHAPES: dict[str, dict[str, Any]] = {
    "2 layers": {"num_layers": 2},
    "4 layers": {"num_layers": 4},
    "6 layers": {"num_layers": 6},
    "8 layers": {"num_layers": 8},
    "8 layers, 8,192 outputs": {"num_layers": 8, "num_outputs": 8192},
    "10 layers": {"num_layers": 10},
    "12 layers": {"num_layers": 12},
}
ROUND_TRIP = "rtt_60_ms"


BITS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What every shape gets."""

    fit_tokens: int
    train_tokens: int


def measured(run: Path, name: str, shape: dict[str, Any], *, budget: Budget) -> dict[str, Any]:
    folder = "shape-" + name.replace(" ", "-").replace(",", "")
    settings = TrainSettings(
        num_tokens=budget.train_tokens, batches_per_step=2, rate=5e-4, bits=BITS
    )
    stage = TrainStage(name=folder, fit_tokens=budget.fit_tokens, settings=settings, **shape)
    progress = Progress()
    draft = train_draft(run, stage, progress=progress)
    pack_draft(draft, draft.parent / f"{draft.name}.draft")
    report = json.loads(write_report(run, ReportStage(draft=draft), progress=progress).read_text())
    everything = report["temperature_0"]["all"]
    return {
        "shape": name,
        "layers": report["layers"],
        "megabytes": round((draft.parent / f"{draft.name}.draft").stat().st_size / 1e6, 1),
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
    parser.add_argument("--fit-tokens", type=int, default=32_768)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    budget = Budget(fit_tokens=arguments.fit_tokens, train_tokens=arguments.tokens)
    rows = []
    for name, shape in SHAPES.items():
        rows.append(measured(arguments.run, name, shape, budget=budget))
        print(json.dumps(rows[-1]), flush=True)
    if arguments.json:
        content = {
            "budget": asdict(budget),
            "bits": BITS,
            "threads": arguments.threads,
            "shapes": rows,
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
