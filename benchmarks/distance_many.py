"""Several edges at one verifier, in real processes, and what the simulator says of them.

    PYTHONPATH=tests .venv/bin/python benchmarks/distance_many.py --run FOLDER
    PYTHONPATH=tests .venv/bin/python benchmarks/distance_many.py --run FOLDER --report

FOLDER is one of benchmarks/distance.py, which knows the target's texts. `paceline cloud` runs on core 0; on core 1 run `paceline link`, before
everything else there, and this program with a client, a controller and a recorded draft for every edge. So many edges ask different
prompts at the same moment over a round trip of 50 ms, without drafts and with them in turn. Told are the tokens of all answers over
the time from the question to the last token of all.

Predictions have step times fitted to the steps that were measured: of how many sessions, rows and tokens of text. All edges share one core here, so
the time of a draft's pass, which is told too, grows with their number. --costs FILE takes the steps of `paceline calibrate --sessions 8` instead. Every group of answers is a line in the
folder as soon as it is there; started again, the benchmark goes on where it was.
"""

import argparse
import asyncio
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from distance_cells import CLOUD_ONLY, DRAFTS, LINKS, NO_DRAFT, SYSTEMS, Cell, Draft, prompts
from distance_drafts import KnownTexts, recorded_drafter
from distance_edge import told
from distance_house import HERE, House, Models
from distance_lines import Line, RunFolder
from distance_prediction import Asked, Predicted, Reading, predicted_together
from distance_seat import Job, Seat
from validation import save
from validation_report import head

from paceline.beside import running_beside
from paceline.client.session_trace import SessionTrace
from paceline.drafter import Drafter
from paceline.engine.loading import DType, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.prompts import PromptLine, read_prompts
from simulator.acceptance.recordings import recorded_costs
from simulator.calibration.cost_file import Calibration, read_costs
from simulator.calibration.fit import Sample, Subject, fit
from simulator.cost import Work

TARGET = "smollm2-135m"
DTYPE: DType = "bfloat16"
LINK = LINKS[0]
COUNTS = (1, 4, 8)
PACELINE = next(system for system in SYSTEMS if system.name == "paceline")
RECORDED = tuple(draft for draft in DRAFTS if draft.name in {"recorded-79", "recorded-60"})
ARMS = ((CLOUD_ONLY, NO_DRAFT), *((PACELINE, draft) for draft in RECORDED))
LINES = "many.jsonl"
LEAST_STEPS = 4
"""Kinds with fewer steps say too little."""
BETWEEN_S = 0.0008
"""Between two steps, as measured by benchmarks/distance.py."""
NUM_PROMPTS = 12
NUM_TOKENS = 96

Group = list[Cell]


def groups(names: Sequence[str], *, repetitions: int) -> Iterator[Group]:
    """Yield what is asked at the same moment; prompts and the order of the arms turn."""
    for repetition in range(repetitions):
        for number, count in enumerate(COUNTS):
            turn = (repetition + number) % len(ARMS)
            first = repetition * len(names) // max(1, repetitions)
            asked = [names[(first + index) % len(names)] for index in range(count)]
            for system, draft in (*ARMS[turn:], *ARMS[:turn]):
                yield [
                    Cell(
                        repetition=repetition,
                        link=LINK,
                        temperature=0.0,
                        prompt=name,
                        system=system,
                        draft=draft,
                    )
                    for name in asked
                ]


def key_of(group: Group) -> str:
    """Return the name of a group."""
    first = group[0]
    return f"{first.repetition}|{len(group)}|{first.system.name}|{first.draft.name}"


