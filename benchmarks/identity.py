"""Is the text the target's own? Forty prompts through real processes and an emulated link, against plain loops.

    PYTHONPATH=tests .venv/bin/python benchmarks/identity.py greedy  --output benchmarks/results/identity_greedy.json
    PYTHONPATH=tests .venv/bin/python benchmarks/identity.py sampled --output benchmarks/results/identity_sampled.json

Every pair of settings meets (an orthogonal array over the axes below). A verifier runs as a process of its own on one
thread, in float32 unless told otherwise; this process is the edge. Each step of the verifier is padded to `--min-step`
(emulating a larger target), so that a draft as slow as the target can be ahead of it at all.

greedy:  drafter x window x RTT, expected text: transformers' own `model.generate`
sampled: drafter x window x race x concurrent sessions, temperature 0.8, expected text: tests/harness/reference.py

In bfloat16 (`--dtype bfloat16`) identity is not promised: the reference is the same loop in bfloat16, and each
difference is reported with the gap between the two tokens' scores, which says whether rounding explains it.

References are computed once and kept in `--references`, so that an interrupted run goes on.
"""

import argparse
import asyncio
import json
import platform
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import transformers
from harness.drafters import GuessingDraft
from harness.processes import running
from harness.reference import Difference, explain, reference_output
from harness.relay import ThreadedRelay, threaded_relay
from identity_cells import Cell, greedy_cells, sampled_cells, uncovered_pairs
from transformers import AutoModelForCausalLM

from edge.drafters import load_drafter
from paceline.client.client import Client
from paceline.client.outcome import GenerationResult
from paceline.client.settings import DraftingSettings
from paceline.drafter import Drafter
from paceline.engine.loading import load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

PROMPTS = Path(__file__).parent.parent / "tests/data/prompts/prompts.jsonl"


class AlwaysWrong:
    """An adversary that knows what the target will draw after each prompt, and never guesses that."""

    name = "always wrong"

    def __init__(
        self, expected: dict[tuple[TokenId, ...], list[TokenId]], *, vocabulary_size: int
    ) -> None:
        self._expected = expected
        self._vocabulary_size = vocabulary_size

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> GuessingDraft:
        """Return a draft for one generation."""
        del max_tokens, sampling

        def guess(text: Sequence[TokenId]) -> TokenId:
            output = self._expected[tuple(text[:prompt_length])]
            at = len(text) - prompt_length
            right = output[at] if at < len(output) else 0
            return TokenId((right + 1) % self._vocabulary_size)

        return GuessingDraft(guess, [])


def plain_model(name: str, dtype: torch.dtype) -> Any:
    """The target as transformers runs it."""
    source = resolve(name)
    return AutoModelForCausalLM.from_pretrained(**source.arguments, dtype=dtype).eval()


def expected_texts(
    kind: str,
    prompts: list[dict[str, Any]],
    *,
    arguments: argparse.Namespace,
    model: Any,
    tokenizer: Tokenizer,
) -> dict[str, list[TokenId]]:
    """Compute, or read, what each prompt must give."""
    name = f"{Path(arguments.target).name}_{kind}_{arguments.dtype}_{arguments.max_tokens}.json"
    path = arguments.references / name
    known: dict[str, list[TokenId]] = json.loads(path.read_text()) if path.exists() else {}
    for number, prompt in enumerate(prompts):
        if prompt["id"] in known:
            continue
        ids = prompt["ids"]
        if kind == "greedy":
            with torch.inference_mode():
                out = model.generate(
                    torch.tensor([ids]),
                    attention_mask=torch.ones(1, len(ids), dtype=torch.long),
                    do_sample=False,
                    max_new_tokens=arguments.max_tokens,
                    eos_token_id=list(tokenizer.stop_tokens),
                    pad_token_id=tokenizer.stop_tokens[0],
                    sequence_bias=[[[token], 20.0] for token in arguments.prefer] or None,
                )
            known[prompt["id"]] = out[0, len(ids) :].tolist()
        else:
            known[prompt["id"]] = reference_output(
                model,
                ids,
                sampling=prompt["sampling"],
                max_tokens=arguments.max_tokens,
                stop_tokens=tokenizer.stop_tokens,
                vocabulary_size=tokenizer.vocabulary_size,
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(known))
        print(f"reference {number + 1}/{len(prompts)} {prompt['id']}", file=sys.stderr)
    return known


def sampling_of(arguments: argparse.Namespace, number: int) -> SamplingSettings:
    """Greedy, or temperature 0.8 with the seed of the prompt's number."""
    return SamplingSettings(
        temperature=0.0 if arguments.kind == "greedy" else 0.8,
        seed=1000 + number,
        logit_bias=tuple((TokenId(token), 20.0) for token in arguments.prefer),
    )


