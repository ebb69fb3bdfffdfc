"""Every drafter in one table: how often it is right, what a drafted token costs, and whether the text stays the target's.

    PYTHONPATH=tests .venv/bin/python benchmarks/drafters.py --output benchmarks/results/drafters.json \
        [--draft SPEC ...] [--prompts 12] [--max-tokens 128]

The target answers prompts of different categories at temperatures 0 and 1 by itself, in float32. Then each drafter
drafts along in rounds, as with a verifier that judges `--draft-length` guesses at a time, or a tree of twelve: acceptance_probability
is accepted over judged (`drafter_rounds` says what counts in a tree). Its time per drafted token is told against a step of the target, both measured in turn, as processor
time of this thread, so that neighbours on the machine count little. Then it drafts for a real verifier over gRPC, for four sessions at
a time, and the texts are compared token by token.

Other drafters than the page's own, from files: `--draft common:FILE.gguf --draft llama:FILE.gguf --draft block:FILE.draft`.

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
from drafter_rounds import GUESSES_PER_TREE, Rounds
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
from paceline.session.growth import Growth
from paceline.tokens import TokenId
from simulator.calibration.record import OwnText, write_texts

TARGET = "smollm2-135m"
TEMPERATURES = (0.0, 1.0)
SEED = 0
SHIPPED = "smollm2-135m-draft"
DRAFTS = (
    "lookup",
    "suffix",
    SHIPPED,
    f"tree:{SHIPPED}",
    f"suffix+{SHIPPED}",
    f"suffix+tree:{SHIPPED}",
    f"adapt:{SHIPPED}",
    f"adapt:tree:{SHIPPED}",
    "low-bit:4/64",
    "suffix+low-bit:4/64",
    "hierarchy:suffix+low-bit:4/64",
    f"hierarchy:suffix+{SHIPPED}+low-bit:4/64",
    "early-exit:24",
)
TREE = "tree:"
PROMPTS = Path(__file__).parent.parent / "tests" / "data" / "prompts" / "prompts.jsonl"
STEPS_TIMED = 4
SESSIONS = 4
"""At once, when texts are compared."""
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


def drafting_of(*, is_tree: bool, draft_length: int) -> DraftingSettings:
    """How a session drafts: trees as users get them, without a policy that thinks of costs."""
    if is_tree:
        return DraftingSettings(draft_length=32, window=256, growth=Growth())
    return DraftingSettings(draft_length=draft_length)


async def identical(
    engine: Engine,
    tokenizer: Tokenizer,
    drafter: ScoringDrafter,
    drafting: DraftingSettings,
    texts: list[OwnText],
) -> dict[str, int]:
    """How many texts real sessions, some at a time, give back just as the target wrote them."""
    same: list[bool] = []
    waiting = iter(texts)
    torch.set_num_threads(1)

    async def one_by_one(client: Client) -> None:
        for text in waiting:
            async with client.generate(
                prompt_ids=text.prompt, max_tokens=len(text.output), sampling=text.sampling
            ) as generation:
                result = await generation.complete()
            same.append(result.token_ids == text.output)

    async with (
        serving(engine) as verifier,
        Client(
            verifiers=[verifier.address], tokenizer=tokenizer, drafter=drafter, drafting=drafting
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(SESSIONS):
            group.create_task(one_by_one(client))
    return {"identical": sum(same), "texts": len(same)}


def measured(
    spec: str,
    arguments: argparse.Namespace,
    target: Engine,
    texts: dict[float, list[OwnText]],
    tokenizer: Tokenizer,
) -> dict[str, Any]:
    drafter = load_drafter(spec, tokenizer=tokenizer, threads=1)
    is_tree = TREE in spec
    found: dict[str, Any] = {}
    context = statistics.median_low([len(text.prompt) for text in texts[0.0]]) + 32
    for temperature in TEMPERATURES:
        rounds, steps_s = (
            Rounds(draft_length=arguments.draft_length, is_tree=is_tree),
            list[float](),
        )
        for text in texts[temperature]:
            steps_s += step_times_s(
                target, context
            )  # in turn, so that both meet the same neighbours
            rounds.run(drafter, text)
        found[f"temperature {temperature:g}"] = rounds.figures(statistics.median(steps_s))
    if arguments.identity:
        everything = [text for part in texts.values() for text in part]
        drafting = drafting_of(is_tree=is_tree, draft_length=arguments.draft_length)
        found["identity"] = asyncio.run(identical(target, tokenizer, drafter, drafting, everything))
    return found


def table(results: dict[str, Any]) -> str:
    """The table of the page."""
    lines = [
        "| drafter | acceptance, T 0 | T 1 | tokens per round, T 0 | T 1 | cost of a drafted token / target step | of a round | identical texts |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for name, found in results.items():
        if name == REST:
            continue
        cold, warm = found["temperature 0"], found["temperature 1"]
        same = found.get("identity", {"identical": "-", "texts": "-"})
        lines.append(
            f"| `{name}` | {cold['acceptance_probability']:.2f} | {warm['acceptance_probability']:.2f} | "
            f"{cold['tokens_per_round']:.2f} | {warm['tokens_per_round']:.2f} | {cold['cost']:.3f} | "
            f"{cold['cost_of_round']:.2f} | "
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
        "guesses_per_tree": GUESSES_PER_TREE,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, one core, shared with others",
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
