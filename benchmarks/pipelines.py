"""What is each pipeline worth with the same draft over the same link? All in virtual time; then a table and a plot.

    .venv/bin/python benchmarks/pipelines.py --output benchmarks/results/pipelines.json \
        --plot docs/images/pipelines.png --table

An edge, a verifier and a link are the real programs under a virtual clock; the draft guesses what was recorded of real pairs of models, as
in `tree_stream.py`. A step of the target takes 60 ms, a forward pass of the draft 4 ms with up to 8 leaves. The other pipelines
have their length chosen anew for each draft and link, the best of a few; the stream chooses for itself, as an edge does. Cells that
the output holds already are not measured again, so a run that was broken off goes on.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from dataclasses import asdict
from pathlib import Path
from statistics import mean
from typing import Any

import matplotlib as mpl
from pipelines_world import STREAM, Arm, ablations, arms, measure
from tree_stream_world import DRAFTS, FORWARD, REQUESTS, STEP, TOKENS, VOCABULARY

mpl.use("Agg")
from matplotlib import pyplot as plt

SEEDS = (1, 2)
MAIN = "0.79"
RTTS_MS = (10, 50, 100, 200)
CELLS = (
    *((MAIN, rtt_ms) for rtt_ms in RTTS_MS),
    *((name, 100) for name in ("0.60", "0.40", "0.35")),
)
BASE = "cloud only"


def main() -> None:
    """Measure what is missing, and show it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--table", action="store_true", help="Print what docs/pipelines.md says.")
    parser.add_argument("--draft", action="append", help="Only cells of this draft.")
    parser.add_argument("--rtt", action="append", type=int, help="Only cells of this round trip.")
    parser.add_argument("--label", action="append", help="Only this pipeline.")
    chosen = parser.parse_args()
    cells = [
        (draft, rtt_ms)
        for draft, rtt_ms in CELLS
        if (not chosen.draft or draft in chosen.draft) and (not chosen.rtt or rtt_ms in chosen.rtt)
    ]
    held = json.loads(chosen.output.read_text())["cells"] if chosen.output.exists() else []
    for draft, rtt_ms in cells:
        is_main = (draft, rtt_ms) == (MAIN, 100)
        compared = (
            *arms(cached=(4, 8, 12) if is_main else (4, 8)),
            *(ablations() if is_main else ()),
        )
        for arm in compared:
            if chosen.label and arm.label not in chosen.label:
                continue
            if not any(_is_of(one, arm, draft, rtt_ms) for one in held):
                held.append(_cell(arm, draft, rtt_ms))
                _write(chosen.output, held)
    if chosen.plot:
        _plot(held, chosen.plot)
    if chosen.table:
        _print_tables(held)


def _is_of(held: dict[str, Any], arm: Arm, draft: str, rtt_ms: int) -> bool:
    found = (held["label"], held["figures"], held["draft"], held["rtt_ms"])
    return found == (arm.label, arm.figures, draft, rtt_ms)


def _cell(arm: Arm, draft: str, rtt_ms: int) -> dict[str, Any]:
    began_s = time.monotonic()
    found = [asdict(measure(arm, draft=draft, rtt_ms=rtt_ms, seed=seed)) for seed in SEEDS]
    cell: dict[str, Any] = {
        "draft": draft,
        "rtt_ms": rtt_ms,
        "label": arm.label,
        "figures": arm.figures,
        "competes": arm.competes,
        "tokens_per_s": [one.pop("tokens_per_s") for one in found],
    }
    cell |= {name: round(mean(one[name] for one in found), 4) for name in found[0]}
    print(
        f"{draft} {rtt_ms} ms {arm.label} {arm.figures}: {mean(cell['tokens_per_s']):.1f} tokens/s "
        f"({time.monotonic() - began_s:.1f} s)",
        file=sys.stderr,
        flush=True,
    )
    return cell


