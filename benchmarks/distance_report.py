"""What the lines of benchmarks/distance.py say: speed against plain streaming, bytes, rows, waste. Pure.

Tokens per second are a ratio of sums, over all prompts of a cell; a system is compared with plain streaming of the same
prompts in the same repetition, over the same link, at the same temperature. A row of a table is a cell: link, temperature, system, draft.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from distance_lines import Line, is_sound

CLOUD_ONLY = "cloud-only"
RESAMPLED = 2000
BAND = (2.5, 97.5)
"""Percentiles of the resampled ratios that a table tells."""
TALLIES = ("drafted", "judged", "accepted", "late", "stale", "unsent")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """The generations of a cell that have a partner."""

    link: str
    rtt_s: float
    temperature: float
    system: str
    draft: str
    lines: tuple[Line, ...]
    plain: tuple[Line, ...]
    """Of each the plain streaming of the same prompt in the same repetition."""
    num_unsound: int
    """Left out: a recorded draft did not know the text."""
    num_alone: int
    """Left out: there is no plain one of the same repetition yet."""


def groups(lines: Iterable[Line]) -> list[Group]:
    """Return the cells in the order of their first lines, plain streaming first."""
    lines = list(lines)
    plain = {_place(line): line for line in lines if line["system"] == CLOUD_ONLY}
    by_cell: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        by_cell.setdefault(_cell(line), []).append(line)
    found = []
    for (link, temperature, system, draft), of_cell in by_cell.items():
        sound = [line for line in of_cell if is_sound(line)]
        paired = [line for line in sound if _place(line) in plain]
        found.append(
            Group(
                link=link,
                rtt_s=of_cell[0]["rtt_s"],
                temperature=temperature,
                system=system,
                draft=draft,
                lines=tuple(paired),
                plain=tuple(plain[_place(line)] for line in paired),
                num_unsound=len(of_cell) - len(sound),
                num_alone=len(sound) - len(paired),
            )
        )
    return sorted(found, key=lambda one: (one.temperature, one.rtt_s, one.link, one.draft))


def row(group: Group, *, reference: Callable[[Line], Sequence[int]]) -> dict[str, Any] | None:
    """Return what a table tells of a cell; None if nothing of it has a partner.

    Args:
        group: the cell.
        reference: the text that a prompt's answer is compared with.
    """
    if not group.lines:
        return None
    lines = group.lines
    committed = _sum(lines, "committed")
    later = [
        commit for line in lines for commit in line["commits"][1:]
    ]  # the first one has the prompt
    rows = sum(commit["rows"] * commit["steps"] for commit in later)
    num_later = max(1, sum(commit["tokens"] for commit in later))
    counts = {name: sum(line["statistics"][name] for line in lines) for name in TALLIES}
    parted = [parted_at(line["output"], reference(line)) for line in lines]
    return {
        "link": group.link,
        "rtt_s": group.rtt_s,
        "temperature": group.temperature,
        "system": group.system,
        "draft": group.draft,
        "num": len(lines),
        "num_unsound": group.num_unsound,
        "num_alone": group.num_alone,
        "tokens_per_s": _rounded(speed(lines)),
        "ratio": _rounded(speed(lines) / speed(group.plain)),
        "ratio_by_repetition": [_rounded(each) for each in _by_repetition(group)],
        "ratio_band": [_rounded(each) for each in band(group)],
        "ratio_by_prompt": {name: _rounded(each) for name, each in by_prompt(group).items()},
        "first_s": _rounded(statistics.median(line["first_s"] for line in lines)),
        "bytes_up_per_token": _rounded(_of(lines, "payload_bytes_up") / committed),
        "bytes_down_per_token": _rounded(_of(lines, "payload_bytes_down") / committed),
        "rows_per_token": _rounded(rows / num_later),
        "steps_per_token": _rounded(_of(lines, "steps") / committed),
        "nodes_per_token": _rounded(counts["drafted"] / committed),
        "accepted_per_token": _rounded(counts["accepted"] / committed),
        "waste_per_token": {k: _rounded(v / committed) for k, v in waste(counts).items()},
        "pass_s": _rounded(_sum(lines, "passes_s") / max(1, _sum(lines, "passes")), digits=5),
        "step_s": _rounded(
            statistics.median(line["statistics"]["verifier_step_s"] for line in lines)
        ),
        "processor": _processor(lines),
        "identical": sum(at is None for at in parted),
        "parted_at": sorted(at for at in parted if at is not None),
        "formula": formula(lines, rtt_s=group.rtt_s),
    }


def speed(lines: Sequence[Line]) -> float:
    """Return tokens per second, a ratio of sums."""
    return float(_sum(lines, "committed") / _sum(lines, "duration_s"))


def by_prompt(group: Group) -> dict[str, float]:
    """Return for each prompt the median over the repetitions of the paired ratio."""
    ratios: dict[str, list[float]] = {}
    for line, plain in zip(group.lines, group.plain, strict=True):
        ratios.setdefault(line["prompt"], []).append(speed([line]) / speed([plain]))
    return {name: statistics.median(each) for name, each in ratios.items()}


def band(group: Group) -> tuple[float, float]:
    """Return between what the ratio lies, by drawing prompts anew with all their repetitions (the bootstrap of clusters)."""
    names = sorted({line["prompt"] for line in group.lines})
    sums = np.array(
        [
            [
                sum(line[key] for line in lines if line["prompt"] == name)
                for lines in (group.lines, group.plain)
                for key in ("committed", "duration_s")
            ]
            for name in names
        ]
    )
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, len(names), size=(RESAMPLED, len(names)))
    ours, ours_s, theirs, theirs_s = sums[drawn].sum(axis=1).T
    low, high = np.percentile((ours / ours_s) / (theirs / theirs_s), BAND)
    return float(low), float(high)


def waste(counts: dict[str, int]) -> dict[str, int]:
    """Return what became of drafted tokens that saved nothing.

    Args:
        counts: sums of `paceline.client.outcome.Statistics`.
    """
    met = counts["judged"] + counts["late"] + counts["stale"]
    return {
        "unsent": counts["unsent"],
        "stale": counts["stale"],
        "late": counts["late"],
        "wrong": counts["judged"] - counts["accepted"],
        "below_wrong": max(0, counts["drafted"] - met),
    }


def formula(lines: Sequence[Line], *, rtt_s: float) -> dict[str, float] | None:
    """Return what the stream formula says of the measured pace and misses, and what was measured, in seconds per token.

    Time per token is 1 / v + m (R + t): v tokens per second while drafts are there, m misses per token, a step of t. A miss is
    a run of steps without any draft after one with drafts. Times are those between commits; prefill is left out. None: there
    were no drafts, or no misses to speak of.
    """
    tokens = took_s = covered = covered_s = bare = bare_s = misses = 0.0
    for line in lines:
        was_covered = False
        for before, commit in zip(line["commits"], line["commits"][1:], strict=False):
            step_s = commit["at_s"] - before["at_s"]
            tokens, took_s = tokens + commit["tokens"], took_s + step_s
            if commit["judged"]:
                covered, covered_s = covered + commit["tokens"], covered_s + step_s
            else:
                bare, bare_s = bare + commit["steps"], bare_s + step_s
                misses += was_covered
            was_covered = bool(commit["judged"])
    if not covered or not tokens:
        return None
    step_s = bare_s / bare if bare else covered_s / covered
    bound_s = covered_s / covered + misses / tokens * (rtt_s + step_s)
    return {
        "pace": _rounded(covered / covered_s),
        "misses_per_token": _rounded(misses / tokens),
        "step_s": _rounded(step_s),
        "bound_s": _rounded(bound_s),
        "measured_s": _rounded(took_s / tokens),
        "measured_by_bound": _rounded(took_s / tokens / bound_s),
    }


def parted_at(output: Sequence[int], reference: Sequence[int]) -> int | None:
    """Return the first index at which two texts differ; None if one is the beginning of the other."""
    for index, (one, other) in enumerate(zip(output, reference, strict=False)):
        if one != other:
            return index
    return None


def _cell(line: Line) -> tuple[str, float, str, str]:
    return line["link"], line["temperature"], line["system"], line["draft"]


def _place(line: Line) -> tuple[str, float, str, int]:
    return line["link"], line["temperature"], line["prompt"], line["repetition"]


def _by_repetition(group: Group) -> list[float]:
    ratios = []
    for number in sorted({line["repetition"] for line in group.lines}):
        ours, theirs = (
            [line for line in lines if line["repetition"] == number]
            for lines in (group.lines, group.plain)
        )
        ratios.append(speed(ours) / speed(theirs))
    return ratios


def _processor(lines: Sequence[Line]) -> dict[str, float]:
    """Return the share of one core that each program took."""
    names = {name for line in lines for name in line["cpu_s"]}
    took_s = _sum(lines, "duration_s")
    return {
        name: _rounded(sum(line["cpu_s"].get(name, 0.0) for line in lines) / took_s)
        for name in sorted(names)
    }


def _sum(lines: Sequence[Line], key: str) -> float:
    return float(sum(line[key] for line in lines))


def _of(lines: Sequence[Line], key: str) -> float:
    return float(sum(line["statistics"][key] for line in lines))


def _rounded(value: float, *, digits: int = 4) -> float:
    return round(float(value), digits)
