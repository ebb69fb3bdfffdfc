"""Predicts what benchmarks/validation.py measured, compares, and draws."""

import platform
import statistics
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import matplotlib as mpl
import torch
from validation_pairs import Pair

from edge.steering import LengthPolicy
from simulator.acceptance.guess_trace import GuessTrace, read_trace
from simulator.calibration.cost_file import Calibration, read_costs
from simulator.calibration.run import machine, trace_name
from simulator.notation import parse_network
from simulator.predict import PredictionSettings, predict_one

mpl.use("Agg")
from matplotlib import pyplot as plt

BAND = 0.05
"""How near a prediction should be."""
MARKERS = {"fixed": "o", "closed-form": "s"}


def head() -> dict[str, Any]:
    """Return how and where this runs."""
    return {
        # Where folders lie means nothing elsewhere.
        "command": " ".join(Path(word).name if word.startswith("/") else word for word in sys.argv),
        "machine": machine(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "grpc": grpc.__version__,
        },
    }


def report(
    runs: list[dict[str, Any]], *, pairs: list[Pair], work: Path, plot: Path | None
) -> dict[str, Any]:
    """Return costs, and for every pair what was predicted and measured; print and draw that."""
    costs = {path.parent.name: read_costs(path) for path in sorted(work.glob("*/costs.toml"))}
    rows = [
        _row(pair, [run for run in runs if run["pair"] == pair.name], costs=costs, work=work)
        for pair in pairs
        if any(run["pair"] == pair.name for run in runs)
    ]
    _print(rows)
    if plot is not None:
        _draw(rows, plot)
    texts = {
        prompt: len({a["text"] for run in runs for a in run["answers"] if a["prompt"] == prompt})
        for prompt in {a["prompt"] for run in runs for a in run["answers"]}
    }
    files = {part: (work / part / "costs.toml").read_text().splitlines() for part in costs}
    return {"pairs": rows, "texts_by_prompt": texts, "costs": files}


def _row(
    pair: Pair, runs: list[dict[str, Any]], *, costs: dict[str, Calibration], work: Path
) -> dict[str, Any]:
    before = recorded_traces(work, {pair.draft})[pair.draft]
    came = read_trace(work / "read" / trace_name(pair.draft))
    trace = replace(before, texts=before.texts + came.texts)
    measured = [_speed(run["answers"]) for run in runs]
    by_costs = {
        part: [
            _speed(predicted(pair, run["answers"], calibration=calibration, trace=trace))
            for run in runs
        ]
        for part, calibration in costs.items()
    }
    guesses = [statistics.fmean(each) for each in zip(*by_costs.values(), strict=True)]
    told = predicted(pair, runs[0]["answers"], calibration=costs["before"], trace=trace)
    ahead = [
        _speed(predicted(pair, run["answers"], calibration=costs["before"], trace=before))
        for run in runs
    ]
    return {
        "pair": pair.name,
        "link": pair.link,
        "draft": pair.draft,
        "policy": pair.policy,
        "min_step_ms": pair.min_step_ms,
        "measured": [round(one, 3) for one in measured],
        "predicted": [round(one, 3) for one in guesses],
        "predicted_by_costs": {
            part: round(statistics.fmean(each), 3) for part, each in by_costs.items()
        },
        "predicted_ahead": [round(one, 3) for one in ahead],
        "error": round(statistics.fmean(guesses) / statistics.fmean(measured) - 1, 4),
        "spread": round((max(measured) - min(measured)) / statistics.fmean(measured), 4),
        "steps": [_sum(runs[0]["answers"], "steps"), _sum(told, "steps")],
        "judged": [_sum(runs[0]["answers"], "judged"), _sum(told, "judged")],
        "accepted": [_sum(runs[0]["answers"], "accepted"), _sum(told, "accepted")],
        "first_s": [_mean(runs[0]["answers"], "first_s"), _mean(told, "first_s")],
        "step_s": [_mean(runs[0]["answers"], "step_s"), _mean(told, "step_s")],
    }


def recorded_traces(work: Path, drafts: set[str]) -> dict[str, GuessTrace]:
    """Return the guesses of drafts that were recorded before anything was measured."""
    return {draft: read_trace(work / "before" / trace_name(draft)) for draft in drafts}


