"""Fast over distance: real processes, an emulated link, and every way to get the target's text to a distant user.

    PYTHONPATH=tests .venv/bin/python benchmarks/distance.py --run FOLDER [--budget-minutes 60] [--links 50,100,10,200]
    PYTHONPATH=tests .venv/bin/python benchmarks/distance.py --run FOLDER --report [--costs costs.toml]

`paceline cloud` runs on core 0. On core 1 run `paceline link`, before everything else there, and a program that holds the client
with its drafter (distance_edge.py). All systems answer the same prompt one after the other, in an order that turns. Each is a
client of its own over a link, connected for all prompts, as an edge is, and a tenant that has not asked this before, so that nothing of a
prompt is computed already. Time counts from the question to
the last token on the user's side of the link.

Co-located speculation is the same edge program on core 0, connected to the verifier without a link, in rounds; every token is a line of
JSON that it sends over the link to the user, and the question comes the same way.

A recorded draft knows the target's text, and is right where a recorded pair of models was; its forward passes are slept (distance_drafts.py).

Every generation is a line in the run's folder as soon as it is done. Started again, the benchmark goes on where it was.
"""

import argparse
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from distance_cells import (
    CLOUD_ONLY,
    DRAFTS,
    LINKS,
    NO_DRAFT,
    SYSTEMS,
    USUAL_DRAFTS,
    USUAL_SYSTEMS,
    Cell,
    Wanted,
    blocks,
    links,
    prompts,
)
from distance_house import HERE, House, Models, Question
from distance_lines import Line, RunFolder, lost_at

from paceline.engine.loading import load_tokenizer, resolve
from paceline.prompts import PromptLine, read_prompts

PROMPTS = HERE.parent / "tests/data/prompts/prompts.jsonl"
MOST_TRIES = 3
"""A cell whose text left what a recorded draft knew is measured again so often."""
MOST_TEXTS = 16
LONGEST_S = 30.0


class Bench:
    """Measures what is missing.

    Args:
        arguments: of the command line.
        folder: of the run.
        lines: the prompts.
    """

    def __init__(
        self, arguments: argparse.Namespace, *, folder: RunFolder, lines: tuple[PromptLine, ...]
    ) -> None:
        self._arguments = arguments
        self._folder = folder
        self._lines = {line.name: line for line in lines}
        self._tokenizer = load_tokenizer(resolve(arguments.target))
        self._commit = _commit()

    def run(self, missing: Iterator[tuple[Cell, ...]], *, count: int, end_s: float) -> None:
        """Measure block by block until all is done, or the time is up."""
        models = Models(
            target=self._arguments.target,
            dtype=self._arguments.dtype,
            cloud=tuple(self._arguments.cloud.split()),
        )
        longest_s = 0.0
        with ExitStack() as stack:
            house = House(stack, models=models, folder=self._folder.path, count=count)
            for block in missing:
                block_s = time.monotonic()
                for cell in block:
                    begun_s = time.monotonic()
                    if begun_s + longest_s > end_s:
                        print("the time is up; start again to go on", flush=True)
                        return
                    self._measure(house, cell)
                    # The first one starts programs as well; none takes longer than this by itself.
                    longest_s = max(longest_s, min(LONGEST_S, time.monotonic() - begun_s))
                took_s = time.monotonic() - block_s
                print(f"{time.strftime('%X')} block of {len(block)}: {took_s:.0f} s", flush=True)

    def _measure(self, house: House, cell: Cell) -> None:
        """Measure a cell until it is sound; keep every try."""
        needs_texts = cell.draft is not NO_DRAFT and not cell.draft.spec
        while True:
            known = self._folder.texts(cell.prompt, cell.temperature)
            if not known:
                self._rehearse(house, cell)
                continue
            question = self._question(cell, texts=tuple(known))
            line = self._named(cell, "generation") | house.measure(cell, question)
            line["lost_at"] = (
                lost_at(tuple(line["output"]), known, guessed=1) if needs_texts else None
            )
            self._folder.append(line)
            _tell(line)
            if line["lost_at"] is None or self._folder.tries(cell.key) >= MOST_TRIES:
                return

    def _rehearse(self, house: House, cell: Cell) -> None:
        plain = Cell(
            repetition=0,
            link=cell.link,
            temperature=cell.temperature,
            prompt=cell.prompt,
            system=CLOUD_ONLY,
            draft=NO_DRAFT,
        )
        for output in house.rehearse(plain, self._question(cell, texts=()), most=MOST_TEXTS):
            self._folder.append(self._named(plain, "text") | {"output": output})

    def _question(self, cell: Cell, *, texts: tuple[Any, ...]) -> Question:
        line = self._lines[cell.prompt]
        messages = [{"role": each.role, "content": each.content} for each in line.messages]
        return Question(
            line=line,
            prompt=self._tokenizer.encode_chat(messages),
            max_tokens=self._arguments.max_tokens,
            texts=texts,
            number=self._folder.tries(cell.key) if texts else -1,
        )

    def _named(self, cell: Cell, kind: str) -> Line:
        return {
            "kind": kind,
            "key": cell.key,
            "repetition": cell.repetition,
            "link": cell.link.name,
            "network": cell.link.network,
            "rtt_s": cell.link.rtt_s,
            "temperature": cell.temperature,
            "prompt": cell.prompt,
            "category": self._lines[cell.prompt].category,
            "system": cell.system.name,
            "draft": cell.draft.name,
            "seed": cell.seed,
            "max_tokens": self._arguments.max_tokens,
            "commit": self._commit,
        }


