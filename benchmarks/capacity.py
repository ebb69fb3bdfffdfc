"""How many edges can one verifier serve, and what do drafts add? In virtual time, with recorded guesses; then a plot.

    .venv/bin/python benchmarks/capacity.py --output benchmarks/results/capacity.json --plot docs/images/capacity.png

1 to 64 edges with answers under way at once over a round trip of 50 ms, on three targets (`TARGETS` in capacity_world.py): a small one
on a processor, as calibrated; a large one on a GPU with arithmetic to spare; one whose arithmetic is used up. Told are committed
tokens per second, from when every answer has its first tokens to when the first one ends, of

  none         continuous batching without drafts
  colocated    draft and target on the verifier's own processor, with no round trip: all answers in step, a pass of the draft over all
               of them for each depth, then a step of the target; depth and width are the best there are for each cell
  even         drafts of the edges, every row there is room for, shared evenly
  goodput      drafts of the edges, those rows that raise the step's tokens per second
  alternating  the same, two groups in turn
  marginal     as goodput; edges send what is worth its row, its bytes and its time, as `paceline edge` does by default. All others send
               every guess of 0.02 and more; at some numbers of edges only

and besides, at 32 edges: half of them without drafts, and the race off (answers without drafts wait two round trips for them).
Cells are kept in the output as they are measured: started again, it goes on where it was.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from capacity_world import DRAFTS, TARGETS, Cell, Measured, measure

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.ticker import LogLocator, NullLocator

EDGES = (1, 2, 4, 8, 16, 32, 64)
ARMS = ("none", "colocated", "even", "goodput", "alternating")
TOKENS = 1536
"""Of all answers of a cell together, within the bounds below."""
TOKENS_LEAST, TOKENS_MOST = 48, 256
GOOD, FIRST_SHIPPED = "low-bit-4-64", "smollm2-135m-draft-first"
MARGINAL_EDGES = (1, 8, 32, 64)
LONG = ((32, 192), (64, 128))
"""Edges and tokens of longer answers where arithmetic is used up: among short ones a step more or less counts 5 %."""
PAIRS = (("cpu", GOOD), ("gpu", GOOD), ("full", GOOD), ("cpu", FIRST_SHIPPED))
TITLES = {
    "cpu": "small model on one core",
    "gpu": "large model on a GPU",
    "full": "arithmetic used up",
}
COLOURS = {
    "none": "0.5",
    "colocated": "tab:purple",
    "even": "tab:orange",
    "goodput": "tab:blue",
    "alternating": "tab:green",
}


def cells(seeds: Iterable[int]) -> Iterator[Cell]:
    """Give every cell, seed by seed; of a curve the slowest cells first."""
    for seed in seeds:
        kind: dict[str, Any]
        for target in TARGETS:
            kind = {"target": target, "trace": GOOD, "edges": 32, "seed": seed}
            yield Cell(**kind, arm="goodput-patient", tokens=TOKENS_LEAST)
            for arm in ("none", "even", "goodput"):
                yield Cell(**kind, arm=arm, tokens=TOKENS_LEAST, silent=16)
        for edges, tokens in LONG:
            kind = {"target": "full", "trace": GOOD, "edges": edges, "seed": seed}
            for arm in ("none", "goodput", "marginal"):
                yield Cell(**kind, arm=arm, tokens=tokens)
        for target, trace in PAIRS:
            for edges in reversed(EDGES):
                tokens = min(TOKENS_MOST, max(TOKENS_LEAST, TOKENS // edges))
                kind = {"target": target, "trace": trace, "edges": edges, "seed": seed}
                for arm in (*ARMS, *(("marginal",) if edges in MARGINAL_EDGES else ())):
                    yield Cell(**kind, arm=arm, tokens=tokens)


def main() -> None:
    """Measure what is missing, then tell and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    known = read(options.output)
    missing = [cell for cell in cells(range(1, options.seeds + 1)) if cell not in known]
    with ProcessPoolExecutor(options.processes) as pool:
        for cell, found in zip(missing, pool.map(measure, missing), strict=True):
            known[cell] = found
            write(options.output, known, options)
            print(cell, found, flush=True)
    write(options.output, known, options)
    for row in summary(known):
        print(row)
    if options.plot:
        draw(known, options.plot)


def read(path: Path) -> dict[Cell, Measured]:
    """Return the cells that a file has."""
    if not path.exists():
        return {}
    told = json.loads(path.read_text(encoding="utf-8"))["cells"]
    keys = {item.name for item in fields(Cell)}
    return {
        Cell(**{k: v for k, v in one.items() if k in keys}): Measured(
            **{k: v for k, v in one.items() if k not in keys}
        )
        for one in told
    }


