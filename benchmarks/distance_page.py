"""Makes of the lines of benchmarks/distance.py what is published: a result, a picture, the tables of a page."""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
from distance_cells import CLOUD_ONLY, COLOCATED, DRAFTS, SYSTEMS
from distance_lines import Line, RunFolder
from distance_prediction import Asked, Reading, predicted
from distance_prediction import speed as predicted_speed
from distance_report import Group, groups, row
from distance_steps import fitted, steps
from validation import save
from validation_report import head

from paceline.prompts import read_prompts
from simulator.calibration.cost_file import Calibration, read_costs

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

BEGIN, END = "<!-- measured -->", "<!-- end -->"
LABELS = {system.name: system.label for system in SYSTEMS}
DRAFT_LABELS = {draft.name: draft.label for draft in DRAFTS}
DRAFTS_BY_NAME = {draft.name: draft for draft in DRAFTS}

Row = dict[str, Any]


def publish(folder: RunFolder, arguments: argparse.Namespace) -> None:
    """Write the result, draw, and put the tables into the page, if there is one."""
    lines = folder.generations()
    found = groups(lines)
    references = {
        (line["prompt"], line["temperature"]): line["output"]
        for line in reversed(folder.lines)
        if line["kind"] == "text"
    }

    def reference(line: Line) -> Sequence[int]:
        output: Sequence[int] = references[line["prompt"], line["temperature"]]
        return output

    rows = [each for group in found if (each := row(group, reference=reference))]
    if not arguments.skip_prediction:
        _predict(found, rows, folder=folder, arguments=arguments)
    result = head() | {
        "commits": dict(Counter(line["commit"] for line in lines)),
        "tokens": max((line["max_tokens"] for line in lines), default=0),
        "prompts": sorted({line["prompt"] for line in lines}),
        "rows": rows,
    }
    save(arguments.output, result)
    draw(rows, arguments.plot)
    text = "\n\n".join(tables(rows))
    print(text)
    if arguments.page.exists():
        put(arguments.page, text)


def _predict(
    found: Sequence[Group],
    rows: Sequence[Row],
    *,
    folder: RunFolder,
    arguments: argparse.Namespace,
) -> None:
    """Add to every row what the simulator says of the same generations."""
    costs = Costs(folder.generations(), arguments=arguments)
    prompts = {line.name: line for line in read_prompts(arguments.prompts)}
    reading = Reading(folder.path, lines=prompts, target=arguments.target, dtype=arguments.dtype)
    by_cell = {_cell(each): each for each in rows}
    plain: dict[tuple[Any, ...], float] = {}
    pending = []
    for name in sorted({group.draft for group in found}):
        if (draft := DRAFTS_BY_NAME.get(name)) is not None and draft.spec:
            reading.read(draft, [each for one in found if one.draft == name for each in one.lines])
    for group in found:
        if (told := by_cell.get(_cell(vars_of(group)))) is None:
            continue
        draft = DRAFTS_BY_NAME.get(group.draft)
        said = [
            one
            for lines in _by_tenant(group)
            for one in predicted(
                [
                    Asked(
                        line=line,
                        text=reading.text(line),
                        guesses=reading.guesses(draft, line) if draft else None,
                    )
                    for line in lines
                ],
                calibration=costs.of(group),
                pass_s=max(1e-6, told["pass_s"]),
            )
        ]
        told["predicted_tokens_per_s"] = round(predicted_speed(said), 4)
        told["prediction_error"] = round(predicted_speed(said) / told["tokens_per_s"] - 1, 4)
        told["predicted_steps_per_token"] = round(
            sum(one.steps for one in said) / sum(one.committed for one in said), 4
        )
        if group.system == CLOUD_ONLY.name:
            plain[group.link, group.temperature] = told["predicted_tokens_per_s"]
        pending.append(told)
    for told in pending:
        base = plain.get((told["link"], told["temperature"]))
        if base:
            told["predicted_ratio"] = round(told["predicted_tokens_per_s"] / base, 4)