@contextmanager
def verifier(race: bool, *, arguments: argparse.Namespace) -> Iterator[ThreadedRelay]:  # noqa: FBT001
    """Run a verifier behind an emulated link."""
    options = [
        "--target",
        arguments.target,
        "--listen",
        "127.0.0.1:0",
        "--dtype",
        arguments.dtype,
        "--threads",
        "1",
    ]
    # Drafts of its own would have found before what prompt lookup finds at the edge.
    options += ["--race" if race else "--no-race", "--race-drafts", "off"]
    options += ["--min-step", f"{arguments.min_step}s"]
    with running(
        "paceline.command", "cloud", *options, ready=r"ready on (\S+)", timeout_s=120.0
    ) as child:
        assert child.ready is not None
        with threaded_relay(child.ready[1]) as relay:
            yield relay


async def run_cell(
    cell: Cell,
    prompts: list[dict[str, Any]],
    *,
    relay: ThreadedRelay,
    drafter: Drafter,
    tokenizer: Tokenizer,
    max_tokens: int,
) -> list[GenerationResult]:
    """Answer the prompts of one cell, `cell.concurrent` at a time."""
    results: dict[int, GenerationResult] = {}
    free = asyncio.Semaphore(cell.concurrent)
    drafting = DraftingSettings(window=cell.window, draft_length=min(32, cell.window))

    async def answer(index: int, client: Client) -> None:
        prompt = prompts[index]
        async with (
            free,
            client.generate(
                prompt_ids=prompt["ids"],
                max_tokens=max_tokens,
                sampling=prompt["sampling"],
            ) as generation,
        ):
            async for _ in generation:
                pass
        results[index] = generation.result

    async with (
        Client(
            verifiers=[str(relay.address)], tokenizer=tokenizer, drafter=drafter, drafting=drafting
        ) as client,
        asyncio.TaskGroup() as group,
    ):
        for index in range(len(prompts)):
            group.create_task(answer(index, client))
    return [results[index] for index in range(len(prompts))]


def summary_of(
    cell: Cell, results: list[GenerationResult], relay_bytes: int, wall_s: float
) -> dict[str, Any]:
    """Return what one cell did, as sums."""
    all_of = [result.statistics for result in results]
    return asdict(cell) | {
        "prompts": len(results),
        "tokens": sum(s.committed for s in all_of),
        "drafted": sum(s.drafted for s in all_of),
        "judged": sum(s.judged for s in all_of),
        "accepted": sum(s.accepted for s in all_of),
        "rejected": sum(s.judged - s.accepted for s in all_of),
        "late": sum(s.late for s in all_of),
        "stale": sum(s.stale for s in all_of),
        "steps": sum(s.steps for s in all_of),
        "relay_bytes": relay_bytes,
        "wall_s": round(wall_s, 1),
    }


def main() -> None:
    """Run all cells and write what was found."""
    arguments = parsed()
    torch.set_num_threads(arguments.threads)
    tokenizer = load_tokenizer(resolve(arguments.target))
    prompts = [json.loads(line) for line in arguments.prompts_file.read_text().splitlines()][
        : arguments.prompts
    ]
    for number, prompt in enumerate(prompts):
        ids = tokenizer.encode_chat(
            [{"role": "user", "content": prompt["prompt"][: arguments.prompt_characters]}]
        )
        prompt |= {"ids": list(ids), "sampling": sampling_of(arguments, number)}
    kind = arguments.kind
    model = plain_model(arguments.target, getattr(torch, arguments.dtype))
    expected = expected_texts(kind, prompts, arguments=arguments, model=model, tokenizer=tokenizer)
    cells = greedy_cells() if kind == "greedy" else sampled_cells()
    assert not uncovered_pairs(cells), uncovered_pairs(cells)
    deal = [prompts[i :: len(cells)] for i in range(len(cells))]
    if kind == "sampled":  # eight at a time need eight prompts
        deal = [
            [prompts[(7 * i + k) % len(prompts)] for k in range(8 if cell.concurrent == 8 else 4)]
            for i, cell in enumerate(cells)
        ]
    copy = load_drafter(arguments.target, tokenizer=tokenizer, dtype=arguments.copy_dtype)
    drafters: dict[str, Drafter | None] = {
        "lookup": load_drafter("lookup", tokenizer=tokenizer),
        "copy": copy,
        "wrong": AlwaysWrong(
            {tuple(p["ids"]): expected[p["id"]] for p in prompts},
            vocabulary_size=tokenizer.vocabulary_size,
        ),
    }
    rows, texts = [], []
    with ExitStack() as stack:
        relays = {
            race: stack.enter_context(verifier(race, arguments=arguments))
            for race in {c.race for c in cells}
        }
        for cell, dealt in zip(cells, deal, strict=True):
            relay = relays[cell.race]
            relay.set_rtt(cell.rtt_s)
            before, begin = relay.statistics(), time.monotonic()
            drafter = drafters[cell.drafter]
            assert drafter is not None
            results = asyncio.run(
                run_cell(
                    cell,
                    dealt,
                    relay=relay,
                    drafter=drafter,
                    tokenizer=tokenizer,
                    max_tokens=arguments.max_tokens,
                )
            )
            after = relay.statistics()
            carried = after.up_bytes + after.down_bytes - before.up_bytes - before.down_bytes
            row = summary_of(cell, results, carried, time.monotonic() - begin)
            for prompt, result in zip(dealt, results, strict=True):
                difference = explain(
                    model,
                    prompt["ids"],
                    expected=expected[prompt["id"]],
                    got=result.token_ids,
                    sampling=prompt["sampling"],
                    vocabulary_size=tokenizer.vocabulary_size,
                )
                texts.append(verdict(prompt, result, difference))
            row["identical"] = sum(text["identical"] for text in texts[-len(dealt) :])
            rows.append(row)
            print(json.dumps(row), file=sys.stderr)
    report(arguments, rows, texts)