def write(path: Path, known: dict[Cell, Measured], options: argparse.Namespace) -> None:
    """Keep all there is."""
    command = f"benchmarks/capacity.py --output {options.output} --plot {options.plot}"
    told = {
        "command": f"python {command} --seeds {options.seeds}",
        "machine": f"{platform.machine()}; virtual time: the machine does not matter",
        "versions": {"python": platform.python_version()},
        "seeds": sorted({cell.seed for cell in known}),
        "targets": {name: asdict(cost) for name, cost in TARGETS.items()},
        "drafts_beside_the_target": {name: asdict(cost) for name, cost in DRAFTS.items()},
        "summary": summary(known),
        "cells": [_rounded({**asdict(cell), **asdict(one)}) for cell, one in known.items()],
    }
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
    draft.replace(path)


def summary(known: dict[Cell, Measured]) -> list[dict[str, Any]]:
    """Return each arm over its seeds: sums of tokens per second, and their ratio to those without drafts."""
    kinds: dict[tuple[Any, ...], dict[int, Measured]] = {}
    for cell, found in known.items():
        kinds.setdefault(_kind(cell), {})[cell.seed] = found
    rows = []
    for kind, by_seed in kinds.items():
        target, trace, edges, arm, silent, tokens = kind
        plain = kinds.get((target, trace, edges, "none", silent, tokens), {})
        both = [seed for seed in by_seed if seed in plain]
        if not both:
            continue
        ratios = [by_seed[seed].tokens_per_s / plain[seed].tokens_per_s for seed in both]
        mine, base = ([one[seed] for seed in both] for one in (by_seed, plain))
        rows.append(
            {
                "target": target,
                "trace": trace,
                "edges": edges,
                "silent": silent,
                "tokens": tokens,
                "arm": arm,
                "tokens_per_s": round(statistics.mean(one.tokens_per_s for one in mine), 1),
                "ratio": round(_sum(mine, "tokens_per_s") / _sum(base, "tokens_per_s"), 3),
                "ratio_least": round(min(ratios), 3),
                "ratio_most": round(max(ratios), 3),
                "slowest": round(_sum(mine, "slowest") / _sum(base, "tokens_per_s") * edges, 3),
                "silent_ratio": round(
                    _sum(mine, "silent_tokens_per_s") / _sum(base, "silent_tokens_per_s"), 3
                )
                if silent
                else None,
                "rows_per_token": round(statistics.mean(one.rows_per_token for one in mine), 2),
                "step_ms": round(statistics.mean(one.step_ms for one in mine), 1),
                "expected": round(statistics.mean(one.expected for one in mine), 2),
                "choices": sorted({one.choice for one in mine if one.choice}),
            }
        )
    return rows


def _kind(cell: Cell) -> tuple[Any, ...]:
    return (cell.target, cell.trace, cell.edges, cell.arm, cell.silent, cell.tokens)


def _sum(found: list[Measured], name: str) -> float:
    return sum(float(getattr(one, name)) for one in found)


def _rounded(values: dict[str, Any]) -> dict[str, Any]:
    return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


def draw(known: dict[Cell, Measured], path: Path) -> None:
    """Draw tokens per second over edges, for each target and draft, and below it the ratio to plain batching."""
    rows = [
        row
        for row in summary(known)
        if not row["silent"]
        and row["arm"] in ARMS
        and (row["target"] != "full" or (row["edges"], row["tokens"]) not in LONG)
    ]
    figure, axes = plt.subplots(2, len(PAIRS), figsize=(4.0 * len(PAIRS), 6.6), sharex=True)
    for column, (target, trace) in enumerate(PAIRS):
        above, below = axes[:, column]
        for arm in ARMS:
            mine = [r for r in rows if (r["target"], r["trace"], r["arm"]) == (target, trace, arm)]
            mine.sort(key=lambda row: row["edges"])
            edges = np.array([row["edges"] for row in mine])
            style: dict[str, Any] = {"color": COLOURS[arm], "marker": "o", "ms": 3.5}
            style["lw"] = 2.4 if arm == "goodput" else 1.3
            above.plot(edges, [row["tokens_per_s"] for row in mine], label=arm, **style)
            below.plot(edges, [row["ratio"] for row in mine], **style)
            least, most = ([row[f"ratio_{end}"] for row in mine] for end in ("least", "most"))
            below.fill_between(edges, least, most, color=COLOURS[arm], alpha=0.15, lw=0)
        draft = "low-bit copy as draft" if trace == GOOD else "first shipped draft"
        above.set_title(f"{TITLES[target]},\n{draft}", fontsize=10)
        above.set_xscale("log", base=2)
        above.set_yscale("log")
        above.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        above.yaxis.set_major_formatter("{x:g}")
        above.yaxis.set_minor_locator(NullLocator())
        below.set_xticks(EDGES, [str(edges) for edges in EDGES])
        below.set_xlabel("edges on one verifier")
        below.axhline(1.0, color="0.5", lw=0.8)
        below.set_ylim(0.5, 3.4)
        for axis in (above, below):
            axis.grid(alpha=0.3)
    axes[0, 0].set_ylabel("committed tokens per second")
    axes[1, 0].set_ylabel("times plain batching")
    axes[0, 0].legend(fontsize=9)
    figure.tight_layout()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


if __name__ == "__main__":
    main()
