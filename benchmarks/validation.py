"""Does the simulator say what really happens? Tokens per second, predicted and measured, for links x drafters.

    PYTHONPATH=tests .venv/bin/python benchmarks/validation.py --draft-folder DRAFT --links LINKS \
        --output benchmarks/results/validation.json --plot docs/images/validation.png

Measured: `paceline cloud` on one core; an edge (the client, in this process) and `paceline link` on the other one. Every
pair of a link and a drafter answers four prompts of different kinds with at most 64 tokens each, each with a
connection of its own and a tenant of its own, so that no prompt is in the cache. Rounds take turns over all pairs.
Predicted: `simulator.predict` from what `paceline calibrate` measured on the same core before and after, and recorded of
the same prompts. Of the measured runs only the moment at which a prompt was asked goes in: which weather it met.

Every pair is written when it is done; started again with the same output, the benchmark goes on where it was.
`--only report` predicts and draws once more, `--only calibrate` and `--only measure` do parts.
"""

import argparse
import asyncio
import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from harness.processes import running
from validation_pairs import Pair, pairs_of
from validation_report import head, recorded_traces, report
from validation_texts import Reader, keep_text

from edge.controller import Activity, Controller
from edge.drafters import LOOKUP, ModelDrafter, load_drafter
from edge.steering import LengthPolicy, Steering
from paceline.beside import running_beside
from paceline.client import Client, ConnectionSettings
from paceline.control.drafting import Bounds, Drafting
from paceline.drafter import Drafter
from paceline.engine.loading import DType, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.prompts import PromptLine, read_prompts
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

COMMAND = "paceline.command"
TARGET = "smollm2-135m"
DTYPE: DType = "bfloat16"
PROMPTS = ("spec-bench/91", "spec-bench/275", "spec-bench/421", "HumanEval/0")
PROMPT_FILE = Path(__file__).parent.parent / "tests/data/prompts/prompts.jsonl"
LOW_BIT = "low-bit:4/64"
LOAD_S = 300.0
CLOUD_CORE, EDGE_CORE = 0, 1
RELAY_PRIORITY = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A running `paceline link`."""

    address: str
    origin_s: float
    """When its weather began, of the monotonic clock."""


class Tenants:
    """Hands out tokens of tenants that nobody has used yet."""

    def __init__(self, path: Path, *, count: int) -> None:
        self.path = path
        lines = [f"tenant-{number} {self._token(number)}" for number in range(count)]
        path.write_text("\n".join(lines) + "\n")
        self._numbers = iter(range(count))

    def next(self) -> str:
        """Return a token."""
        return self._token(next(self._numbers))

    @staticmethod
    def _token(number: int) -> str:
        return hashlib.sha256(f"benchmark {number}".encode()).hexdigest()


def pin(pid: int, core: int, *, priority: int = 0) -> None:
    """Keep all threads of a process on a core; with a priority above 0 they go before everything else there."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {core})
        if priority:
            os.sched_setscheduler(int(thread.name), os.SCHED_RR, os.sched_param(priority))


def chosen_prompts() -> tuple[PromptLine, ...]:
    """Return the prompts, in order."""
    lines = {line.name: line for line in read_prompts(PROMPT_FILE)}
    return tuple(lines[name] for name in PROMPTS)


def calibrate(folder: Path, *, drafts: list[str], rounds: int) -> None:
    """Measure costs of steps of one session on the verifier's core; the first time record guesses as well."""
    records = not any(folder.parent.rglob("guesses-*.json"))
    arguments = [
        "--target",
        TARGET,
        "--dtype",
        DTYPE,
        "--rounds",
        str(rounds),
        "--out",
        str(folder),
    ]
    arguments += ["--max-context", "384", "--sessions", "1", "--rows", "16", "--service"]
    for draft in drafts:
        arguments += ["--draft", draft]
    if records:
        selected = folder.parent / "prompts.jsonl"
        texts = PROMPT_FILE.read_text().splitlines()
        selected.write_text(
            "\n".join(text for text in texts if json.loads(text)["id"] in PROMPTS) + "\n"
        )
        arguments += ["--prompts", str(selected), "--temperature", "0", "--max-tokens", "64"]
    command = [sys.executable, "-m", COMMAND, "calibrate", *arguments]
    subprocess.run(["taskset", "-c", str(CLOUD_CORE), *command], check=True)


