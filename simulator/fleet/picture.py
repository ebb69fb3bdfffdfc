"""A fleet's figures as a picture."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError
from simulator.fleet.report import NAMES, WASTE

COLORS = {"drafting": "tab:green", "cloud_only": "tab:gray"}
FORMATS = (".png", ".svg", ".pdf")


def check_picture(path: Path) -> None:
    """Check that a picture can be drawn there, before a fleet is run for it.

    Raises:
        ConfigError: matplotlib is missing, or the name says no format that we draw.
    """
    if find_spec("matplotlib") is None:
        raise ConfigError(
            "--plot: matplotlib is not installed; install it with: pip install matplotlib"
        )
    if path.suffix not in FORMATS:
        raise ConfigError(
            f"--plot: got {str(path)!r}, expected a name that ends in {', '.join(FORMATS)}"
        )


def draw(figures: Mapping[str, Any], path: Path) -> None:
    """Draw speed and waiting by network, sessions over time, and what became of drafts."""
    from matplotlib.figure import Figure  # noqa: PLC0415 - optional, and slow to import

    runs = {name: figures[name] for name in NAMES if name in figures}
    settings = figures["settings"]
    figure = Figure(figsize=(11.0, 7.5), layout="constrained")
    (speed, wait), (time, waste) = figure.subplots(2, 2)
    _by_network(speed, runs, "tokens_per_s", title="tokens/s of an edge while it answers")
    _by_network(wait, runs, "first_token_s", title="seconds to the first token")
    for name, run in runs.items():
        over = run["over_time"]
        at_s = [(index + 0.5) * over["bin_s"] / 60.0 for index in range(len(over["sessions"]))]
        time.plot(at_s, over["sessions"], color=COLORS[name], label=NAMES[name])
    time.axvspan(0.0, settings["warm_up_s"] / 60.0, color="0.9", label="not counted")
    time.set(xlabel="simulated minutes", ylim=(0, None))
    time.set_title("sessions at all verifiers", fontsize=11)
    time.legend(fontsize=8)
    _waste(waste, runs)
    figure.suptitle(
        f"{settings['edges']} edges on {settings['verifiers']} verifiers, each asking every "
        f"{settings['people']['every_s']:.0f} s"
    )
    figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix == ".svg" else None)


def _by_network(axes: Any, runs: Mapping[str, Any], key: str, *, title: str) -> None:
    """Draw p10, median and p90 of each network, a run beside the other."""
    rows = [*next(iter(runs.values()))["by_network"], {"name": "all"}]
    for shift, (name, run) in enumerate(runs.items()):
        found = [*run["by_network"], run["all"]]
        places = [
            (index + 0.3 * (shift - (len(runs) - 1) / 2), one[key])
            for index, one in enumerate(found)
            if one["edges_that_asked"]
        ]
        middles = [spread["median"] for _, spread in places]
        axes.errorbar(
            [place for place, _ in places],
            middles,
            yerr=[
                [spread["median"] - spread["p10"] for _, spread in places],
                [spread["p90"] - spread["median"] for _, spread in places],
            ],
            fmt="o",
            capsize=4,
            color=COLORS[name],
            label=NAMES[name],
        )
    axes.set_xticks(range(len(rows)), [row["name"] for row in rows], rotation=20, fontsize=8)
    axes.set_title(f"{title}: p10, median, p90", fontsize=11)
    axes.set_ylim(0, None)
    axes.legend(fontsize=8)
    axes.grid(axis="y", alpha=0.3)


def _waste(axes: Any, runs: Mapping[str, Any]) -> None:
    axes.set_title("drafted tokens, per committed token", fontsize=11)
    drafts = runs.get("drafting", {}).get("drafts")
    if drafts is None or not drafts["drafted_per_token"]:
        axes.text(0.5, 0.5, "nothing was drafted", ha="center", va="center")
        axes.set_axis_off()
        return
    names = ["used", *WASTE.values()]
    values = [drafts["accepted_per_token"], *(drafts["wasted_per_token"][one] for one in WASTE)]
    bars = axes.barh(names, values, color=["tab:green", *("tab:red" for _ in WASTE)])
    axes.bar_label(bars, fmt="%.3f", padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(axis="y", labelsize=8)
    axes.margins(x=0.15)
