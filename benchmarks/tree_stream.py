"""What is the tree stream worth, what does it cost, and what does each of its parts bring? In virtual time; then a table and a plot.

    .venv/bin/python benchmarks/tree_stream.py --output benchmarks/results/tree_stream.json \
        --plot docs/images/tree_stream.png --table

An edge, a verifier and a link are the real programs under a virtual clock; the draft guesses what was recorded of real pairs of models
(`distance_drafts.py`). A step of the target takes 60 ms, a forward pass of the draft 4 ms with up to 8 leaves. Cells that the
output holds already are not measured again, so a run that was broken off goes on; with --plot and --table alone, and an output
that is whole, nothing is measured.
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
from tree_stream_world import (
    ARMS,
    CLOUD,
    DRAFTS,
    FORWARD,
    PACELINE,
    REQUESTS,
    STEP,
    TOKENS,
    VOCABULARY,
    Arm,
    arm_of,
    measure,
)

from paceline.control.marginal import BYTE_S

mpl.use("Agg")
from matplotlib import pyplot as plt

SEEDS = (1, 2, 3)
RTTS_MS = (10, 50, 100, 200)
BEST = DRAFTS[0].name
FIXED = "fixed floor 0.02"
PRICES = tuple(arm.label for arm in ARMS if arm.label.startswith("byte "))
ABLATIONS = tuple(
    arm.label for arm in ARMS if arm not in (CLOUD, PACELINE) and arm.label not in PRICES
)
ROUNDS = tuple(label for label in ABLATIONS if label.startswith("rounds of "))
PARTS = (
    ("1. the stream: a chain, in rounds of the best length", ROUNDS),
    ("2. branches that wait at the cloud: one guess for a position", ("one guess for a position",)),
    ("3. the race: the verifier waits up to 2 s", ("no race",)),
    ("4. goodput: rows shared evenly", ("even schedule",)),
    ("5. marginal value: everything of 0.02 and more, at once", (FIXED,)),
)
"""What is switched off, and by which arms; of several the fastest counts."""
BARS = {"0.79": (2.2, 2.0, 1.7, 1.3), "0.60": (1.6, 1.55, 1.3, 1.1)}
"""What is wanted of a draft of that quality, by RTTS_MS."""
BYTES_BAR = 32.0

Cell = dict[str, Any]
Key = tuple[str, int, str]


def main() -> None:
    """Measure what is missing, and show it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--table", action="store_true", help="Print what docs/tree-stream.md says.")
    chosen = parser.parse_args()
    held = _read(chosen.output)
    for draft, rtt_ms, label in _wanted():
        if (draft, rtt_ms, label) not in held:
            held[draft, rtt_ms, label] = _cell(arm_of(label), draft, rtt_ms)
            _write(chosen.output, held)
    if chosen.plot:
        _plot(held, chosen.plot)
    if chosen.table:
        _print_tables(held)


def _wanted() -> list[Key]:
    """Return what is measured, what matters most first."""
    wanted: list[Key] = [(BEST, rtt_ms, CLOUD.label) for rtt_ms in RTTS_MS]
    wanted += [
        (draft.name, rtt_ms, label)
        for draft in DRAFTS
        for rtt_ms in RTTS_MS
        for label in (PACELINE.label, FIXED)
    ]
    wanted += [(BEST, rtt_ms, label) for label in PRICES for rtt_ms in (10, 100)]
    ablated = [(BEST, rtt_ms, label) for label in ABLATIONS for rtt_ms in (10, 100)]
    ablated += [
        (draft.name, rtt_ms, label)
        for draft in DRAFTS[1:3]
        for _, labels in PARTS
        for label in labels
        for rtt_ms in (10, 100)
    ]
    return wanted + [one for one in ablated if one not in wanted]


def _cell(arm: Arm, name: str, rtt_ms: int) -> Cell:
    began_s = time.monotonic()
    draft = next(one for one in DRAFTS if one.name == name)
    found = [measure(arm, draft, rtt_ms=rtt_ms, seed=seed) for seed in SEEDS]
    cell: Cell = {"draft": name, "rtt_ms": rtt_ms, "label": arm.label}
    cell["tokens_per_s"] = [round(one.pop("tokens_per_s"), 4) for one in found]
    cell |= {key: round(mean(one[key] for one in found), 4) for key in found[0]}
    print(
        f"{name} {rtt_ms} ms {arm.label}: {mean(cell['tokens_per_s']):.1f} tokens/s ({time.monotonic() - began_s:.1f} s)",
        file=sys.stderr,
        flush=True,
    )
    return cell


def _read(path: Path) -> dict[Key, Cell]:
    cells = json.loads(path.read_text())["cells"] if path.exists() else []
    return {(one["draft"], one["rtt_ms"], one["label"]): one for one in cells}


def _write(path: Path, held: dict[Key, Cell]) -> None:
    report = {
        "command": "benchmarks/tree_stream.py --output benchmarks/results/tree_stream.json",
        "python": platform.python_version(),
        "machine": "none: virtual time",
        "seeds": list(SEEDS),
        "requests": REQUESTS,
        "tokens": TOKENS,
        "vocabulary": VOCABULARY,
        "step": asdict(STEP),
        "forward": asdict(FORWARD),
        "byte_s": BYTE_S,
        "drafts": [asdict(draft) for draft in DRAFTS],
        "cells": list(held.values()),
    }
    path.write_text(json.dumps(report, indent=1) + "\n")


# --- what it says


def _ratios(held: dict[Key, Cell], key: Key) -> list[float]:
    """Return by how much a cell is faster than the cloud alone, by seed: both answered the same requests."""
    base = held[BEST, key[1], CLOUD.label]["tokens_per_s"]
    pairs = zip(held[key]["tokens_per_s"], base, strict=True)
    return [found / against for found, against in pairs]


