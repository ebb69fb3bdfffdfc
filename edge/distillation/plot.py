"""The report as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

_WIDE, _THIN = 2.5, 0.8


def plot_report(report: Mapping[str, Any], path: Path) -> bool:
    """Draw coverage by rank, acceptance by category and by position, and tokens per round; return whether matplotlib is there to do it."""
    if find_spec("matplotlib") is None:
        return False
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    figure = Figure(figsize=(11, 8.5), layout="constrained")
    (by_rank, by_category), (by_position, rounds) = figure.subplots(2, 2)
    rows = report["temperature_0"]
    for name, row in rows.items():
        width = _WIDE if name == "all" else _THIN
        by_rank.plot(range(1, len(row["within"]) + 1), row["within"], label=name, linewidth=width)
    by_rank.set(xlabel="rank", ylabel="target's token is among the first", ylim=(0, 1))
    by_rank.set_title("coverage at temperature 0")
    by_rank.legend(fontsize=7)
    _draw_categories(by_category, report)
    _draw_positions(by_position, report)
    _draw_rounds(rounds, report["tokens_per_round"])
    figure.savefig(path, dpi=110)
    return True


def _draw_categories(axes: Any, report: Mapping[str, Any]) -> None:
    rows, hot = report["temperature_0"], report["temperature_1"]
    names = list(rows)
    axes.barh(names, [rows[name]["within"][0] for name in names], label="temperature 0")
    places = [index for index, name in enumerate(names) if name in hot]
    coupled = [hot[names[index]]["coupled"] for index in places]
    axes.plot(coupled, places, "k|", markersize=10, label="temperature 1, coupled")
    axes.set(xlabel="acceptance probability", xlim=(0, 1))
    share = report["costs"]["share"]
    axes.set_title(f"a drafted token costs {share:.3f} of a target step")
    axes.legend(fontsize=7)


def _draw_positions(axes: Any, report: Mapping[str, Any]) -> None:
    """Chains that nothing reaches the end of stop where they do."""
    rows = report["temperature_0"]
    for name, row in rows.items():
        values = [value for value in row["chain"]["by_position"] if value is not None]
        width = _WIDE if name == "all" else _THIN
        if row["chain"]["starts"]:
            axes.plot(range(1, len(values) + 1), values, label=name, linewidth=width)
    hot = report["temperature_1"]["all"]["chain"]
    if hot["starts"]:
        values = [value for value in hot["by_position_coupled"] if value is not None]
        label = "all, temperature 1, coupled"
        axes.plot(range(1, len(values) + 1), values, "k--", label=label, linewidth=_WIDE)
    axes.set(xlabel="position in a chain", ylabel="accepted if all before it were", ylim=(0, 1))
    axes.set_title("acceptance by position at temperature 0")
    _say_names(axes)


def _draw_rounds(axes: Any, rows: Mapping[str, Mapping[str, float]]) -> None:
    names = list(rows)
    shapes = list(rows[names[0]]) if names else []
    height = 0.8 / max(1, len(shapes))
    for number, shape in enumerate(shapes):
        places = [index + height * (number - (len(shapes) - 1) / 2) for index in range(len(names))]
        values = [rows[name][shape] for name in names]
        axes.barh(places, values, height=height, label=shape.replace("_", " "))
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="tokens per round")
    axes.set_title("chains of some length, trees of width x depth, temperature 0")
    _say_names(axes)


def _say_names(axes: Any) -> None:
    """A legend, where anything was drawn: all held-out answers may be too short for chains."""
    if axes.get_legend_handles_labels()[0]:
        axes.legend(fontsize=7)