def predicted(
    pair: Pair, answers: list[dict[str, Any]], *, calibration: Calibration, trace: GuessTrace
) -> list[dict[str, Any]]:
    """Return the answers as they should have been, given when each was asked."""
    settings = PredictionSettings(
        calibration=calibration,
        trace=trace,
        network=parse_network(pair.network),
        length_policy=LengthPolicy(pair.policy),
        min_step_s=pair.min_step_ms / 1e3,
    )
    texts = {text.prompt: text for text in trace.chosen(temperature=0.0)}
    found = []
    for answer in answers:
        # The text that came, where it was read along; else the one that was recorded of this prompt.
        text = texts.get(f"{answer['prompt']} {answer['text']}") or texts[answer["prompt"]]
        num = answer["committed"]
        text = replace(text, ranks=text.ranks[:num], confidence=text.confidence[:num])
        one = predict_one(settings, text, at_s=answer["at_s"]).statistics
        found.append(
            {
                "committed": one.committed,
                "duration_s": one.duration_s,
                "first_s": one.time_to_first_token_s,
                "steps": one.steps,
                "judged": one.judged,
                "accepted": one.accepted,
                "step_s": one.verifier_step_s,
            }
        )
    return found


def _speed(answers: list[dict[str, Any]]) -> float:
    return float(_sum(answers, "committed") / _sum(answers, "duration_s"))


def _sum(answers: list[dict[str, Any]], key: str) -> Any:
    return sum(answer[key] for answer in answers)


def _mean(answers: list[dict[str, Any]], key: str) -> float:
    return round(statistics.fmean(answer[key] for answer in answers), 4)


def _print(rows: list[dict[str, Any]]) -> None:
    print(
        "| pair | measured | predicted | error | spread | steps | accepted | first, s | step, s |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for row in rows:
        counts = (
            " | ".join(f"{there} / {said}" for there, said in [row[key]])
            for key in ("steps", "accepted", "first_s", "step_s")
        )
        print(
            f"| {row['pair']} | {statistics.fmean(row['measured']):.2f} | {statistics.fmean(row['predicted']):.2f} "
            f"| {row['error']:+.1%} | {row['spread']:.1%} | {' | '.join(counts)} |"
        )
    errors = sorted(abs(row["error"]) for row in rows)
    inside = sum(error <= BAND for error in errors)
    print(
        f"{inside} of {len(rows)} pairs within {BAND:.0%}; median error {statistics.median(errors):.1%}, "
        f"worst {errors[-1]:.1%}"
    )


def _draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Draw predicted against measured, one mark for each pair."""
    figure, axes = plt.subplots(figsize=(6.4, 6.0), layout="constrained")
    most = 1.1 * max(max(row["measured"] + row["predicted"]) for row in rows)
    least = 0.9 * min(min(row["measured"] + row["predicted"]) for row in rows)
    ends = [least, most]
    axes.plot(ends, ends, color="black", linewidth=0.8)
    axes.fill_between(
        ends, [end * (1 - BAND) for end in ends], [end * (1 + BAND) for end in ends],
        color="grey", alpha=0.2, label=f"within {BAND:.0%}",
    )  # fmt: skip
    drafts = list(dict.fromkeys(row["draft"] for row in rows))
    seen: set[str] = set()
    for row in rows:
        x, y = statistics.fmean(row["measured"]), statistics.fmean(row["predicted"])
        padded = row["min_step_ms"] > 0
        label = f"{row['draft']}, {row['policy']}{', padded steps' if padded else ''}"
        axes.errorbar(
            x, y, xerr=[[x - min(row["measured"])], [max(row["measured"]) - x]],
            marker=MARKERS[row["policy"]], color=f"C{drafts.index(row['draft'])}", markersize=7, linewidth=0.8,
            fillstyle="none" if padded else "full", linestyle="none", label=None if label in seen else label,
        )  # fmt: skip
        seen.add(label)
    axes.set(
        xlim=ends, ylim=ends, xlabel="measured, tokens per second",
        ylabel="predicted, tokens per second", title="Simulated against real processes",
    )  # fmt: skip
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="upper left")
    figure.savefig(path, dpi=110)
    plt.close(figure)
