"""What one step of a verifier's engine costs beyond the bare layers of its model, for 1 and 16 rows.

    .venv/bin/python benchmarks/target_forward.py [--model NAME] [--rounds N] [--json FILE]

`step` is `Engine.forward` of one sequence with CONTEXT tokens: one row, or a tree of 16. `bare` is the products and the attention
of as many rows, called one after another from Python (`bare_layers.py`), with a copy of the same weights. They are timed in turns, each
twice in a row, on one thread; told are medians and tenths of --rounds, of times and of ratios within a round, and the engine's own split of a step.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from bare_layers import AttentionShape, BareLayers, Product, Timed, machine, ratio, spread, timed_ms

from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, load_weights, resolve
from paceline.engine.rows import RowGroup
from paceline.tokens import TokenId

CONTEXT = 256
ROWS = (1, 16)
PARTS = ("q_proj", "k_proj", "v_proj", "o_proj"), ("gate_proj", "up_proj", "down_proj")


def products_of(model: Any) -> list[tuple[Product, int]]:
    """Return the products of a transformers model of Llama's kind."""
    found = []
    for layer in model.base_model.layers:
        for owner, names in zip((layer.self_attn, layer.mlp), PARTS, strict=True):
            found += [getattr(owner, name) for name in names]
    found.append(model.get_output_embeddings())
    return [(product.forward, product.weight.shape[1]) for product in found]


def stepper(engine: Engine, num_rows: int) -> Callable[[], None]:
    """Return a step of a tree of some rows, which is dropped again."""
    text = [TokenId(5 + (7 * i) % 200) for i in range(CONTEXT)]
    sequence = engine.open(max_length=CONTEXT + 32, max_pending=num_rows)
    engine.forward([RowGroup(sequence=sequence, tokens=text, logits="none", commit=True)])
    tokens = [TokenId(9 + i) for i in range(num_rows)]
    parents = [(i + 1) // 2 - 1 for i in range(num_rows)]  # two children each

    def step() -> None:
        engine.forward([RowGroup(sequence=sequence, tokens=tokens, parents=parents)])
        engine.rollback(sequence, CONTEXT)

    return step


def measured(name: str, dtype: Literal["float32", "bfloat16"], *, rounds: int) -> dict[str, Any]:
    """Times, ratios and the split for one type."""
    source = resolve(name)
    engine = load_model(source, dtype=dtype, tokenizer=load_tokenizer(source))
    model = load_weights(source, dtype=dtype)
    found: dict[str, Any] = {}
    for num_rows in ROWS:
        bare = BareLayers(
            products_of(model),
            AttentionShape.of(model.config),
            dtype=getattr(torch, dtype),
            num_keys=CONTEXT + num_rows,
        )
        step = stepper(engine, num_rows)
        step()
        engine.reset_counters()
        what = {"step": Timed(step=step), "bare": Timed(step=partial(bare.step, num_rows))}
        times = timed_ms(what, rounds=rounds)
        split = engine.step_split
        parts = {"plan": split.plan_ns, "layers": split.linear_ns}
        parts |= {"attention": split.attention_ns, "head": split.head_ns}
        found[str(num_rows)] = {
            "step_ms": spread(times["step"]),
            "bare_ms": spread(times["bare"]),
            "step_over_bare": ratio(times, "step", "bare"),
            "split_ms": {
                part: round(time_ns / 1e6 / split.num_steps, 3) for part, time_ns in parts.items()
            },
        }
        print(dtype, num_rows, "rows:", found[str(num_rows)], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    content = machine() | {"rounds": arguments.rounds, "context": CONTEXT, "rows": {}}
    for dtype in ("bfloat16", "float32"):
        content["rows"][dtype] = measured(arguments.model, dtype, rounds=arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