@contextlib.contextmanager
def link_to(address: str, network: str) -> Iterator[Way]:
    """Run `paceline link` before everything else on the edge's core."""
    with running(
        COMMAND, "link", "--json", "--to", address, "--network", network, "--seed", "0",
        ready=r"^(\{.*\})$",
    ) as child:  # fmt: skip
        assert child.ready
        told = json.loads(child.ready[1])
        pin(child.pid, EDGE_CORE, priority=RELAY_PRIORITY)
        yield Way(address=f"127.0.0.1:{told['port']}", origin_s=told["origin_s"])


def load(name: str, *, tokenizer: Tokenizer, folder: Path) -> Drafter:
    """Return a drafter, warm; one that is neither prompt lookup nor the low-bit copy is in the folder."""
    spec = name if name in {LOOKUP, LOW_BIT} else str(folder)
    drafter = load_drafter(spec, tokenizer=tokenizer, dtype=DTYPE)
    if isinstance(drafter, ModelDrafter):
        drafter.engine.warm_up()
    return drafter


class Bench:
    """Everything that runs; asks, and keeps what came of it."""

    def __init__(
        self, arguments: argparse.Namespace, stack: ExitStack, *, pairs: list[Pair]
    ) -> None:
        torch.set_num_threads(1)
        self._arguments = arguments
        self._tokenizer: Tokenizer = load_tokenizer(resolve(TARGET))
        answers = (arguments.rounds + 1) * len(pairs) * len(PROMPTS)
        self._tenants = Tenants(arguments.work / "tokens.txt", count=answers)
        clouds = {pad: self._cloud(stack, pad) for pad in sorted({p.min_step_ms for p in pairs})}
        self._ways = {
            (pad, network): stack.enter_context(link_to(clouds[pad], network))
            for pad, network in sorted({(p.min_step_ms, p.network) for p in pairs})
        }
        self._drafters = {
            name: load(name, tokenizer=self._tokenizer, folder=arguments.draft_folder)
            for name in sorted({p.draft for p in pairs})
        }

    def _cloud(self, stack: ExitStack, min_step_ms: int) -> str:
        child = stack.enter_context(
            running(
                COMMAND, "cloud", "--target", TARGET, "--dtype", DTYPE, "--threads", "1", "--listen", "127.0.0.1:0",
                "--race-drafts", "off",  # a prediction knows nothing of what a text repeats
                "--token-file", str(self._tenants.path), "--min-step", f"{min_step_ms}ms",
                ready=r"ready on (\S+)", timeout_s=LOAD_S,
            )
        )  # fmt: skip
        pin(child.pid, CLOUD_CORE)
        assert child.ready
        return child.ready[1]

    async def measure(self, pair: Pair) -> list[dict[str, Any]]:
        """Answer all prompts over a pair's link with its drafter."""
        drafter, way = self._drafters[pair.draft], self._ways[pair.min_step_ms, pair.network]
        answers = []
        for line in chosen_prompts():
            if isinstance(drafter, ModelDrafter):
                drafter.engine.clear_prefixes()
            answers.append(await self._answer(pair, line, drafter=drafter, way=way))
        return answers

    async def _answer(
        self, pair: Pair, line: PromptLine, *, drafter: Drafter, way: Way
    ) -> dict[str, Any]:
        activity = Activity()
        client = Client(
            verifiers=(way.address,),
            tokenizer=self._tokenizer,
            drafter=drafter,
            connection=ConnectionSettings(token=self._tenants.next()),
            observer=activity,
        )
        async with client, running_beside(_controller(client, pair, activity).run):
            # Connects, as `simulator.predict` has it.
            await _generated(client, (TokenId(1),), max_tokens=1)
            prompt = self._tokenizer.encode_chat(
                [{"role": each.role, "content": each.content} for each in line.messages]
            )
            at_s = time.monotonic() - way.origin_s
            text, told = await _generated(client, prompt, max_tokens=self._arguments.max_tokens)
        digest = keep_text(self._arguments.work, prompt, text)
        return {"prompt": line.name, "at_s": round(at_s, 4), "text": digest} | told


async def _generated(
    client: Client, prompt: tuple[TokenId, ...], *, max_tokens: int
) -> tuple[tuple[TokenId, ...], dict[str, Any]]:
    async with client.generate(
        prompt_ids=prompt, max_tokens=max_tokens, sampling=SamplingSettings(temperature=0.0, seed=0)
    ) as generation:
        async for _ in generation:
            pass
    found = generation.statistics
    return generation.result.token_ids, {
        "committed": found.committed,
        "duration_s": round(found.duration_s, 5),
        "first_s": round(found.time_to_first_token_s, 5),
        "steps": found.steps,
        "judged": found.judged,
        "accepted": found.accepted,
        "drafting_s": round(found.drafting_s, 4),
        "drafting_tokens": found.drafting_tokens,
        "step_s": round(found.verifier_step_s, 5),
        "reconnects": found.reconnects,
    }