def _write(path: Path, held: list[dict[str, Any]]) -> None:
    report = {
        "command": "benchmarks/pipelines.py",
        "python": platform.python_version(),
        "machine": "none: virtual time",
        "seeds": list(SEEDS),
        "requests": REQUESTS,
        "tokens": TOKENS,
        "vocabulary": VOCABULARY,
        "drafts": [asdict(draft) for draft in DRAFTS],
        "step": asdict(STEP),
        "forward": asdict(FORWARD),
        "cells": held,
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


# --- what it says


def _best(held: list[dict[str, Any]], draft: str, rtt_ms: int) -> dict[str, dict[str, Any]]:
    """Return the best cell of each label."""
    best: dict[str, dict[str, Any]] = {}
    for cell in held:
        if (cell["draft"], cell["rtt_ms"]) != (draft, rtt_ms) or not cell["competes"]:
            continue
        rival = best.get(cell["label"])
        if rival is None or mean(cell["tokens_per_s"]) > mean(rival["tokens_per_s"]):
            best[cell["label"]] = cell
    return best


def _ratios(cell: dict[str, Any], base: dict[str, Any]) -> list[float]:
    """Return by how much a cell is faster than another, by seed: both answered the same requests."""
    pairs = zip(cell["tokens_per_s"], base["tokens_per_s"], strict=True)
    return [found / against for found, against in pairs]


def _spread(ratios: list[float]) -> str:
    return f"{mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _print_tables(held: list[dict[str, Any]]) -> None:
    print(
        "| draft | round trip | pipeline | best | x cloud only | the stream is x of it | ", end=""
    )
    print("payload bytes | nodes | rows | steps | drafting | prepared |")
    print("| " + " | ".join(["---"] * 12) + " |")
    for draft, rtt_ms in CELLS:
        best = _best(held, draft, rtt_ms)
        if STREAM not in best:
            continue  # not measured yet
        for label, cell in best.items():
            share = f"{cell['prepared']:.0%}" if cell["prepared"] else ""
            print(
                f"| {draft} | {rtt_ms} ms | {label} | {cell['figures']} | {_spread(_ratios(cell, best[BASE]))} "
                f"| {_spread(_ratios(best[STREAM], cell))} | {cell['payload_bytes']:.0f} | {cell['drafted']:.1f} "
                f"| {cell['rows']:.1f} | {cell['steps']:.2f} | {cell['drafting']:.0%} | {share} |"
            )
    base = _best(held, MAIN, 100)[BASE]
    print("\n| ablation | x cloud only | prepared | drafting |\n| --- | --- | --- | --- |")
    for cell in held:
        if not cell["competes"]:
            print(
                f"| {cell['label']}, {cell['figures']} | {_spread(_ratios(cell, base))} | {cell['prepared']:.0%} "
                f"| {cell['drafting']:.0%} |"
            )


def _plot(held: list[dict[str, Any]], path: Path) -> None:
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.2), width_ratios=(1.0, 1.1))
    labels = list(dict.fromkeys(one["label"] for one in held if one["label"] != BASE))
    colours = {label: f"C{number}" for number, label in enumerate(labels)}
    for label in labels:
        speeds = []
        for rtt_ms in RTTS_MS:
            best = _best(held, MAIN, rtt_ms)
            speeds.append(_ratios(best[label], best[BASE]))
        middle = [mean(one) for one in speeds]
        reach = [
            [m - min(one) for m, one in zip(middle, speeds, strict=True)],
            [max(one) - m for m, one in zip(middle, speeds, strict=True)],
        ]
        dashed = "--" if "race" in label else "-"
        left.errorbar(
            RTTS_MS, middle, reach, label=label, color=colours[label], ls=dashed, marker="o", ms=4
        )
    left.axhline(1.0, color="grey", lw=0.8)
    left.set(
        xlabel="round trip, ms",
        ylabel="tokens/s, x of cloud only",
        title=f"first guess right: {MAIN}",
    )
    left.set_ylim(bottom=0.0)
    left.legend(fontsize=7)
    drafts = [draft for draft, rtt_ms in CELLS if rtt_ms == 100]
    width = 0.8 / len(labels)
    for number, label in enumerate(labels):
        heights = []
        for draft in drafts:
            best = _best(held, draft, 100)
            heights.append(mean(_ratios(best[label], best[BASE])))
        places = [place + (number - len(labels) / 2 + 0.5) * width for place in range(len(drafts))]
        hatch = "//" if "race" in label else ""
        right.bar(
            places, heights, width, color=colours[label], label=label, hatch=hatch, edgecolor="w"
        )
    right.axhline(1.0, color="grey", lw=0.8)
    right.set_xticks(range(len(drafts)), drafts, fontsize=8)
    right.set(title="round trip of 100 ms", xlabel="first guess right")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