class Bench:
    """Asks; a group at a time.

    Args:
        house: the programs.
        folder: knows the texts.
        lines: the prompts.
        tokenizer: of the target.
    """

    def __init__(
        self,
        house: House,
        *,
        folder: RunFolder,
        lines: dict[str, PromptLine],
        tokenizer: Tokenizer,
    ) -> None:
        self._house = house
        self._folder = folder
        self._lines = lines
        self._tokenizer = tokenizer

    async def run(self, missing: Sequence[Group]) -> None:
        """Measure what is missing, and keep it."""
        for group in missing:
            answers = await self._answers([self._job(cell) for cell in group])
            told_of = [
                {
                    "prompt": cell.prompt,
                    "category": self._lines[cell.prompt].category,
                    "seed": cell.seed,
                }
                | answer
                for cell, answer in zip(group, answers, strict=True)
            ]
            first = group[0]
            line = {
                "key": key_of(group),
                "edges": len(group),
                "system": first.system.name,
                "draft": first.draft.name,
                "repetition": first.repetition,
                "load": round(os.getloadavg()[0], 2),
                "answers": told_of,
            }
            with (self._folder.path / LINES).open("a", encoding="utf-8") as file:
                file.write(json.dumps(line, separators=(",", ":")) + "\n")
            print(f"{line['key']}: {speed(told_of):.2f} tokens/s", flush=True)

    def _job(self, cell: Cell) -> Job:
        line = self._lines[cell.prompt]
        way, _ = self._house.way(self._house.cloud(cell.system), cell.link)
        messages = [{"role": each.role, "content": each.content} for each in line.messages]
        return Job(
            verifier=way,
            token=self._house.fresh_token(),
            system=cell.system.name,
            draft=cell.draft.name,
            rtt_s=cell.link.rtt_s,
            category=line.category or "",
            prompt=self._tokenizer.encode_chat(messages),
            max_tokens=NUM_TOKENS,
            temperature=cell.temperature,
            seed=cell.seed,
            texts=tuple(self._folder.texts(cell.prompt, cell.temperature)),
        )

    async def _answers(self, jobs: Sequence[Job]) -> list[dict[str, Any]]:
        async with AsyncExitStack() as stack:
            seats = []
            for job in jobs:
                seat = Seat(job, tokenizer=self._tokenizer, drafter=self._drafter(job))
                await seat.connect()
                stack.push_async_callback(seat.leave)
                seats.append(seat)
            async with asyncio.TaskGroup() as tasks:
                found = [
                    tasks.create_task(_answer(seat, job))
                    for seat, job in zip(seats, jobs, strict=True)
                ]
        return [task.result() for task in found]

    def _drafter(self, job: Job) -> Drafter | None:
        if job.guessing is NO_DRAFT:
            return None
        known = KnownTexts(
            len(job.prompt), job.texts, vocabulary_size=self._tokenizer.vocabulary_size
        )
        return recorded_drafter(
            job.guessing, target=known, category=job.category, temperature=job.temperature
        )


async def _answer(seat: Seat, job: Job) -> dict[str, Any]:
    trace = SessionTrace()
    async with (
        running_beside(seat.controller.run),
        seat.client.generate(
            prompt_ids=job.prompt, max_tokens=job.max_tokens, sampling=job.sampling, trace=trace
        ) as generation,
    ):
        async for _ in generation:
            pass
    return {
        "prompt_tokens": len(job.prompt),
        "output": generation.result.token_ids,
        "statistics": asdict(generation.statistics),
    } | told(trace.facts(), has_trees=job.has_trees)


def speed(answers: Sequence[dict[str, Any]]) -> float:
    """Return the tokens of all answers over the time of the longest."""
    committed = sum(one["statistics"]["committed"] for one in answers)
    return float(committed / max(one["statistics"]["duration_s"] for one in answers))


# --- what it says


