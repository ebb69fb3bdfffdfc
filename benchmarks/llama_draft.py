"""What a drafted token costs with llama.cpp and with PyTorch, on one core and the same text.

    .venv/bin/python benchmarks/llama_draft.py --gguf FILE --output benchmarks/results/llama_draft.json

Needs llama-cpp-python (docs/llama.md). Each draft goes on greedily from the same text, eight tokens at a time, all drafts in
turn, so that neighbours on the machine slow all of them alike; time is processor time of the drafting thread, drawing
included. Trees guess after 1, 2, 4 and 8 leaves in one call.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from edge.drafters import load_drafter
from paceline.drafter import Draft, ScoringDrafter, TreeDraft
from paceline.engine.loading import DType, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

TARGET = "smollm2-135m"
STEP = 8
LEAVES = (1, 2, 4, 8)
GREEDY = SamplingSettings(temperature=0.0)


def spread(values_s: list[float]) -> dict[str, Any]:
    """Milliseconds: the median, and the quartiles around it."""
    low, middle, high = statistics.quantiles(values_s, n=4)
    return {
        "median_ms": round(1e3 * middle, 2),
        "quartiles_ms": [round(1e3 * low, 2), round(1e3 * high, 2)],
    }


def opened(drafter: ScoringDrafter, text: tuple[TokenId, ...]) -> Draft:
    """A draft that has read the text."""
    draft = drafter.open(prompt_length=len(text), max_tokens=400, sampling=GREEDY)
    while draft.prepare(text):
        pass
    draft.extend(text, 2)
    return draft


def chains(drafts: dict[str, Draft], text: tuple[TokenId, ...], rounds: int) -> dict[str, Any]:
    """Time per drafted token of each."""
    texts = dict.fromkeys(drafts, text)
    times: dict[str, list[float]] = {name: [] for name in drafts}
    for _ in range(rounds):
        for name, draft in drafts.items():
            started_s = time.thread_time()
            found = draft.extend(texts[name], STEP)
            took_s = time.thread_time() - started_s
            times[name].append(took_s / len(found))
            texts[name] = (*texts[name], *found)
    return {name: spread(values) for name, values in times.items()}


def trees(drafts: dict[str, Draft], text: tuple[TokenId, ...], rounds: int) -> dict[str, Any]:
    """Time of one call for several leaves of each."""
    times: dict[str, dict[int, list[float]]] = {
        name: {leaves: [] for leaves in LEAVES} for name in drafts
    }
    for turn in range(rounds):
        for leaves in LEAVES:
            for name, draft in drafts.items():
                assert isinstance(draft, TreeDraft)
                grown = (*text, *(TokenId(300 + turn) for _ in range(1 + turn)))
                draft.branch(grown, [()], width=4)
                paths = [(TokenId(500 + 10 * leaves + leaf),) for leaf in range(leaves)]
                started_s = time.thread_time()
                draft.branch(grown, paths, width=4)
                took_s = time.thread_time() - started_s
                times[name][leaves].append(took_s)
    return {
        name: {f"{leaves} leaves": spread(values) for leaves, values in found.items()}
        for name, found in times.items()
    }


def loaded(specs: dict[str, tuple[str, DType]], tokenizer: Tokenizer) -> dict[str, ScoringDrafter]:
    """The drafters by their names in the result."""
    return {
        name: load_drafter(spec, tokenizer=tokenizer, dtype=dtype, threads=1)
        for name, (spec, dtype) in specs.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--context", type=int, default=200)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = load_tokenizer(resolve(TARGET))
    text = tuple(TokenId(1000 + 37 * place % 40_000) for place in range(arguments.context))
    gguf = arguments.gguf
    chain_drafts = loaded(
        {
            "llama.cpp": (f"llama:{gguf}", "float32"),
            "PyTorch, bfloat16": (str(gguf), "bfloat16"),
            "PyTorch, float32": (str(gguf), "float32"),
            "smollm2-135m-draft": ("smollm2-135m-draft", "bfloat16"),
        },
        tokenizer,
    )
    opens = {name: opened(drafter, text) for name, drafter in chain_drafts.items()}
    found = {"per drafted token": chains(opens, text, arguments.rounds)}
    for draft in opens.values():
        draft.close()
    tree_drafts = loaded(
        {
            "llama.cpp": (f"tree:llama:{gguf}", "float32"),
            "PyTorch, bfloat16": (f"tree:{gguf}", "bfloat16"),
        },
        tokenizer,
    )
    opens = {name: opened(drafter, text) for name, drafter in tree_drafts.items()}
    found["per call of a tree"] = trees(opens, text, arguments.rounds)
    result = {
        "command": f"benchmarks/llama_draft.py --gguf {gguf.name} --rounds {arguments.rounds} --context {arguments.context}",
        "unit": "processor time of the drafting thread, one thread",
        "machine": platform.machine(),
        "versions": {
            name: version(name) for name in ("llama-cpp-python", "torch", "transformers", "numpy")
        },
        **found,
    }
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
