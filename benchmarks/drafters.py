"""Every drafter in one table: how often it is right, what a drafted token costs, and whether the text stays the target's.

    PYTHONPATH=tests .venv/bin/python benchmarks/drafters.py --output benchmarks/results/drafters.json \
        [--draft SPEC ...] [--prompts 12] [--max-tokens 128]

The target answers prompts of different categories at temperatures 0 and 1 by itself, in float32. Then each drafter
drafts along in rounds, as with a verifier that judges `--draft-length` guesses at a time: acceptance_probability is
accepted over judged. Its time per drafted token is told against a step of the target, both measured in turn, as processor
time of this thread, so that neighbours on the machine count little. Then it drafts for a real verifier over gRPC, and the
texts are compared token by token.

What is done already is in the output file and is not done again: the run can be broken off and goes on.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import platform
import re
import statistics
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from harness.raw_edge import serving

from edge.drafters import load_drafter
from paceline import Client
from paceline.client.settings import DraftingSettings
from paceline.drafter import ScoringDrafter
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.engine.tokenizer import Tokenizer
from paceline.prompts import PromptLine, read_prompts
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.calibration.record import OwnText, write_texts

TARGET = "smollm2-135m"
TEMPERATURES = (0.0, 1.0)
SEED = 0
DRAFTS = (
    "lookup",
    "suffix",
    "low-bit:4/64",
    "low-bit:3/64",
    "early-exit:15",
    "early-exit:24",
    "early-exit:28",
    "suffix+low-bit:4/64",
    "hierarchy:suffix+low-bit:4/64",
)
PROMPTS = Path(__file__).parent.parent / "tests" / "data" / "prompts" / "prompts.jsonl"
STEPS_TIMED = 6
REST = "rest"
"""Key of what belongs to no drafter."""


def name_of(spec: str) -> str:
    """What the table calls a drafter: of files and folders their own name, since their place means nothing elsewhere."""
    parts = re.split("([:+])", spec)
    return "".join(Path(part).name if Path(part).exists() else part for part in parts)


def chosen(lines: tuple[PromptLine, ...], count: int) -> list[PromptLine]:
    """One prompt of each category after the other, the shorter ones first: long ones would be nothing but prefill."""
    short = sorted(lines, key=lambda line: len(line.messages[-1].content))
    picked: list[PromptLine] = []
    while len(picked) < min(count, len(lines)):
        seen: set[str] = set()
        for line in short:
            if line not in picked and line.category not in seen and len(picked) < count:
                seen.add(line.category)
                picked.append(line)
    return picked


def step_times_s(engine: Engine, context: int) -> list[float]:
    """Seconds of the target's steps of one row."""
    sequence = engine.open(max_length=context + STEPS_TIMED, max_pending=0)
    times = []
    try:
        tokens = [TokenId(5 + i % 200) for i in range(context)]
        engine.forward([RowGroup(sequence=sequence, tokens=tokens, logits="none", commit=True)])
        for _ in range(STEPS_TIMED):
            started_s = time.thread_time()
            group = RowGroup(sequence=sequence, tokens=[TokenId(9)], logits="last", commit=True)
            engine.forward([group])
            times.append(time.thread_time() - started_s)
    finally:
        engine.close(sequence)
    return times


class Rounds:
    """Counts of one drafter at one temperature."""

    def __init__(self) -> None:
        self.rounds = self.drafted = self.judged = self.accepted = self.positions = 0
        self.calls_s: list[float] = []
        self.tokens: list[int] = []

    def run(self, drafter: ScoringDrafter, text: OwnText, *, draft_length: int) -> None:
        """Draft along an answer, round by round."""
        draft = drafter.open(
            prompt_length=len(text.prompt), max_tokens=len(text.output), sampling=text.sampling
        )
        try:
            while draft.prepare(text.prompt):
                pass
            done = 0
            while done < len(text.output) - 1:
                known = (*text.prompt, *text.output[:done])
                room = min(draft_length, len(text.output) - done - 1)
                started_s = time.thread_time()
                found = draft.extend(known, room)
                took_s = time.thread_time() - started_s
                if done:  # the first call may have the end of the prompt to compute
                    self.calls_s.append(took_s)
                    self.tokens.append(len(found))
                right = 0
                while right < len(found) and found[right] == text.output[done + right]:
                    right += 1
                self.rounds += 1
                self.drafted += len(found)
                self.judged += min(right + 1, len(found))
                self.accepted += right
                self.positions += right + 1
                done += right + 1
        finally:
            draft.close()

    def figures(self, step_s: float) -> dict[str, Any]:
        """What the table tells."""
        tokens = sum(self.tokens)
        token_s = sum(self.calls_s) / max(1, tokens)
        return {
            "acceptance_probability": round(self.accepted / max(1, self.judged), 4),
            "judged": self.judged,
            "tokens_per_round": round(self.positions / max(1, self.rounds), 3),
            "drafted_per_round": round(self.drafted / max(1, self.rounds), 3),
            "ms_per_drafted_token": round(1e3 * token_s, 3),
            "target_step_ms": round(1e3 * step_s, 3),
            "cost": round(token_s / step_s, 4),
        }


