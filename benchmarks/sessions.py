"""Eight sessions at once against one: throughput, fairness, and where a step's time goes.

    PYTHONPATH=tests .venv/bin/python benchmarks/sessions.py --output benchmarks/results/sessions.json

The verifier runs in this process on the real target; clients draft by prompt lookup over loopback gRPC. Runs of one
and of eight sessions alternate, and figures are ratios of sums within one run: the machine is shared and noisy.
"""

import argparse
import asyncio
import json
import platform
import statistics
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from cloud.orders import StepTimes
from cloud.server import ServerSettings, Verifier, VerifierSettings, running_verifier
from edge.drafters import load_drafter
from paceline.client.client import Client
from paceline.client.outcome import GenerationResult
from paceline.engine.engine import Engine
from paceline.engine.loading import DType, load_model, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from paceline.settings import Address

PROMPTS = Path(__file__).parent.parent / "tests/data/prompts/prompts.jsonl"


async def answers(
    verifier: Verifier,
    tokenizer: Tokenizer,
    prompts: list[str],
    *,
    temperature: float,
    max_tokens: int,
) -> tuple[list[GenerationResult], float]:
    """Answer all prompts at the same time; return the results and the wall time."""
    drafter = load_drafter("lookup", tokenizer=tokenizer)
    results: dict[int, GenerationResult] = {}

    async def one(index: int, client: Client) -> None:
        sampling = SamplingSettings(temperature=temperature, seed=index)
        messages = [{"role": "user", "content": prompts[index]}]
        async with client.generate(
            messages=messages, max_tokens=max_tokens, sampling=sampling
        ) as generation:
            async for _ in generation:
                pass
        results[index] = generation.result

    begin = time.monotonic()
    async with (
        Client(verifiers=[str(verifier.address)], tokenizer=tokenizer, drafter=drafter) as client,
        asyncio.TaskGroup() as group,
    ):
        for index in range(len(prompts)):
            group.create_task(one(index, client))
    return [results[index] for index in range(len(prompts))], time.monotonic() - begin


def split_of(before: StepTimes, after: StepTimes) -> dict[str, float]:
    """Return the share of each part of the model thread's time, and its means."""
    spent = {name: value - asdict(before)[name] for name, value in asdict(after).items()}
    total = spent["total_ns"]
    parts = ("forward_ns", "sampling_ns", "walk_ns", "commit_ns")
    return {
        "steps": spent["num_steps"],
        "rows_per_step": round(spent["num_rows"] / spent["num_steps"], 2),
        "step_ms": round(total / spent["num_steps"] / 1e6, 2),
    } | {part.removesuffix("_ns") + "_share": round(spent[part] / total, 4) for part in parts}


async def run(
    arguments: argparse.Namespace, engine: Engine, tokenizer: Tokenizer
) -> dict[str, Any]:
    """Alternate one and eight sessions."""
    lines = [json.loads(line) for line in PROMPTS.read_text().splitlines()]
    prompts = [line["prompt"] for line in lines if len(line["prompt"]) < 600][:8]
    rounds: list[dict[str, Any]] = []
    settings = VerifierSettings(server=ServerSettings(listen=Address(host="127.0.0.1", port=0)))
    async with running_verifier(engine, settings) as verifier:
        for number in range(arguments.rounds):
            row: dict[str, Any] = {}
            for count in (1, 8):
                engine.clear_prefixes()
                asked = prompts[number % 8 :][:1] if count == 1 else prompts
                before = verifier.worker.times
                found, wall_s = await answers(
                    verifier,
                    tokenizer,
                    asked,
                    temperature=arguments.temperature,
                    max_tokens=arguments.max_tokens,
                )
                tokens = sum(result.completion_tokens for result in found)
                rates = [result.statistics.tokens_per_s for result in found]
                row[f"{count} sessions"] = {
                    "tokens_per_s": round(tokens / wall_s, 2),
                    "slowest_session_tokens_per_s": round(min(rates), 2),
                    "fastest_session_tokens_per_s": round(max(rates), 2),
                    "latest_first_token_s": round(
                        max(r.statistics.time_to_first_token_s for r in found), 2
                    ),
                    "split": split_of(before, verifier.worker.times),
                }
            row["ratio"] = round(
                row["8 sessions"]["tokens_per_s"] / row["1 sessions"]["tokens_per_s"], 2
            )
            rounds.append(row)
            print(json.dumps(row), file=sys.stderr)
    ratios = [row["ratio"] for row in rounds]
    return {
        "ratio_median": statistics.median(ratios),
        "ratio_min": min(ratios),
        "ratio_max": max(ratios),
        "rounds": rounds,
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="bfloat16")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    source = resolve("smollm2-135m")
    tokenizer = load_tokenizer(source)
    dtype: DType = arguments.dtype
    engine = load_model(source, dtype=dtype, tokenizer=tokenizer)
    engine.warm_up()
    result = {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "machine": f"{platform.machine()}, 2 cores",
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "dtype": dtype,
        "temperature": arguments.temperature,
        "max_tokens": arguments.max_tokens,
    } | asyncio.run(run(arguments, engine, tokenizer))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({key: value for key, value in result.items() if key != "rounds"}, indent=1))


if __name__ == "__main__":
    main()