class Costs:
    """What steps cost: as a file says, or as the run's own steps of the same link and temperature did.

    Co-located drafting leaves other things in the caches than waiting for a link does, so the two are told apart.

    Args:
        lines: of the run.
        arguments: of the command line.
    """

    def __init__(self, lines: Sequence[Line], *, arguments: argparse.Namespace) -> None:
        self._given = read_costs(arguments.costs) if arguments.costs else None
        self._lines = lines
        self._name, self._dtype = arguments.target, arguments.dtype
        self._fitted: dict[tuple[Any, ...], Calibration] = {}

    def of(self, group: Group) -> Calibration:
        """Return the costs of a cell."""
        return self._given or self._measured(
            group.link, group.temperature, is_colocated=group.system in COLOCATED
        )

    def _measured(self, link: str, temperature: float, *, is_colocated: bool) -> Calibration:
        key = (link, temperature, is_colocated)
        if key not in self._fitted:
            hours = [line for line in self._lines if (line["link"], line["temperature"]) == key[:2]]
            there = [line for line in hours if (line["system"] in COLOCATED) == is_colocated]
            target = fitted(steps(hours), rested=steps(there), name=self._name, dtype=self._dtype)
            self._fitted[key] = Calibration(machine={}, target=target)
        return self._fitted[key]


def _by_tenant(group: Group) -> list[list[Line]]:
    """Return the lines of each repetition, in the order in which they were measured."""
    numbers = sorted({line["repetition"] for line in group.lines})
    return [[line for line in group.lines if line["repetition"] == number] for number in numbers]


def vars_of(group: Group) -> Row:
    """Return what names a group."""
    return {name: getattr(group, name) for name in ("link", "temperature", "system", "draft")}


def _cell(value: Row) -> tuple[Any, ...]:
    return value["link"], value["temperature"], value["system"], value["draft"]


# --- tables


def tables(rows: Sequence[Row]) -> list[str]:
    """Return a table of speed, one of costs and one of what the formula says."""
    return [_speeds(rows), _costs(rows), _formulas(rows)]


def _speeds(rows: Sequence[Row]) -> str:
    lines = _titles(
        "link", "draft", "system", "generations", "tokens/s", "against cloud-only (95 %)", "by repetition", "lowest prompt", "first token, s", "predicted", "texts identical",
    )  # fmt: skip
    for each in rows:
        prompts = each["ratio_by_prompt"]
        lowest = min(prompts, key=prompts.__getitem__)
        low, high = each["ratio_band"]
        turns = ", ".join(f"{one:.2f}" for one in each["ratio_by_repetition"])
        left_out = f" ({each['num_unsound']} left out)" if each["num_unsound"] else ""
        said = _said_of(each)
        lines.append(
            f"{_begin(each)} | {each['num']}{left_out} | {each['tokens_per_s']:.2f} "
            f"| {each['ratio']:.2f} ({low:.2f} to {high:.2f}) | {turns} | {prompts[lowest]:.2f} ({lowest}) "
            f"| {each['first_s']:.2f} | {said} | {each['identical']} of {each['num']} |"
        )
    return "\n".join(lines)


def _titles(*columns: str) -> list[str]:
    return [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]


def _said_of(each: Row) -> str:
    if "predicted_ratio" not in each:
        return "-"
    return f"{each['predicted_ratio']:.2f} ({each['prediction_error']:+.1%})"


def _costs(rows: Sequence[Row]) -> str:
    lines = _titles(
        "link", "draft", "system", "bytes up, down per token", "rows, steps per token", "drafted, accepted per token", "unsent", "stale", "late", "wrong", "below wrong", "pass, ms", "step, ms", "processor: cloud, edge, relay",
    )  # fmt: skip
    for each in rows:
        lost, shares = each["waste_per_token"], each["processor"]
        edge = shares.get("edge", 0.0) + shares.get("co-located edge", 0.0)
        lines.append(
            f"{_begin(each)} | {each['bytes_up_per_token']:.1f}, {each['bytes_down_per_token']:.1f} "
            f"| {each['rows_per_token']:.2f}, {each['steps_per_token']:.2f} "
            f"| {each['nodes_per_token']:.2f}, {each['accepted_per_token']:.2f} "
            f"| {lost['unsent']:.2f} | {lost['stale']:.2f} | {lost['late']:.2f} | {lost['wrong']:.2f} "
            f"| {lost['below_wrong']:.2f} | {1e3 * each['pass_s']:.1f} | {1e3 * each['step_s']:.1f} "
            f"| {shares.get('cloud', 0.0):.2f}, {edge:.2f}, {shares.get('relay', 0.0):.2f} |"
        )
    return "\n".join(lines)