async def identical(
    engine: Engine, tokenizer: Tokenizer, drafter: ScoringDrafter, texts: list[OwnText]
) -> dict[str, int]:
    """How many texts a real session gives back just as the target wrote them."""
    same = 0
    torch.set_num_threads(1)
    async with (
        serving(engine) as verifier,
        Client(
            verifiers=[verifier.address],
            tokenizer=tokenizer,
            drafter=drafter,
            drafting=DraftingSettings(draft_length=8),
        ) as client,
    ):
        for text in texts:
            async with client.generate(
                prompt_ids=text.prompt, max_tokens=len(text.output), sampling=text.sampling
            ) as generation:
                result = await generation.complete()
            same += result.token_ids == text.output
    return {"identical": same, "texts": len(texts)}


def measured(
    spec: str,
    arguments: argparse.Namespace,
    target: Engine,
    texts: dict[float, list[OwnText]],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    drafter = load_drafter(spec, tokenizer=tokenizer)
    found: dict[str, Any] = {}
    context = statistics.median_low([len(text.prompt) for text in texts[0.0]]) + 32
    for temperature in TEMPERATURES:
        rounds, steps_s = Rounds(), list[float]()
        for text in texts[temperature]:
            steps_s += step_times_s(
                target, context
            )  # in turn, so that both meet the same neighbours
            rounds.run(drafter, text, draft_length=arguments.draft_length)
        found[f"temperature {temperature:g}"] = rounds.figures(statistics.median(steps_s))
    if arguments.identity:
        everything = [text for part in texts.values() for text in part]
        found["identity"] = asyncio.run(identical(target, tokenizer, drafter, everything))
    return found


def table(results: dict[str, Any]) -> str:
    """The table of the page."""
    lines = [
        "| drafter | acceptance, T 0 | T 1 | tokens per round, T 0 | T 1 | cost of a drafted token / target step | identical texts |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in results.items():
        if name == REST:
            continue
        cold, warm = found["temperature 0"], found["temperature 1"]
        same = found.get("identity", {"identical": "-", "texts": "-"})
        lines.append(
            f"| `{name}` | {cold['acceptance_probability']:.2f} | {warm['acceptance_probability']:.2f} | "
            f"{cold['tokens_per_round']:.2f} | {warm['tokens_per_round']:.2f} | {cold['cost']:.3f} | "
            f"{same['identical']} of {same['texts']} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--draft", action="append", help="default: those of the page")
    parser.add_argument("--prompts", type=int, default=12)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument("--draft-length", type=int, default=4)
    parser.add_argument("--identity", action=argparse.BooleanOptionalAction, default=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    done: dict[str, Any] = {}
    if arguments.output.exists():
        done = json.loads(arguments.output.read_text())
    about = {
        "command": "benchmarks/drafters.py",
        "target": TARGET,
        "dtype": "float32",
        "threads": 1,
        "prompts": arguments.prompts,
        "max_tokens": arguments.max_tokens,
        "draft_length": arguments.draft_length,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    if done and done[REST] != about:
        raise SystemExit(f"{arguments.output}: made with other settings; name another file")
    done[REST] = about
    left = [spec for spec in arguments.draft or DRAFTS if name_of(spec) not in done]
    if left:
        source = resolve(TARGET)
        tokenizer = load_tokenizer(source)
        target = load_model(source, dtype="float32", tokenizer=tokenizer)
        lines = chosen(read_prompts(PROMPTS), arguments.prompts)
        write = partial(write_texts, target, tokenizer, lines, max_tokens=arguments.max_tokens)
        greedy = SamplingSettings(temperature=0.0)
        texts = {t: write(sampling=replace(greedy, temperature=t, seed=SEED)) for t in TEMPERATURES}
        for spec in left:
            name = name_of(spec)
            done[name] = measured(spec, arguments, target, texts, tokenizer)
            arguments.output.write_text(json.dumps(done, indent=1) + "\n")
            print(f"{name}: {json.dumps(done[name])}", flush=True)
            gc.collect()
    print(table(done))


if __name__ == "__main__":
    main()