def _tell(line: Line) -> None:
    speed = line["committed"] / line["duration_s"]
    lost = "" if line["lost_at"] is None else f", left the known texts at {line['lost_at']}"
    print(
        f"{time.strftime('%X')} {line['key']}: {speed:.2f} tokens/s, {line['committed']} tokens{lost}",
        flush=True,
    )


def _commit() -> str:
    """Return which code this is; with a plus if something in it is not committed."""
    words = ["git", "describe", "--always", "--dirty=+", "--exclude=*"]
    return subprocess.run(
        words, cwd=HERE, capture_output=True, text=True, check=True
    ).stdout.strip()


def wanted(arguments: argparse.Namespace, names: tuple[str, ...]) -> Wanted:
    """Return what the command line asks for."""
    systems = {system.name: system for system in SYSTEMS}
    drafts = {draft.name: draft for draft in DRAFTS}
    chosen = tuple(systems[name] for name in arguments.systems.split(",") if name)
    named = [f"{name} ms" if name.isdigit() else name for name in arguments.links.split(",")]
    return Wanted(
        links=links(named, recordings=arguments.recordings),
        temperatures=tuple(float(value) for value in arguments.temperatures.split(",")),
        prompts=names,
        systems=chosen,
        drafts=tuple(drafts[name] for name in arguments.drafts.split(",") if name),
        repetitions=arguments.repetitions,
        first_repetition=arguments.first_repetition,
    )


def parsed() -> argparse.Namespace:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of the lines")
    parser.add_argument("--prompts", type=Path, default=PROMPTS)
    parser.add_argument("--num-prompts", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument(
        "--first-repetition", type=int, default=0, help="leave out those before, from 0"
    )
    parser.add_argument("--links", default=",".join(str(round(x.rtt_s * 1e3)) for x in LINKS))
    parser.add_argument("--recordings", type=Path, help="folder of links, for LTE and Starlink")
    parser.add_argument("--temperatures", default="0")
    parser.add_argument("--systems", default=",".join(USUAL_SYSTEMS))
    parser.add_argument("--drafts", default=",".join(USUAL_DRAFTS))
    parser.add_argument("--target", default="smollm2-135m")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    parser.add_argument("--cloud", default="", help="further options of `paceline cloud`")
    parser.add_argument("--budget-minutes", type=float, default=float("inf"))
    parser.add_argument("--report", action="store_true", help="measure nothing, tell")
    parser.add_argument("--skip-prediction", action="store_true", help="of the report: be quick")
    parser.add_argument(
        "--costs", type=Path, help="for predictions; the run's own steps if not given"
    )
    parser.add_argument("--output", type=Path, default=HERE / "results/distance.json")
    parser.add_argument("--plot", type=Path, default=HERE.parent / "docs/images/distance.png")
    parser.add_argument("--page", type=Path, default=HERE.parent / "docs/distance.md")
    return parser.parse_args()


def main() -> None:
    """Measure what is missing, or report."""
    arguments = parsed()
    folder = RunFolder(arguments.run)
    if arguments.report:
        from distance_page import publish  # noqa: PLC0415 - matplotlib, for the report alone

        publish(folder, arguments)
        return
    folder.settle(
        {
            "target": arguments.target,
            "dtype": arguments.dtype,
            "max-tokens": arguments.max_tokens,
            "cloud": arguments.cloud,
        }
    )
    lines = prompts(read_prompts(arguments.prompts), count=arguments.num_prompts)
    asked = wanted(arguments, tuple(line.name for line in lines))
    done = folder.done()
    missing = [tuple(cell for cell in block if cell.key not in done) for block in blocks(asked)]
    missing = [block for block in missing if block]
    count = MOST_TRIES * sum(map(len, missing)) + len(lines)  # tenants, at most
    print(f"{sum(map(len, missing))} generations are missing, in {len(missing)} blocks", flush=True)
    if missing:
        end_s = time.monotonic() + 60.0 * arguments.budget_minutes
        bench = Bench(arguments, folder=folder, lines=lines)
        bench.run(iter(missing), count=count, end_s=end_s)


if __name__ == "__main__":
    main()
