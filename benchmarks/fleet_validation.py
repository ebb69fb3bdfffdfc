"""How far is the fleet's model off the detailed world? The same small fleets in both.

    .venv/bin/python benchmarks/fleet_validation.py --output benchmarks/results/fleet_validation.json

Detailed is `simulator.virtual`: the real client, session, scheduler and service in virtual time, every message encoded and
carried by the link model. Both get the same questions at the same times, the same recorded guesses and the same costs; the
weather of the links is drawn apart, so several worlds with different seeds are run and their answers taken together. Told for
each case and figure: detailed, fleet, and fleet / detailed - 1.
"""

import argparse
import asyncio
import json
import logging
import platform
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing import get_context
from pathlib import Path
from statistics import mean, median
from typing import Any

from fleet_cases import CASES, TOKEN, Case, asks, models

from cloud.admission import SessionSettings
from cloud.core import Core
from edge.steering import LengthPolicy
from paceline.client.settings import DraftingSettings
from paceline.tokens import TokenId
from simulator.fleet.delays import sampled
from simulator.fleet.edge import WINDOW_MOST
from simulator.fleet.groups import Group, Resident, run_group
from simulator.fleet.report import VALIDATION
from simulator.notation import parse_network
from simulator.virtual.draft import DraftSettings
from simulator.virtual.edge import EdgeSettings, Request
from simulator.virtual.model import ModelSettings
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import World, WorldSettings, run


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one model says of a case."""

    tokens_per_s: float
    """Of an edge while it answers: sum of tokens / sum of time from question to last token."""
    slowest: float
    """The same, of the slowest edge."""
    first_token_s: float
    """Mean, from the question."""
    queue_s: float
    """Mean, from the question at the verifier to its first step."""
    busy: float
    """Part of the time in which the verifier computed."""
    rows_per_token: float
    """Without those of prompts."""
    drafted: float
    """Sent, per committed token."""
    accepted: float
    late: float
    stale: float
    bytes_up: float
    """Per committed token."""
    bytes_down: float


def fleet(case: Case, seed: int) -> "Sums":
    """Ask the fleet's model."""
    verifier, drafter = models(case)
    networks = [sampled(parse_network(name), seed=seed) for name in case.places]
    residents = tuple(Resident(number=i, kind=i % len(networks)) for i in range(case.num_edges))
    group = Group(
        number=0,
        seed=seed,
        verifier=verifier,
        drafter=drafter,
        residents=residents,
        people=asks(case, seed),
        token=TOKEN,
    )
    tally = run_group(group, networks)
    ended_s = max(one.asked_s + one.lasted_s for one in tally.answers)
    return Sums(
        edges=[
            (
                sum(a.tokens for a in tally.answers if a.edge == i),
                sum(a.lasted_s for a in tally.answers if a.edge == i),
            )
            for i in range(case.num_edges)
        ],
        first_token_s=[one.first_token_s for one in tally.answers],
        queue_s=sum(one.queued_s for one in tally.answers),
        num_queued=len(tally.answers),
        busy_s=tally.busy_s,
        lasted_s=ended_s,
        rows=tally.root_rows + tally.draft_rows,
        drafted=tally.drafts.drafted,
        accepted=tally.drafts.accepted,
        late=tally.drafts.late,
        stale=tally.drafts.stale,
        bytes_up=tally.bytes_up,
        bytes_down=tally.bytes_down,
    )


def world(case: Case, seed: int) -> WorldSettings:
    """Return the detailed world of a case."""
    verifier, drafter = models(case)
    questions = asks(case, seed)
    networks = [parse_network(name) for name in case.places]
    draft = None
    if drafter is not None:
        draft = DraftSettings(
            cost=drafter.cost,
            spread=drafter.spread,
            acceptance=drafter.acceptance,
            trace=drafter.trace,
        )
    return WorldSettings(
        edges=tuple(
            EdgeSettings(
                requests=tuple(
                    Request(
                        prompt=(TokenId(TOKEN),) * one.prompt_tokens,
                        max_tokens=one.max_tokens,
                        seed=one.seed,
                        at_s=one.at_s,
                    )
                    for one in questions[edge]
                ),
                draft=draft,
                drafting=DraftingSettings(window=WINDOW_MOST),
                length_policy=LengthPolicy.FIXED if drafter is None else drafter.length_policy,
                max_attempts=10_000,
            )
            for edge in range(case.num_edges)
        ),
        verifiers=(
            VerifierSettings(
                model=ModelSettings(cost=verifier.cost, spread=verifier.spread),
                sessions=SessionSettings(
                    max_sessions=verifier.max_sessions,
                    max_sessions_per_tenant=verifier.max_sessions,
                ),
                scheduler=verifier.scheduler,
            ),
        ),
        networks=tuple((i, 0, networks[i % len(networks)]) for i in range(case.num_edges)),
        seed=seed,
        longest_s=36000.0,
    )


