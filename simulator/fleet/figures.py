"""What a fleet's run comes to: plain figures, for the table, the JSON file and the picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from simulator.fleet.run import FleetRun, FleetSettings, Run
from simulator.fleet.tally import BIN_S, Drafts, Tally

PER = 1e6
"""Tokens that a price is told for."""

HOUR_S = 3600.0
LEVELS = {"p10": 0.1, "median": 0.5, "p90": 0.9}
SLOW_LEVELS = {"median": 0.5, "p90": 0.9, "p99": 0.99}
CAUSES = ("rejected", "behind", "late", "stale", "ended", "unsent")
"""Why a drafted token was not used; `simulator.fleet.tally.Drafts`."""

Figures = dict[str, Any]


def figures(run: FleetRun, *, price_per_hour: float) -> Figures:
    """Return everything that is told of a run.

    Args:
        run: what came out.
        price_per_hour: of one verifier, in any currency.
    """
    runs = {"drafting": run.drafting} | ({"cloud_only": run.plain} if run.plain else {})
    if run.settings.drafter is None:
        runs = {"cloud_only": run.drafting}
    return {
        "settings": _settings(run.settings, every_s=run.every_s, price_per_hour=price_per_hour),
        **{
            name: _figures(one, run.settings, price_per_hour=price_per_hour)
            for name, one in runs.items()
        },
    }


def _settings(settings: FleetSettings, *, every_s: float, price_per_hour: float) -> Figures:
    drafter, verifier = settings.drafter, settings.verifier
    return {
        "edges": settings.num_edges,
        "verifiers": settings.num_verifiers,
        "lasts_s": settings.lasts_s,
        "warm_up_s": settings.warm_up_s,
        "seed": settings.seed,
        "load_wanted": settings.load,
        "people": asdict(settings.people) | {"every_s": every_s},
        "mix": [
            {
                "name": kind.name,
                "share": kind.share,
                "network": kind.network.name,
                "draft_slowdown": kind.draft_slowdown,
            }
            for kind in settings.mix
        ],
        "verifier": {
            "cost": asdict(verifier.cost),
            "max_sessions": verifier.max_sessions,
            "row_budget": verifier.scheduler.row_budget,
            "race": verifier.scheduler.race,
        },
        "drafter": None
        if drafter is None
        else {
            "cost": asdict(drafter.cost),
            "guesses": drafter.trace.draft if drafter.trace else drafter.acceptance,
            "length_policy": drafter.length_policy.value,
            "draft_length": drafter.drafting.draft_length,
        },
        "price_per_verifier_hour": price_per_hour,
    }


def _figures(run: Run, settings: FleetSettings, *, price_per_hour: float) -> Figures:
    tallies, lasts_s, num = run.tallies, settings.lasts_s, settings.num_verifiers
    tokens = sum(one.tokens for one in tallies)
    per_s = tokens / lasts_s
    answers = [answer for one in tallies for answer in one.answers]
    drafts = Drafts()
    for one in tallies:
        drafts.add(one.drafts)
    answered = sum(answer.tokens for answer in answers)
    return {
        "tokens_per_s": _rounded(per_s),
        "answers": len(answers),
        "by_network": [
            {"name": kind.name} | _of_edges([answer for answer in answers if answer.kind == number])
            for number, kind in enumerate(settings.mix)
        ],
        "all": _of_edges(answers),
        "verifiers": _of_verifiers(run, settings),
        "drafts": _of_drafts(drafts, answered=answered),
        "bytes_per_token": {
            "up": _ratio(_sum(tallies, "bytes_up"), answered),
            "down": _ratio(_sum(tallies, "bytes_down"), tokens),
        },
        "price_per_million_tokens": {
            "as_it_ran": _ratio(price_per_hour * num * lasts_s / HOUR_S * PER, tokens),
            "fully_loaded": _ratio(price_per_hour * PER, run.most_tokens_per_s * HOUR_S),
        },
        "drift": _drift(tallies, settings),
        "over_time": _over_time(tallies, ends_s=settings.warm_up_s + lasts_s),
    }


def _of_verifiers(run: Run, settings: FleetSettings) -> Figures:
    """Return what the verifiers did."""
    tallies, lasts_s, num = run.tallies, settings.lasts_s, settings.num_verifiers
    tokens = sum(one.tokens for one in tallies)
    queued = [answer.queued_s for one in tallies for answer in one.answers]
    return {
        "load": _ratio(tokens / lasts_s, num * run.most_tokens_per_s),
        "most_tokens_per_s": _rounded(run.most_tokens_per_s),
        "busy": _spread([one.busy_s / lasts_s for one in tallies], LEVELS),
        "sessions": _rounded(sum(one.sessions_s for one in tallies) / (num * lasts_s)),
        "most_sessions": max(one.most_sessions for one in tallies),
        "step_s": _ratio(sum(one.busy_s for one in tallies), _sum(tallies, "num_steps")),
        "sessions_per_step": _ratio(_sum(tallies, "num_served"), _sum(tallies, "num_steps")),
        "queue_s": _spread(queued, SLOW_LEVELS),
        "waited_per_step_s": _ratio(
            sum(one.waited_s for one in tallies), _sum(tallies, "num_served")
        ),
        "rows_per_token": _ratio(_sum(tallies, "root_rows") + _sum(tallies, "draft_rows"), tokens),
        "draft_rows_per_token": _ratio(_sum(tallies, "draft_rows"), tokens),
        "prompt_rows_per_token": _ratio(_sum(tallies, "prefill_rows"), tokens),
        "refused": _sum(tallies, "num_refused"),
        "given_up": _sum(tallies, "num_given_up"),
    }


def _of_edges(answers: Sequence[Any]) -> Figures:
    """Return how edges were served: each edge counts once, whatever it asked."""
    tokens: dict[int, int] = {}
    seconds: dict[int, float] = {}
    for answer in answers:
        tokens[answer.edge] = tokens.get(answer.edge, 0) + answer.tokens
        seconds[answer.edge] = seconds.get(answer.edge, 0.0) + answer.lasted_s
    return {
        "edges_that_asked": len(tokens),
        "tokens_per_s": _spread([tokens[one] / seconds[one] for one in tokens], LEVELS),
        "first_token_s": _spread([answer.first_token_s for answer in answers], LEVELS),
    }


def _of_drafts(drafts: Drafts, *, answered: int) -> Figures:
    """Return what became of drafted tokens, for each token committed."""
    judged = drafts.accepted + drafts.rejected
    return {
        "drafted_per_token": _ratio(drafts.drafted + drafts.unsent, answered),
        "accepted_per_token": _ratio(drafts.accepted, answered),
        "acceptance_probability": _ratio(drafts.accepted, judged),
        "wasted_per_token": {name: _ratio(getattr(drafts, name), answered) for name in CAUSES},
    }


def _drift(tallies: Sequence[Tally], settings: FleetSettings) -> float:
    """Return how many more sessions there were in the second half than in the first, as a part of these."""
    first, second = 0.0, 0.0
    middle_s = settings.warm_up_s + settings.lasts_s / 2.0
    ends_s = settings.warm_up_s + settings.lasts_s
    for tally in tallies:
        for index, one in enumerate(tally.bins):
            at_s = (index + 0.5) * BIN_S
            if settings.warm_up_s <= at_s < middle_s:
                first += one.sessions_s
            elif middle_s <= at_s < ends_s:
                second += one.sessions_s
    return _rounded(second / first - 1.0) if first else 0.0


def _over_time(tallies: Sequence[Tally], *, ends_s: float) -> Figures:
    """Return sums over all verifiers for every few seconds, from the beginning on."""
    num = min(max(len(one.bins) for one in tallies), int(ends_s // BIN_S))
    sessions, busy, tokens = np.zeros(num), np.zeros(num), np.zeros(num)
    for tally in tallies:
        for index, one in enumerate(tally.bins[:num]):
            sessions[index] += one.sessions_s
            busy[index] += one.busy_s
            tokens[index] += one.tokens
    return {
        "bin_s": BIN_S,
        "sessions": [_rounded(float(value) / BIN_S) for value in sessions],
        "busy": [_rounded(float(value) / BIN_S / len(tallies)) for value in busy],
        "tokens_per_s": [_rounded(float(value) / BIN_S) for value in tokens],
    }


def _spread(values: Sequence[float], levels: Mapping[str, float]) -> Figures:
    if not values:
        return dict.fromkeys((*levels, "mean"))
    found = np.quantile(values, list(levels.values()))
    told = {name: _rounded(float(value)) for name, value in zip(levels, found, strict=True)}
    return told | {"mean": _rounded(float(np.mean(values)))}


def _sum(tallies: Sequence[Tally], name: str) -> int:
    return sum(getattr(one, name) for one in tallies)


def _ratio(part: float, whole: float) -> float | None:
    return _rounded(part / whole) if whole else None


def _rounded(value: float) -> float:
    """Five digits are more than the model is good for."""
    return float(f"{value:.5g}")