def _formulas(rows: Sequence[Row]) -> str:
    lines = _titles(
        "link", "draft", "system", "pace v, tokens/s", "misses m per token", "step t, ms", "1/v + m (R + t), ms", "measured, ms", "measured / formula",
    )  # fmt: skip
    for each in rows:
        found = each["formula"]
        if found is None or each["system"] == CLOUD_ONLY.name:
            continue
        lines.append(
            f"{_begin(each)} | {found['pace']:.1f} | {found['misses_per_token']:.3f} | {1e3 * found['step_s']:.0f} "
            f"| {1e3 * found['bound_s']:.1f} | {1e3 * found['measured_s']:.1f} | {found['measured_by_bound']:.2f} |"
        )
    return "\n".join(lines)


def _begin(each: Row) -> str:
    hot = f", temperature {each['temperature']:g}" if each["temperature"] else ""
    draft = DRAFT_LABELS.get(each["draft"], "-")
    return f"| {each['link']}{hot} | {draft} | {LABELS[each['system']]}"


def put(page: Path, text: str) -> None:
    """Replace what stands between the two marks of a page."""
    content = page.read_text(encoding="utf-8")
    before, begin, rest = content.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{page}: expected {BEGIN} and {END} around the tables")
    page.write_text(f"{before}{BEGIN}\n\n{text}\n\n{END}{after}", encoding="utf-8")


# --- picture


def draw(rows: Sequence[Row], path: Path) -> None:
    """Draw the ratio over the round trip, a panel for each draft; predictions are dashed."""
    plain = [each for each in rows if each["temperature"] == 0.0 and each["link"].endswith(" ms")]
    drafts = [one for one in DRAFT_LABELS if any(each["draft"] == one for each in plain)]
    if not drafts:
        return
    figure, panels = plt.subplots(
        1, len(drafts), figsize=(4.4 * len(drafts), 4.8), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for axes, draft in zip(panels[0], drafts, strict=True):
        _panel(axes, [each for each in plain if each["draft"] == draft])
        axes.set(title=DRAFT_LABELS[draft], xlabel="round trip, ms")
    panels[0][0].set_ylabel("tokens/s against cloud-only streaming")
    panels[0][0].set_ylim(0.0, 1.05 * max(each["ratio_band"][1] for each in plain))
    named = {
        label: line
        for axes in panels[0]
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(list(named.values()), list(named), loc="outside lower center", ncol=4, fontsize=8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _panel(axes: Axes, rows: Sequence[Row]) -> None:
    axes.axhline(1.0, color="black", linewidth=0.8)
    for number, name in enumerate(LABELS):
        own = sorted((r for r in rows if r["system"] == name), key=lambda r: float(r["rtt_s"]))
        if not own:
            continue
        # Side by side where they would hide each other.
        rtts = [1e3 * each["rtt_s"] + 1.5 * (number - 3) for each in own]
        ratios = [each["ratio"] for each in own]
        errors = [
            [max(0.0, each["ratio"] - each["ratio_band"][0]) for each in own],
            [max(0.0, each["ratio_band"][1] - each["ratio"]) for each in own],
        ]
        color = f"C{number}"
        axes.errorbar(
            rtts, ratios, yerr=errors, marker="o", color=color, capsize=3, label=LABELS[name]
        )
        if all("predicted_ratio" in each for each in own):
            said = [each["predicted_ratio"] for each in own]
            axes.plot(rtts, said, linestyle="--", color=color, linewidth=0.9)
    axes.grid(alpha=0.3)
    axes.set_xlim(-10.0, 1.1e3 * max((each["rtt_s"] for each in rows), default=0.1) + 5.0)