def detailed(case: Case, seed: int) -> "Sums":
    """Run the detailed world."""
    kept: list[tuple[Core, World]] = []

    async def look(running: World) -> None:
        await asyncio.sleep(0)
        core = running.verifiers[0].core
        assert core is not None
        kept.append((core, running))

    result = run(world(case, seed), script=look)
    core, running = kept[0]
    account = core.registry.account
    told = [
        one.statistics
        for each in result.asked
        for one in each
        if one.statistics is not None and one.reason is not None
    ]
    by_edge = [
        [one.statistics for one in each if one.statistics is not None and one.reason is not None]
        for each in result.asked
    ]
    return Sums(
        edges=[
            (sum(s.committed for s in each), sum(s.duration_s for s in each)) for each in by_edge
        ],
        first_token_s=[one.time_to_first_token_s for one in told],
        queue_s=account.queue.spread.total,
        num_queued=account.queue.spread.num_values,
        busy_s=running.verifiers[0].occupation.busy_s,
        lasted_s=result.duration_s,
        rows=core.worker.times.num_rows - core.worker.times.num_prefill_rows,
        drafted=sum(one.drafted for one in told),
        accepted=sum(one.accepted for one in told),
        late=sum(one.late for one in told),
        stale=sum(one.stale for one in told),
        bytes_up=sum(one.payload_bytes_up for one in told),
        bytes_down=sum(one.payload_bytes_down for one in told),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """What one run adds up to."""

    edges: list[tuple[int, float]]
    """Tokens, and seconds of answering."""
    first_token_s: list[float]
    queue_s: float
    num_queued: int
    busy_s: float
    lasted_s: float
    rows: int
    drafted: int
    accepted: int
    late: int
    stale: int
    bytes_up: int
    bytes_down: int


def figures(runs: Sequence[Sums]) -> Figures:
    """Return the figures of several runs together."""
    tokens = sum(count for one in runs for count, _ in one.edges)
    return Figures(
        tokens_per_s=tokens / sum(seconds for one in runs for _, seconds in one.edges),
        slowest=mean(min(count / seconds for count, seconds in one.edges) for one in runs),
        first_token_s=mean(seconds for one in runs for seconds in one.first_token_s),
        queue_s=sum(one.queue_s for one in runs) / sum(one.num_queued for one in runs),
        busy=sum(one.busy_s for one in runs) / sum(one.lasted_s for one in runs),
        rows_per_token=sum(one.rows for one in runs) / tokens,
        drafted=sum(one.drafted for one in runs) / tokens,
        accepted=sum(one.accepted for one in runs) / tokens,
        late=sum(one.late for one in runs) / tokens,
        stale=sum(one.stale for one in runs) / tokens,
        bytes_up=sum(one.bytes_up for one in runs) / tokens,
        bytes_down=sum(one.bytes_down for one in runs) / tokens,
    )


def both(task: tuple[Case, int]) -> tuple[Sums, Sums]:
    """Run a case in both."""
    logging.disable(logging.ERROR)  # a refusal is what a full verifier is there for
    case, seed = task
    return detailed(case, seed), fleet(case, seed)


def compared(case: Case, runs: Sequence[tuple[Sums, Sums]]) -> dict[str, Any]:
    """Return what both say of a case, and how far the fleet's model is off."""
    real, coarse = figures([one for one, _ in runs]), figures([one for _, one in runs])
    off = {
        name: round(getattr(coarse, name) / value - 1.0, 4) if value else 0.0
        for name, value in asdict(real).items()
    }
    return {
        "case": asdict(case),
        "detailed": {name: round(value, 4) for name, value in asdict(real).items()},
        "fleet": {name: round(value, 4) for name, value in asdict(coarse).items()},
        "off": off,
    }


def main() -> None:
    """Run every case, tell, and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    cases = [case for case in CASES if options.only in case.name]
    tasks = [(case, seed) for case in cases for seed in range(1, options.seeds + 1)]
    started_s = time.monotonic()
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        runs = list(pool.map(both, tasks))
    rows = []
    for index, case in enumerate(cases):
        row = compared(case, runs[index * options.seeds : (index + 1) * options.seeds])
        rows.append(row)
        shown = "  ".join(
            f"{name} {row['detailed'][name]:.3g}/{row['fleet'][name]:.3g} {off:+.1%}"
            for name, off in row["off"].items()
        )
        print(f"{case.name}: {shown}")
    errors = {name: [abs(row["off"][name]) for row in rows] for name in rows[0]["off"]}
    summary = {
        name: {"median": round(median(values), 4), "worst": round(max(values), 4)}
        for name, values in errors.items()
    }
    print("median and worst |off|:", {name: tuple(each.values()) for name, each in summary.items()})
    print(f"{time.monotonic() - started_s:.0f} s")
    if options.output is not None:
        report = {
            "command": " ".join(["python", *sys.argv]),
            "machine": f"{platform.machine()}, virtual time: the machine does not matter",
            "versions": {"python": platform.python_version()},
            "seeds": options.seeds,
            "summary": summary,
            "rows": rows,
        }
        options.output.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        # What the command tells of itself, also where there are no benchmarks.
        told = {"num_cases": len(rows), "summary": summary}
        VALIDATION.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
