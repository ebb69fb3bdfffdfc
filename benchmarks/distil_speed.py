"""What a step of a packed draft costs: against its target's, against its matrices alone, for 1 to 8 leaves.

    .venv/bin/python benchmarks/distil_speed.py --draft smollm2-135m-draft [--json FILE]

All are timed in turns on one core, so that a busy machine slows all; told is the fastest of --rounds, which a busy machine disturbs
least. "bare" is what the layers and the output matrix cannot do without: their products, and attention over the text, called one after
another from Python. "whole" is a step as the edge takes it, until the likeliest token of each leaf is known. "unpacked" is the same draft
by transformers in bfloat16.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from edge.distillation.compact import unpacked
from edge.distillation.draft_reading import read_head
from edge.drafters.distilled import distilled_path, lean_model, load_distilled
from paceline.engine.engine import Engine
from paceline.engine.lean import LeanModel
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.tokens import TokenId

CONTEXT = 256
LEAVES = (1, 2, 4, 8)


class Stepper:
    """Takes the same step of an engine again and again."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        text = [TokenId(5 + i % 200) for i in range(CONTEXT)]
        self._sequence = engine.open(max_length=CONTEXT + 16, max_pending=max(LEAVES))
        engine.forward([RowGroup(sequence=self._sequence, tokens=text, logits="none", commit=True)])

    def step(self, leaves: int) -> None:
        """Run leaves that are children of the text's end."""
        tokens = [TokenId(9 + i) for i in range(leaves)]
        group = RowGroup(sequence=self._sequence, tokens=tokens, parents=(-1,) * leaves)
        self._engine.forward([group]).of(0).argmax(dim=1).tolist()
        self._engine.rollback(self._sequence, CONTEXT)


class Bare:
    """The products of a lean model and attention of the right shapes, with nothing between them."""

    def __init__(self, model: LeanModel) -> None:
        self._matrices = [(matrix, int(matrix.weight.shape[1])) for matrix in model.matrices()]
        config = model.config
        head_dim = config.hidden_size // config.num_attention_heads
        self._num_layers = config.num_hidden_layers
        self._queries_per_key = config.num_attention_heads // config.num_key_value_heads
        self._keys = torch.randn(1, config.num_key_value_heads, CONTEXT, head_dim).bfloat16()

    @torch.inference_mode()
    def step(self, leaves: int) -> None:
        """Compute all that a step must."""
        for matrix, width in self._matrices:
            matrix(torch.zeros(leaves, width, dtype=torch.bfloat16))
        keys = self._keys
        query = keys[:, :, : leaves * self._queries_per_key]
        for _ in range(self._num_layers):
            scaled_dot_product_attention(query, keys, keys)


def fastest_ms(
    steps: Mapping[str, Callable[[int], None]], *, leaves: int, rounds: int
) -> dict[str, float]:
    """The fastest of some rounds of each, in turns."""
    times: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        step(leaves)
    for _ in range(rounds):
        for name, step in steps.items():
            started_s = time.perf_counter()
            step(leaves)
            times[name].append(1000 * (time.perf_counter() - started_s))
    return {name: round(min(found), 3) for name, found in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draft", default="smollm2-135m-draft")
    parser.add_argument("--target", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = resolve(arguments.target)
    tokenizer = load_tokenizer(source)
    file = distilled_path(arguments.draft)
    if file is None or file.is_dir():
        raise SystemExit(f"{arguments.draft}: not a packed draft")
    packed = load_distilled(file, tokenizer=tokenizer)
    with unpacked(file) as folder:
        plain = load_model(resolve(str(folder)), dtype="bfloat16", tokenizer=tokenizer)
        plain.limit_output(*read_head(folder))
        lean = lean_model(file, folder)
    if lean is None:
        raise SystemExit(f"{arguments.draft}: cannot be multiplied as it is packed on this machine")
    target = load_model(source, dtype="bfloat16", tokenizer=tokenizer)
    steps = {
        "target": Stepper(target).step,
        "unpacked": Stepper(plain).step,
        "whole": Stepper(packed).step,
        "bare": Bare(lean).step,
    }
    rows: dict[str, Any] = {}
    for leaves in LEAVES:
        found = fastest_ms(steps, leaves=leaves, rounds=arguments.rounds)
        one_target = rows.get("1", found)["target"]
        found["of_a_target_step"] = round(found["whole"] / one_target, 4)
        found["over_bare"] = round(found["whole"] / found["bare"], 3)
        rows[str(leaves)] = found
        print(leaves, "leaves:", found, flush=True)
    content = {
        "command": ["python", *sys.argv],
        "machine": {
            "processor": platform.processor() or platform.machine(),
            "torch": torch.__version__,
        },
        "context": CONTEXT,
        "rounds": arguments.rounds,
        "fastest_ms": rows,
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()