def _spread(ratios: list[float]) -> str:
    return f"{mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def _to_formula(cell: Cell) -> float:
    """Return the time per token as a part of 1 / v + m (R + t)."""
    covered_s = 1.0 / cell["covered_tokens_per_s"] if cell["covered_tokens_per_s"] else 0.0
    formula_s = covered_s + cell["uncovered"] * (cell["rtt_ms"] / 1000 + cell["bare_step_s"])
    return float(1.0 / mean(cell["tokens_per_s"]) / formula_s)


def _row(held: dict[Key, Cell], key: Key) -> str:
    cell = held[key]
    waste = " / ".join(f"{cell[name]:.1f}" for name in ("late", "stale", "rejected", "unsent"))
    return (
        f"{_spread(_ratios(held, key))} | {cell['payload_bytes']:.1f} | {cell['guesses']:.1f} | {cell['rows']:.2f} "
        f"| {cell['steps']:.2f} | {cell['messages']:.2f} | {waste} |"
    )


HEAD = (
    "x cloud only | bytes | guesses | rows | steps | messages | late / stale / rejected / unsent |"
)


def _print_tables(held: dict[Key, Cell]) -> None:
    rule = "--- | " * 6 + "--- |"
    print(f"| first guess right | round trip | way | {HEAD} to formula |")
    print(f"| --- | --- | --- | {rule} --- |")
    for draft in DRAFTS:
        for rtt_ms in RTTS_MS:
            for label in (PACELINE.label, FIXED):
                key = (draft.name, rtt_ms, label)
                print(
                    f"| {draft.name} | {rtt_ms} ms | {label} | {_row(held, key)} {_to_formula(held[key]):.2f} |"
                )
    for title, labels in (("price", PRICES), ("ablation", ABLATIONS)):
        print(f"\n| {title} | round trip | {HEAD}\n| --- | --- | {rule}")
        for rtt_ms in (10, 100):
            for label in (PACELINE.label, *labels):
                print(f"| {label} | {rtt_ms} ms | {_row(held, (BEST, rtt_ms, label))}")

    _print_parts(held)


def _print_parts(held: dict[Key, Cell]) -> None:
    columns = [(draft.name, rtt_ms) for draft in DRAFTS[:3] for rtt_ms in (10, 100)]
    print(f"\n| without | {' | '.join(f'{name}, {rtt_ms} ms' for name, rtt_ms in columns)} |")
    print("| --- |" + " --- |" * len(columns))
    for title, labels in (("nothing", (PACELINE.label,)), *PARTS):
        ratios = [max(mean(_ratios(held, (*at, label))) for label in labels) for at in columns]
        print(f"| {title} | {' | '.join(f'{ratio:.2f}' for ratio in ratios)} |")


def _plot(held: dict[Key, Cell], path: Path) -> None:
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4.2))
    for number, draft in enumerate(DRAFTS):
        ratios = [_ratios(held, (draft.name, rtt_ms, PACELINE.label)) for rtt_ms in RTTS_MS]
        means = [mean(one) for one in ratios]
        reach = [
            [found - min(one) for found, one in zip(means, ratios, strict=True)],
            [max(one) - found for found, one in zip(means, ratios, strict=True)],
        ]
        label, colour = f"{draft.name}, {draft.label}", f"C{number}"
        left.errorbar(RTTS_MS, means, reach, label=label, color=colour, marker="o", ms=4)
        if draft.name in BARS:
            left.plot(
                RTTS_MS,
                BARS[draft.name],
                color=colour,
                ls=":",
                lw=1,
                label=f"wanted of {draft.name}",
            )
    left.axhline(1.0, color="grey", lw=0.8)
    left.set(xlabel="round trip, ms", ylabel="tokens/s, x of cloud only", title="speed by draft")
    left.set_ylim(0.0, 4.0)
    left.legend(fontsize=7)
    _plot_costs(held, middle, cost="payload_bytes", name="payload bytes per committed token")
    middle.axvline(BYTES_BAR, color="grey", ls=":", lw=1)
    _plot_costs(held, right, cost="rows", name="rows of the target per committed token")
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def _plot_costs(held: dict[Key, Cell], axes: Any, *, cost: str, name: str) -> None:
    """Plot speed against a cost: over the price of a byte, and of what has no price."""
    floors = tuple(
        label for label in ABLATIONS if label.startswith("fixed floor") and "," not in label
    )
    fans = tuple(label for label in ABLATIONS if label.startswith("geometric"))
    for number, rtt_ms in enumerate((10, 100)):
        for labels, marker, style, what in (
            ((*PRICES[:3], PACELINE.label, *PRICES[3:]), "o", "-", "by price"),
            (floors, "s", "--", "fixed floor"),
            (fans, "^", ":", "geometric fan-out"),
        ):
            cells = [held[BEST, rtt_ms, label] for label in labels]
            speeds = [mean(_ratios(held, (BEST, rtt_ms, label))) for label in labels]
            axes.plot(
                [cell[cost] for cell in cells], speeds, color=f"C{number}", marker=marker, ls=style, ms=4,
                label=f"{rtt_ms} ms, {what}",
            )  # fmt: skip
        chosen = held[BEST, rtt_ms, PACELINE.label]
        speed = mean(_ratios(held, (BEST, rtt_ms, PACELINE.label)))
        axes.plot([chosen[cost]], [speed], "o", ms=10, mfc="none", color=f"C{number}")
    axes.set(xlabel=name, ylabel="tokens/s, x of cloud only", title=f"draft of {BEST}")
    axes.set_ylim(bottom=1.0)
    axes.legend(fontsize=7)


if __name__ == "__main__":
    main()
