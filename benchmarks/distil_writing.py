"""One step of writing text with many sequences: slots, the engine's packed rows, and plain transformers.

    .venv/bin/python benchmarks/distil_writing.py [--model NAME] [--texts N] [--threads N] [--dtype bfloat16]

Every text has 150 to 300 tokens and gets one more. Transformers runs a padded batch with its DynamicCache, which is copied
as it grows. Runs take turns, so that a busy machine slows all; the table gives medians of processor time in ms, and tokens per second of it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from transformers import DynamicCache

from edge.distillation.slots import Feed, Slots
from paceline.engine.loading import load_model, load_weights, resolve
from paceline.engine.rows import EngineSettings, RowGroup
from paceline.tokens import TokenId

SHORTEST, LONGEST = 150, 300
WARM_UP = 2


def slots_step(model: str, lengths: list[int], dtype: str) -> Callable[[], object]:
    weights = load_weights(resolve(model), dtype=dtype)  # type: ignore[arg-type]
    slots = Slots(weights, num_slots=len(lengths), length=LONGEST + 64)
    for slot, length in enumerate(lengths):
        slots.run([Feed(slot=slot, start=0, tokens=[7] * length)])
    at = [0]

    def step() -> object:
        at[0] += 1
        feeds = [Feed(slot=i, start=n + at[0] - 1, tokens=[9]) for i, n in enumerate(lengths)]
        return slots.run(feeds)

    return step


def engine_step(model: str, lengths: list[int], dtype: str) -> Callable[[], object]:
    settings = EngineSettings(memory_bytes=8 << 30, sharing="none")
    engine = load_model(resolve(model), dtype=dtype, settings=settings)  # type: ignore[arg-type]
    sequences = [engine.open(max_length=LONGEST + 64, max_pending=0) for _ in lengths]
    for sequence, length in zip(sequences, lengths, strict=True):
        tokens = [TokenId(7)] * length
        engine.forward([RowGroup(sequence=sequence, tokens=tokens, logits="none", commit=True)])
    groups = [RowGroup(sequence=item, tokens=[TokenId(9)], commit=True) for item in sequences]
    return lambda: engine.forward(groups).values


def transformers_step(model: str, lengths: list[int], dtype: str) -> Callable[[], object]:
    weights = load_weights(resolve(model), dtype=dtype)  # type: ignore[arg-type]
    weights.set_attn_implementation("sdpa")
    cache = DynamicCache(config=weights.config)
    places = torch.arange(LONGEST)
    # Padded on the left, as `generate` does.
    mask = (places >= LONGEST - torch.tensor(lengths)[:, None]).long()
    with torch.inference_mode():
        for row in range(0, LONGEST, 50):  # in pieces: the logits of a whole batch do not fit
            piece = torch.full((len(lengths), 50), 7)
            weights(
                piece, attention_mask=mask[:, : row + 50], past_key_values=cache, logits_to_keep=1
            )
    grown = [mask]

    @torch.inference_mode()
    def step() -> object:
        grown[0] = torch.cat((grown[0], torch.ones(len(lengths), 1, dtype=torch.long)), dim=1)
        tokens = torch.full((len(lengths), 1), 9)
        return weights(tokens, attention_mask=grown[0], past_key_values=cache).logits

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=8)
    parser.add_argument("--dtype", default="bfloat16")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    generator = torch.Generator().manual_seed(0)
    shape = (arguments.texts,)
    lengths = torch.randint(SHORTEST, LONGEST + 1, shape, generator=generator).tolist()
    makers = {"slots": slots_step, "engine": engine_step, "transformers": transformers_step}
    steps = {name: make(arguments.model, lengths, arguments.dtype) for name, make in makers.items()}
    times: dict[str, list[float]] = {name: [] for name in steps}
    for run in range(WARM_UP + arguments.runs):
        for name, step in steps.items():
            started = time.process_time()
            step()
            if run >= WARM_UP:
                times[name].append(time.process_time() - started)
    for name, values in times.items():
        median = statistics.median(values)
        print(f"{name:<14}{1000 * median:>9.1f} ms{arguments.texts / median:>9.0f} tokens/s")


if __name__ == "__main__":
    main()