def measured_costs(found: Sequence[Line]) -> Calibration:
    """Return what steps took, by sessions, rows and tokens of text; those with a prompt in them are left out."""
    steps: dict[tuple[str, float], list[tuple[int, int]]] = {}
    for group in found:
        for answer in group["answers"]:
            context = answer["prompt_tokens"]
            for before, commit in pairwise(answer["commits"]):
                context += before["tokens"]
                if commit["steps"] == 1:
                    # Sessions that share a step are told the same time to the last digit.
                    step = steps.setdefault((group["key"], commit["verify_s"]), [])
                    step.append((commit["rows"], context))
    samples: dict[tuple[int, int, int], list[tuple[Work, float]]] = {}
    for (_, took_s), sessions in steps.items():
        rows, context = sessions[0][0], sum(each for _, each in sessions)
        work = Work(
            num_sequences=len(sessions),
            num_rows=rows,
            num_context_tokens=context,
            num_attended=rows * context // len(sessions),
        )
        kind = (len(sessions), rows // 4, context // 256)
        samples.setdefault(kind, []).append((work, took_s))
    subject = Subject(name=TARGET, dtype=DTYPE, threads=1, left_out=0.0)
    kinds = [
        Sample(work=of_kind[0][0], times_s=tuple(took_s for _, took_s in of_kind))
        for of_kind in samples.values()
        if len(of_kind) >= LEAST_STEPS
    ]
    prefill = recorded_costs("xeon-1-core").target.cost.per_prefill_row_s
    target = fit(subject, kinds)
    cost = replace(target.cost, per_prefill_row_s=prefill)
    return Calibration(machine={}, target=replace(target, cost=cost, between_s=BETWEEN_S))


def predictions(group: Line, *, reading: Reading, calibration: Calibration) -> list[Predicted]:
    """Return what the simulator says of the answers of a group."""
    shared = {
        "system": group["system"],
        "draft": group["draft"],
        "link": LINK.name,
        "network": LINK.network,
        "rtt_s": LINK.rtt_s,
        "temperature": 0.0,
    }
    lines = [
        shared | one | {"committed": one["statistics"]["committed"]} for one in group["answers"]
    ]
    passes = sum(one["passes"] for one in lines)
    pass_s = sum(one["passes_s"] for one in lines) / passes if passes else 0.0
    draft: Draft | None = next((one for one in RECORDED if one.name == group["draft"]), None)
    asked = [
        Asked(
            line=line,
            text=reading.text(line),
            guesses=reading.guesses(draft, line) if draft else None,
        )
        for line in lines
    ]
    return predicted_together(asked, calibration=calibration, pass_s=max(1e-6, pass_s))


def rows(found: Sequence[Line], *, reading: Reading, calibration: Calibration) -> list[Line]:
    """Return what a table says: an arm with so many edges, over all repetitions."""
    told_of = []
    said = {
        group["key"]: predictions(group, reading=reading, calibration=calibration)
        for group in found
    }
    for count in COUNTS:
        plain: dict[str, float] = {}
        for system, draft in ARMS:
            own = [
                group
                for group in found
                if (group["edges"], group["system"], group["draft"])
                == (count, system.name, draft.name)
            ]
            if not own:
                continue
            measured_s = sum(max(a["statistics"]["duration_s"] for a in g["answers"]) for g in own)
            predicted_s = sum(max(one.duration_s for one in said[g["key"]]) for g in own)
            committed = sum(a["statistics"]["committed"] for g in own for a in g["answers"])
            speeds = {"measured": committed / measured_s, "predicted": committed / predicted_s}
            plain = plain or speeds
            told_of.append(
                {
                    "edges": count,
                    "draft": draft.name,
                    "groups": len(own),
                    "tokens_per_s": round(speeds["measured"], 2),
                    "predicted_tokens_per_s": round(speeds["predicted"], 2),
                    "error": round(speeds["predicted"] / speeds["measured"] - 1, 4),
                    "ratio": round(speeds["measured"] / plain["measured"], 3),
                    "ratio_by_repetition": _by_repetition(own, found),
                    "pass_ms": _pass_ms(own),
                    "predicted_ratio": round(speeds["predicted"] / plain["predicted"], 3),
                }
            )
    return told_of


def _pass_ms(own: Sequence[Line]) -> float:
    answers = [answer for group in own for answer in group["answers"]]
    passes = sum(answer["passes"] for answer in answers)
    return round(1e3 * sum(one["passes_s"] for one in answers) / passes, 2) if passes else 0.0


def _by_repetition(own: Sequence[Line], found: Sequence[Line]) -> list[float]:
    plain = {
        (group["repetition"], group["edges"]): group
        for group in found
        if group["system"] == CLOUD_ONLY.name
    }
    return [
        round(
            speed(group["answers"]) / speed(plain[group["repetition"], group["edges"]]["answers"]),
            3,
        )
        for group in own
    ]


def read(folder: RunFolder) -> list[Line]:
    """Return the groups that are done."""
    file = folder.path / LINES
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def main() -> None:
    """Measure what is missing, or report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--report", action="store_true")
    parser.add_argument("--costs", type=Path)
    parser.add_argument("--output", type=Path, default=HERE / "results/distance_many.json")
    arguments = parser.parse_args()
    folder = RunFolder(arguments.run)
    chosen = prompts(
        read_prompts(HERE.parent / "tests/data/prompts/prompts.jsonl"), count=NUM_PROMPTS
    )
    lines = {line.name: line for line in chosen}
    found = read(folder)
    if arguments.report:
        reading = Reading(folder.path, lines=lines, target=TARGET, dtype=DTYPE)
        calibration = read_costs(arguments.costs) if arguments.costs else measured_costs(found)
        result = head() | {"rows": rows(found, reading=reading, calibration=calibration)}
        result["costs"] = asdict(calibration.target)
        save(arguments.output, result)
        for row in result["rows"]:
            print(row)
        return
    torch.set_num_threads(1)
    done = {group["key"] for group in found}
    missing = [
        group
        for group in groups(tuple(lines), repetitions=arguments.repetitions)
        if key_of(group) not in done
    ]
    with ExitStack() as stack:
        house = House(
            stack,
            models=Models(target=TARGET, dtype=DTYPE),
            folder=folder.path,
            count=sum(map(len, missing)),
        )
        bench = Bench(house, folder=folder, lines=lines, tokenizer=load_tokenizer(resolve(TARGET)))
        asyncio.run(bench.run(missing))


if __name__ == "__main__":
    main()
