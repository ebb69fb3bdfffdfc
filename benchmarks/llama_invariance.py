"""Whether llama.cpp's logits depend on how a text was computed: what a verifier on it could promise.

    .venv/bin/python benchmarks/llama_invariance.py --gguf FILE --output benchmarks/results/llama_invariance.json

Needs llama-cpp-python (docs/llama.md). The logits after the last token of one text, computed in several ways; the first is what
the others are compared with. One thread, half-precision cache.
"""

from __future__ import annotations

import argparse
import json
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from edge.drafters.llama.cells import Cells, Row
from edge.drafters.llama.gguf_model import GgufModel
from edge.drafters.llama.library import library
from edge.drafters.llama.noise import Floats
from paceline.tokens import TokenId

LENGTH = 101
TEXT = tuple(TokenId(1000 + 37 * place % 40_000) for place in range(LENGTH))


class Trial:
    """One text in fresh cells."""

    def __init__(self, model: GgufModel) -> None:
        self.cells = Cells(model, num_cells=1024, num_sequences=32, threads=1)

    def text(self, first: int, end: int, *, beside: int = 0) -> int:
        """Compute a piece of the text, with the first guesses of other branches beside it; return its last row."""
        rows = [
            Row(token=TEXT[at], position=at, sequence=0, wants_logits=at == LENGTH - 1)
            for at in range(first, end)
        ]
        for sequence in range(1, beside + 1):
            self.cells.share(0, sequence, end=first)
            rows.append(Row(token=TokenId(100 + sequence), position=first, sequence=sequence))
        self.cells.compute(rows)
        return end - first - 1

    def pieces(self, *sizes: int, beside: int = 0) -> Floats:
        """Compute the text in pieces; `beside` counts for the last."""
        at = last = 0
        for size in sizes:
            end = at + size
            last = self.text(at, end, beside=beside if end == LENGTH else 0)
            at = end
        return self.end(last)

    def refilled(self) -> Floats:
        """Compute the end of the text in cells that another one left before its beginning."""
        others = [Row(token=TokenId(300 + at), position=at, sequence=1) for at in range(40)]
        self.cells.compute(others)
        self.text(0, 60)
        self.cells.remove(1)
        self.text(60, 100)
        return self.end(self.text(100, LENGTH))

    def end(self, row: int) -> Floats:
        """Return a copy of the logits after a row, and free the cells."""
        logits = self.cells.logits(row).copy()
        self.cells.close()
        return logits


WAYS: dict[str, Callable[[Trial], Floats]] = {
    "60 + 40 + 1 rows": lambda trial: trial.pieces(60, 40, 1),
    "the same again": lambda trial: trial.pieces(60, 40, 1),
    "the last 11 one by one": lambda trial: trial.pieces(60, 30, *[1] * 11),
    "7 rows of other branches beside the last": lambda trial: trial.pieces(60, 40, 1, beside=7),
    "31 rows of other branches beside the last": lambda trial: trial.pieces(60, 40, 1, beside=31),
    "all 101 rows at once": lambda trial: trial.pieces(LENGTH),
    "the end in cells that were freed before the beginning": Trial.refilled,
}


def measured(model: GgufModel) -> dict[str, Any]:
    """Largest difference of each way from the first, and whether it would choose the same token."""
    expected = WAYS["60 + 40 + 1 rows"](Trial(model))
    found: dict[str, Any] = {"spread of logits": round(float(expected.std()), 3)}
    for name, way in WAYS.items():
        logits = way(Trial(model))
        found[name] = {
            "largest difference": round(float(np.abs(logits - expected).max()), 4),
            "same first token": bool(logits.argmax() == expected.argmax()),
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    model = GgufModel(arguments.gguf)
    api = library()
    default = api.llama_context_default_params
    result: dict[str, Any] = {
        "command": f"benchmarks/llama_invariance.py --gguf {arguments.gguf.name}",
        "machine": platform.machine(),
        "versions": {name: version(name) for name in ("llama-cpp-python", "numpy")},
    }
    for name, flash in (("flash attention", 1), ("without flash attention", 0)):

        def parameters(flash: int = flash) -> Any:
            changed = default()
            changed.flash_attn_type = flash
            return changed

        api.llama_context_default_params = parameters
        result[name] = measured(model)
    model.close()
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