def verdict(
    prompt: dict[str, Any], result: GenerationResult, difference: Difference | None
) -> dict[str, Any]:
    """Return one prompt's outcome, with the cause of a difference."""
    outcome: dict[str, Any] = {
        "id": prompt["id"],
        "tokens": len(result.token_ids),
        "identical": difference is None,
    }
    if difference is not None:
        outcome |= {
            "first_difference": difference.index,
            "gap": difference.gap,
            "gap_in_bfloat16_steps": round(difference.bfloat16_steps, 2),
            "tie": difference.is_tie,
        }
    return outcome


def report(
    arguments: argparse.Namespace, rows: list[dict[str, Any]], texts: list[dict[str, Any]]
) -> None:
    """Write the figures and fail if the promise does not hold."""
    tokens = sum(text["tokens"] for text in texts)
    ties = sum(bool(text.get("tie")) for text in texts)
    identical = sum(text["identical"] for text in texts)
    # A text counts up to its first difference: what follows is another text.
    compared = sum(text.get("first_difference", text["tokens"] - 1) + 1 for text in texts)
    unexplained = [text for text in texts if not text["identical"] and not text["tie"]]
    result = {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "machine": f"{platform.machine()}, {platform.processor() or platform.system()}, 2 cores",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "target": arguments.target,
        "dtype": arguments.dtype,
        "min_step_s": arguments.min_step,
        "prompts": len(texts),
        "tokens": tokens,
        "identical": identical,
        "ties": ties,
        "flips_per_1000_tokens": round(1000 * (len(texts) - identical) / max(1, compared), 2),
        "ties_per_2000_tokens": round(2000 * ties / tokens, 3),
        "unexplained": unexplained,
        "cells": rows,
        "differences": [text for text in texts if not text["identical"]],
    }
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(
        f"{result['identical']} of {len(texts)} texts identical, {tokens} tokens, {ties} ties, {len(unexplained)} unexplained"
    )
    failures = idle_settings(rows)
    for failure in failures:
        print(failure)
    if arguments.dtype == "float32" and (unexplained or failures or ties > max(1, tokens / 2000)):
        sys.exit(1)


def idle_settings(rows: list[dict[str, Any]]) -> list[str]:
    """Return the settings that did not exercise what they should, over all cells that have them."""
    found = []
    for axis in ("drafter", "window", "rtt_s", "race", "concurrent"):
        for value in sorted({row[axis] for row in rows}):
            having = [row for row in rows if row[axis] == value]
            names = ("accepted", "rejected", "relay_bytes")
            sums = {name: sum(row[name] for row in having) for name in names}
            if value == "wrong" and sums.pop("accepted") > 0:
                found.append(f"{axis}={value}: something was accepted of what is always wrong")
            if value == "copy":  # rounding alone makes it wrong, which few texts show
                del sums["rejected"]
            found += [f"{axis}={value}: {name} is 0" for name, total in sums.items() if total == 0]
    return found


def parsed() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("kind", choices=("greedy", "sampled"))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--references", type=Path, default=Path("/tmp/paceline-references"))
    parser.add_argument("--prompts", type=int, default=40)
    parser.add_argument("--max-tokens", type=int, default=128)
    parser.add_argument(
        "--prefer",
        type=int,
        nargs="*",
        default=[],
        help="favour these ids, so that a random model repeats itself",
    )
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--min-step", type=float, default=0.15, help="seconds")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--prompts-file", type=Path, default=PROMPTS)
    parser.add_argument("--target", default="smollm2-135m")
    parser.add_argument("--prompt-characters", type=int, help="cut prompts to this many characters")
    parser.add_argument("--copy-dtype", default="bfloat16")
    return parser.parse_args()


if __name__ == "__main__":
    main()
