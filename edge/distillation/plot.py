"""The report as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any


def plot_report(report: Mapping[str, Any], path: Path) -> bool:
    """Draw coverage by rank and acceptance by category; return whether matplotlib is there to do it."""
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    by_rank, by_category = figure.subplots(1, 2)
    rows = report["temperature_0"]
    for name, row in rows.items():
        within = row["within"]
        width = 2.5 if name == "all" else 0.8
        by_rank.plot(range(1, len(within) + 1), within, label=name, linewidth=width)
    by_rank.set(xlabel="rank", ylabel="target's token is among the first", ylim=(0, 1))
    by_rank.set_title("coverage at temperature 0")
    by_rank.legend(fontsize=7)
    names = list(rows)
    by_category.barh(names, [rows[name]["within"][0] for name in names], label="temperature 0")
    hot = report["temperature_1"]
    places = [index for index, name in enumerate(names) if name in hot]
    coupled = [hot[names[index]]["coupled"] for index in places]
    by_category.plot(coupled, places, "k|", markersize=10, label="temperature 1, coupled")
    by_category.set(xlabel="acceptance probability", xlim=(0, 1))
    share = report["costs"]["share"]
    by_category.set_title(f"a drafted token costs {share:.3f} of a target step")
    by_category.legend(fontsize=7)
    figure.savefig(path, dpi=110)
    return True
