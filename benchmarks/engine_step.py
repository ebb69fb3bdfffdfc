"""One verification step of 8 sessions: our engine against transformers' own forward of the same rows.

    .venv/bin/python benchmarks/engine_step.py [--model NAME] [--threads N] [--runs N]

Both run SmolLM2 on 8 sequences with 300 tokens of context and 5 new rows each (a chain; transformers knows no trees).
Transformers gets them as one padded batch with its DynamicCache, cropped after each run. Runs alternate, so that a busy
machine slows both; the table gives medians and the 10th and 90th percentile, and the ratio of medians.
"""

from __future__ import annotations

import argparse
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import transformers
from transformers import DynamicCache

from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup, StepSplit
from paceline.tokens import TokenId

NUM_SEQUENCES = 8
CONTEXT_LENGTH = 300
NUM_ROWS = 5


def texts(vocabulary_size: int) -> list[list[TokenId]]:
    generator = torch.Generator().manual_seed(0)
    shape = (NUM_SEQUENCES, CONTEXT_LENGTH + NUM_ROWS)
    ids = torch.randint(0, vocabulary_size, shape, generator=generator)
    return [[TokenId(token) for token in row] for row in ids.tolist()]


def our_step(engine: Engine, ids: list[list[TokenId]]) -> Callable[[], torch.Tensor]:
    sequences = [
        engine.open(max_length=CONTEXT_LENGTH + 64, max_pending=16) for _ in range(NUM_SEQUENCES)
    ]
    for sequence, row in zip(sequences, ids, strict=True):
        tokens = row[:CONTEXT_LENGTH]
        engine.forward([RowGroup(sequence=sequence, tokens=tokens, logits="none", commit=True)])
    groups = [
        RowGroup(sequence=sequence, tokens=row[CONTEXT_LENGTH:])
        for sequence, row in zip(sequences, ids, strict=True)
    ]

    def step() -> torch.Tensor:
        logits = engine.forward(groups).values
        for sequence in sequences:
            engine.rollback(sequence, CONTEXT_LENGTH)
        return logits

    return step


def their_step(model: Any, ids: list[list[TokenId]]) -> Callable[[], torch.Tensor]:
    tokens = torch.tensor(ids)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(tokens[:, :CONTEXT_LENGTH], past_key_values=cache, use_cache=True, logits_to_keep=1)
    rows = tokens[:, CONTEXT_LENGTH:]
    mask = torch.ones_like(tokens)

    @torch.inference_mode()
    def step() -> torch.Tensor:
        output = model(rows, attention_mask=mask, past_key_values=cache, use_cache=True)
        cache.crop(-NUM_ROWS)
        logits: torch.Tensor = output.logits
        return logits.flatten(0, 1).float()

    return step


def timed_ms(step: Callable[[], torch.Tensor]) -> float:
    started = time.perf_counter()
    step()
    return (time.perf_counter() - started) * 1e3


def describe(values: list[float]) -> str:
    tenths = statistics.quantiles(values, n=10)
    return f"{statistics.median(values):8.2f} ms  (p10 {tenths[0]:.2f}, p90 {tenths[-1]:.2f})"


def describe_split(split: StepSplit, before: StepSplit) -> str:
    parts = {
        "plan": split.plan_ns - before.plan_ns,
        "embeddings, projections, feed-forward": split.linear_ns - before.linear_ns,
        "attention": split.attention_ns - before.attention_ns,
        "head": split.head_ns - before.head_ns,
    }
    total = sum(parts.values())
    return ", ".join(f"{name} {part / total:.1%}" for name, part in parts.items())


def compare(name: str, dtype: Literal["float32", "bfloat16"], num_runs: int) -> float:
    source = resolve(name)
    engine = load_model(source, dtype=dtype, tokenizer=load_tokenizer(source))
    model = transformers.AutoModelForCausalLM.from_pretrained(
        quantization_config=transformers.GgufConfig(dequantize=True),
        **source.arguments,
        dtype=getattr(torch, dtype),
        attn_implementation="sdpa",
    ).eval()
    ids = texts(engine.identity.vocabulary_size)
    ours, theirs = our_step(engine, ids), their_step(model, ids)
    difference = (ours() - theirs()).abs().max().item()
    for _ in range(3):
        ours()
        theirs()
    before = engine.step_split
    our_ms, their_ms = [], []
    for run in range(num_runs):
        order = (0, 1) if run % 2 else (1, 0)
        for which in order:
            if which:
                our_ms.append(timed_ms(ours))
            else:
                their_ms.append(timed_ms(theirs))
    ratio = statistics.median(our_ms) / statistics.median(their_ms)
    print(f"\n{dtype}: {NUM_SEQUENCES} sequences x {CONTEXT_LENGTH} tokens, {NUM_ROWS} rows each")
    print(f"  paceline      {describe(our_ms)}")
    print(f"  transformers  {describe(their_ms)}")
    print(f"  ratio         {ratio:.3f}   (largest difference of logits {difference:.2g})")
    print(f"  our step      {describe_split(engine.step_split, before)}")
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--runs", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    print(f"machine: {processor()}, {options.threads} threads, {platform.system()}")
    print(
        f"versions: Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}"
    )
    ratios = [compare(options.model, dtype, options.runs) for dtype in ("float32", "bfloat16")]
    print(f"\nlargest ratio {max(ratios):.3f}; at most 1.15 is wanted")


def processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


if __name__ == "__main__":
    main()
