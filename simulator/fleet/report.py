"""A fleet's figures as text for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

VALIDATION = Path(__file__).parent / "validation.json"
"""Written by benchmarks/fleet_validation.py."""

TOLD = {
    "tokens_per_s": "tokens/s per edge",
    "first_token_s": "time to the first token",
    "queue_s": "queueing time",
    "busy": "time computing",
    "rows_per_token": "rows per token",
}
WASTE = {
    "rejected": "wrong",
    "behind": "behind a wrong one",
    "late": "too late, though right",
    "stale": "on another text",
    "ended": "left over at the end",
    "unsent": "overtaken, never sent",
}
NAMES = {"drafting": "with drafts", "cloud_only": "cloud only"}


def report(figures: Mapping[str, Any]) -> list[str]:
    """Return the lines."""
    runs = {name: figures[name] for name in NAMES if name in figures}
    lines = [*_about(figures["settings"], runs), "", *_edges(runs), "", *_verifiers(runs)]
    if "drafting" in runs:
        lines += ["", *_drafts(runs["drafting"])]
    return [*lines, "", validated()]


def validated(path: Path = VALIDATION) -> str:
    """Return how far the model was off the detailed world when that was measured."""
    found = json.loads(path.read_text(encoding="utf-8"))
    parts = [
        f"{told} {found['summary'][name]['median']:.1%} (worst {found['summary'][name]['worst']:.0%})"
        for name, told in TOLD.items()
    ]
    return (
        "This is the coarse model of docs/fleet.md, at the level of steps. Against the detailed world of docs/simulator.md, "
        f"on {found['num_cases']} small fleets, it was off at the median by: {', '.join(parts)}."
    )


def _about(settings: Mapping[str, Any], runs: Mapping[str, Any]) -> list[str]:
    people, drafter = settings["people"], settings["drafter"]
    lines = [
        (
            f"{settings['edges']} edges, {settings['verifiers']} verifiers, {settings['lasts_s'] / 60:g} simulated minutes "
            f"after {settings['warm_up_s']:g} s to get going; seed {settings['seed']}"
        ),
        (
            f"each edge asks every {people['every_s']:.0f} s on average, for answers of {people['answer_tokens']:g} tokens "
            f"(at most {people['most_tokens']})"
        ),
    ]
    if drafter is not None:
        guesses = drafter["guesses"]
        told = guesses if isinstance(guesses, str) else f"right in {guesses:g}"
        lines.append(f"drafts: {told}; length {drafter['length_policy']}")
    for name, run in runs.items():
        lines.append(
            f"{NAMES[name]}: {run['answers']} answers, {run['tokens_per_s']:.0f} tokens/s in all; sessions in the second "
            f"half against the first: {run['drift']:+.1%}"
        )
    return lines


def _edges(runs: Mapping[str, Any]) -> list[str]:
    """Return the table by network."""
    head = f"{'':<24}{'edges':>7}  {'tokens/s while answering':<26}  {'first token, s':<20}"
    under = f"{'':<24}{'':>7}  {'p10':>8}{'median':>9}{'p90':>9}  {'median':>9}{'p90':>9}"
    lines = [head.rstrip(), under]
    first = next(iter(runs.values()))
    for index, row in enumerate([*first["by_network"], {"name": "all"}]):
        for name, run in runs.items():
            found = run["all"] if row["name"] == "all" else run["by_network"][index]
            label = f"{row['name'][:12]:<12} {NAMES[name]}"
            speed, wait = found["tokens_per_s"], found["first_token_s"]
            if not found["edges_that_asked"]:
                lines.append(f"{label:<24}{0:>7}  nobody asked")
                continue
            lines.append(
                f"{label:<24}{found['edges_that_asked']:>7}  {speed['p10']:>8.2f}{speed['median']:>9.2f}"
                f"{speed['p90']:>9.2f}  {wait['median']:>9.2f}{wait['p90']:>9.2f}"
            )
    return lines


def _verifiers(runs: Mapping[str, Any]) -> list[str]:
    """Return the table of verifiers, one column for each run."""
    rows: list[tuple[str, list[str]]] = []

    def row(label: str, *path: str, form: str = "{:.3g}") -> None:
        values = []
        for run in runs.values():
            value: Any = run
            for key in path:
                value = value[key]
            values.append("-" if value is None else form.format(value))
        rows.append((label, values))

    row("load: committed, of the most it can commit", "verifiers", "load", form="{:.1%}")
    row(
        "utilisation: part of the time computing, median",
        "verifiers",
        "busy",
        "median",
        form="{:.1%}",
    )
    row("sessions at a verifier: mean", "verifiers", "sessions", form="{:.1f}")
    row("  most", "verifiers", "most_sessions", form="{}")
    row("step, s", "verifiers", "step_s", form="{:.3g}")
    row("queueing before the first step, s: median", "verifiers", "queue_s", "median")
    row("  p99", "verifiers", "queue_s", "p99")
    row("refused for want of a seat", "verifiers", "refused", form="{}")
    row("rows per token, prompts apart", "verifiers", "rows_per_token")
    row("bytes per token up", "bytes_per_token", "up", form="{:.1f}")
    row("  down", "bytes_per_token", "down", form="{:.1f}")
    row("price of a million tokens as it ran", "price_per_million_tokens", "as_it_ran")
    row("  fully loaded", "price_per_million_tokens", "fully_loaded")
    head = f"{'verifiers':<52}" + "".join(f"{NAMES[name]:>14}" for name in runs)
    return [head] + [
        f"{label:<52}" + "".join(f"{value:>14}" for value in values) for label, values in rows
    ]


def _drafts(run: Mapping[str, Any]) -> list[str]:
    drafts = run["drafts"]
    drafted = drafts["drafted_per_token"]
    if not drafted:
        return ["nothing was drafted"]
    lines = [
        (
            f"drafted for each committed token: {drafted:.2f}, used {drafts['accepted_per_token']:.2f}; right when compared: "
            f"{drafts['acceptance_probability'] or 0.0:.1%}; wasted:"
        )
    ]
    for name, told in WASTE.items():
        value = drafts["wasted_per_token"][name]
        lines.append(f"  {value:>6.3f}  {value / drafted:>6.1%}  {told}")
    return lines
