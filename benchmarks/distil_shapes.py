"""Acceptance against cost for some student shapes, each trained on the same text for the same number of tokens.

    .venv/bin/python benchmarks/distil_shapes.py --run FOLDER [--fit-tokens N] [--tokens N] [--threads N] [--json FILE] [--plot FILE]

FOLDER is one of `paceline distil` that holds text. Every shape is a training of its own in that folder, so a benchmark
that was stopped goes on where it was. Then the packed drafts and the target step in turns, so that whatever slows the machine slows all;
the processor time of one-row steps counts. The rate is that of the best chain in rounds that wait for their answer, at a
round trip of 60 ms, with the acceptance on held-out greedy text.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from bare_layers import machine
from matplotlib.figure import Figure

from edge.distillation.compact import pack_draft
from edge.distillation.progress import Progress
from edge.distillation.recipe import RECIPE
from edge.distillation.report_stage import REPORT, ReportStage, write_report
from edge.distillation.speedup import best_rate
from edge.distillation.train_stage import TrainStage, draft_folder, train_draft
from edge.distillation.training import TrainSettings
from edge.drafters.distilled import load_distilled
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.tokens import TokenId

SHAPES: dict[str, dict[str, Any]] = {
    "2 layers": {"num_layers": 2},
    "4 layers": {"num_layers": 4},
    "6 layers": {"num_layers": 6},
    "8 layers": {"num_layers": 8},
    "8 layers, as shipped": {"layers": (0, 3, 7, 11, 15, 20, 25, 29)},
    "8 layers, 8,192 outputs": {"num_layers": 8, "num_outputs": 8192},
    "10 layers": {"num_layers": 10},
}
ROUND_TRIP_S = 0.06
BITS = 4
CONTEXT = 256
"""Tokens before a step that is timed."""
IN_A_ROW = 3
"""Steps of one model before those of the next; the last one counts, when its weights are where they will be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """What every shape gets."""

    fit_tokens: int
    train_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """A student of some shape."""

    name: str
    packed: Path
    report: dict[str, Any]


def trained(run: Path, name: str, shape: dict[str, Any], *, budget: Budget) -> Trained:
    """Train, pack and measure a student, as far as that was not done before."""
    folder = "shape-" + name.replace(" ", "-").replace(",", "")
    settings = TrainSettings(
        num_tokens=budget.train_tokens, batches_per_step=2, rate=5e-4, bits=BITS
    )
    stage = TrainStage(name=folder, fit_tokens=budget.fit_tokens, settings=settings, **shape)
    draft = draft_folder(run, folder)
    packed, report = draft.parent / f"{draft.name}.draft", draft / REPORT
    if not report.is_file():
        progress = Progress()
        train_draft(run, stage, progress=progress)
        pack_draft(draft, packed)
        report = write_report(run, ReportStage(draft=draft), progress=progress)
    return Trained(name=name, packed=packed, report=json.loads(report.read_text()))


class Stepping:
    """Steps of one row after a text, again and again."""

    def __init__(self, engine: Engine, *, most: int) -> None:
        self._engine = engine
        self._sequence = engine.open(max_length=CONTEXT + most + 1, max_pending=0)
        tokens = [TokenId(5 + i % 200) for i in range(CONTEXT)]
        engine.forward([RowGroup(sequence=self._sequence, tokens=tokens, commit=True)])

    def step(self) -> float:
        """Take some steps; return the seconds of the last one until its likeliest token is known."""
        for _ in range(IN_A_ROW):
            started_s = time.thread_time()
            group = RowGroup(sequence=self._sequence, tokens=[TokenId(9)], commit=True)
            self._engine.forward([group]).known_of(0)[0].argmax().item()
            took_s = time.thread_time() - started_s
        return took_s


def step_times(run: Path, students: list[Trained], *, rounds: int) -> tuple[list[float], float]:
    """Return the median seconds of a step of each student and of the target, all in turns."""
    recipe = json.loads((run / RECIPE).read_text())
    source = resolve(recipe["target"])
    tokenizer = load_tokenizer(source)
    engines = [load_distilled(student.packed, tokenizer=tokenizer) for student in students]
    engines.append(load_model(source, dtype="bfloat16", tokenizer=tokenizer))
    stepping = [Stepping(engine, most=IN_A_ROW * rounds) for engine in engines]
    times = [[one.step() for one in stepping] for _ in range(rounds)]
    *drafts, target = (statistics.median(column) for column in zip(*times, strict=True))
    return drafts, target


def row_of(student: Trained, *, draft_s: float, target_s: float) -> dict[str, Any]:
    """Return the figures of a student."""
    everything = student.report["temperature_0"]["all"]
    acceptance = everything["within"][0]
    rate = best_rate(acceptance, draft_s=draft_s, target_s=target_s, rtt_s=ROUND_TRIP_S)
    return {
        "shape": student.name,
        "layers": student.report["layers"],
        "megabytes": round(student.packed.stat().st_size / 1e6, 1),
        "acceptance": acceptance,
        "within_4": everything["within"][3],
        "coupled": student.report["temperature_1"]["all"]["coupled"],
        "cost": round(draft_s / target_s, 4),
        "draft_ms": round(1000 * draft_s, 2),
        "target_ms": round(1000 * target_s, 2),
        "tokens_per_s": round(rate.tokens_per_s, 2),
        "chain": rate.length,
    }


def plot(rows: list[dict[str, Any]], path: Path) -> None:
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    best, below = 0.0, 0
    for row in sorted(rows, key=lambda row: float(row["cost"])):
        point = (row["cost"], row["acceptance"])
        stands_out = row["acceptance"] > best + 0.01
        best = max(best, row["acceptance"])
        if not stands_out:
            below += 1  # the second one lower, where the first ends
        axes.plot(*point, "o", color="tab:blue")
        axes.annotate(
            f"{row['shape']}\n{row['tokens_per_s']:.1f} tokens/s",
            point,
            xytext=(0, 6 if stands_out else -48 + 24 * (below % 2)),
            textcoords="offset points",
            ha="center",
            fontsize=8,
        )
    axes.set(xlabel="cost of a drafted token in target steps", ylabel="acceptance at temperature 0")
    axes.margins(x=0.15, y=0.25)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--fit-tokens", type=int, default=32_768)
    parser.add_argument("--tokens", type=int, default=131_072)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=20, help="of timed steps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--plot", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    budget = Budget(fit_tokens=arguments.fit_tokens, train_tokens=arguments.tokens)
    students = [
        trained(arguments.run, name, shape, budget=budget) for name, shape in SHAPES.items()
    ]
    drafts_s, target_s = step_times(arguments.run, students, rounds=arguments.rounds)
    rows = [
        row_of(student, draft_s=draft_s, target_s=target_s)
        for student, draft_s in zip(students, drafts_s, strict=True)
    ]
    for row in rows:
        print(json.dumps(row), flush=True)
    if arguments.json:
        content = machine() | {
            "budget": asdict(budget),
            "bits": BITS,
            "round_trip_ms": 1000 * ROUND_TRIP_S,
            "shapes": rows,
        }
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")
    if arguments.plot:
        plot(rows, arguments.plot)


if __name__ == "__main__":
    main()