def _controller(client: Client, pair: Pair, activity: Activity) -> Controller:
    now = client.drafting
    steering = Steering(
        start=Drafting(draft_length=now.draft_length, window=now.window),
        length_policy=LengthPolicy(pair.policy),
        bounds=Bounds(window_most=now.window),
    )
    return Controller(client, steering=steering, activity=activity)


def save(path: Path, result: dict[str, Any]) -> None:
    """Write in one go: whoever breaks us off finds the file whole."""
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(result, indent=1) + "\n")
    fresh.replace(path)


def measure(arguments: argparse.Namespace, pairs: list[Pair], result: dict[str, Any]) -> None:
    """Measure whatever is missing, in turns over all pairs; write after each."""
    runs = result["runs"]
    done = {(run["pair"], run["round"]) for run in runs}
    missing = [
        (pair, number)
        for number in range(arguments.rounds)
        for pair in pairs
        if (pair.name, number) not in done and number < pair.most_rounds
    ]
    if not missing:
        return
    with ExitStack() as stack, asyncio.Runner() as runner:
        bench = Bench(arguments, stack, pairs=[pair for pair, _ in missing])
        pin(os.getpid(), EDGE_CORE)
        for pair, number in missing:
            answers = runner.run(bench.measure(pair))
            load = round(os.getloadavg()[0], 2)
            runs.append({"pair": pair.name, "round": number, "load": load, "answers": answers})
            save(arguments.output, result)
            speed = sum(a["committed"] for a in answers) / sum(a["duration_s"] for a in answers)
            print(f"{time.strftime('%X')} {number} {pair.name}: {speed:.2f} tokens/s", flush=True)


def read(arguments: argparse.Namespace, pairs: list[Pair], result: dict[str, Any]) -> None:
    """Let every drafter read along the texts that came with it."""
    tokenizer = load_tokenizer(resolve(TARGET))
    drafts = {pair.name: pair.draft for pair in pairs}
    recorded = recorded_traces(arguments.work, set(drafts.values()))
    lines = {line.name: line for line in chosen_prompts()}
    reader = Reader(folder=arguments.work, recorded=recorded, lines=lines)
    for name in sorted(recorded):
        wanted = {
            (answer["prompt"], answer["text"])
            for run in result["runs"]
            if drafts.get(run["pair"]) == name
            for answer in run["answers"]
        }
        drafter = load(name, tokenizer=tokenizer, folder=arguments.draft_folder)
        engine = drafter.engine if isinstance(drafter, ModelDrafter) else None
        reader.read(name, engine, wanted=wanted)


def main() -> None:
    """Calibrate, measure, calibrate, predict, draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--work", type=Path, default=Path("validation-work"), help="scratch folder")
    parser.add_argument(
        "--draft-folder", type=Path, required=True, help="made by `paceline distil`"
    )
    parser.add_argument("--links", type=Path, required=True, help="folder of recorded links")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--calibration-rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--min-step-ms", type=int, default=120, help="of the padded pairs")
    parser.add_argument("--pairs", default="", help="those only whose names contain this")
    parser.add_argument("--only", choices=["calibrate", "measure", "read", "report"])
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    pairs = pairs_of(
        arguments.links, draft=arguments.draft_folder.name, padded_ms=arguments.min_step_ms
    )
    pairs = [pair for pair in pairs if arguments.pairs in pair.name]
    result: dict[str, Any] = {"runs": []}
    if arguments.output.exists():
        result = json.loads(arguments.output.read_text())
    result |= head()
    drafts = [LOOKUP, LOW_BIT, str(arguments.draft_folder)]
    for part in ("before", "after"):
        if (
            arguments.only in (None, "calibrate")
            and not (arguments.work / part / "costs.toml").exists()
        ):
            calibrate(arguments.work / part, drafts=drafts, rounds=arguments.calibration_rounds)
        if part == "before" and arguments.only in (None, "measure"):
            measure(arguments, pairs, result)
    if arguments.only in (None, "read"):
        read(arguments, pairs, result)
    if arguments.only in (None, "report"):
        result |= report(result["runs"], pairs=pairs, work=arguments.work, plot=arguments.plot)
        save(arguments.output, result)


if __name__ == "__main__":
    main()
