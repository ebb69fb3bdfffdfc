"""What one forward pass of a packed draft costs beyond its bare layers, for 1 to 8 leaves and texts of 64 to 1024 tokens.

    .venv/bin/python benchmarks/draft_forward.py [--draft NAME] [--rounds N] [--json FILE]

`branch` is all that an edge does for a pass: from the paths to the guesses with their chances, with PENDING guesses in the cache.
`forward` is what the engine takes of that: planning, layers, output matrix. `extend` is the same as `branch` for a chain of one token. `bare` is the products and the attention of as many rows, called one after
another from Python (`bare_layers.py`), with a copy of the same weights. `layers` is the draft's layers and its output matrix where they stand in
`branch`: norms, turns, writes to the cache and sums too, which are part of a layer whoever computes it. `least` is the same with as many of the cheapest operations in between as a layer has. They are timed in turns, each four times in a row, on one thread; told are medians and
tenths of --rounds, of times and of ratios within a round. Times are the thread's own (processor time): what others take of a busy machine does not count. The split takes single parts away from the whole: what is left of the
model's own time without products and attention is norms, turns, cache writes and sums, what is left of `branch` without the engine
and the ranking is Python's bookkeeping.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from bare_layers import AttentionShape, BareLayers, Timed, machine, ratio, spread, timed_ms

from edge.distillation.compact import unpacked
from edge.drafters.distilled import distilled_path, lean_model, load_distilled
from edge.drafters.model import ModelDraft, ModelDrafter
from edge.drafters.tree import TreeDrafter, TreeModelDraft
from paceline.engine.engine import Engine
from paceline.engine.lean import LeanModel
from paceline.engine.loading import load_tokenizer, resolve
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

CONTEXTS = (64, 256, 1024)
LEAVES = (1, 2, 4, 8)
WIDTH = 4
PENDING = 64
"""Live guesses in the cache when a measurement begins; some more when it ends."""
SMALL_OPERATIONS = 14
"""That compute something in each layer of the draft besides products and attention; views are not counted."""
MOST_PASSES = 8
"""Before the tree is grown afresh, untimed."""


class Tree:
    """Grows a tree below the same text again and again.

    Args:
        drafter: the draft.
        context: tokens of the text.
        leaves: in one forward pass.
        temperature: of the target.
    """

    def __init__(
        self, drafter: TreeDrafter, *, context: int, leaves: int, temperature: float
    ) -> None:
        self._text = [TokenId(5 + (7 * i) % 200) for i in range(context)]
        self.draft: TreeModelDraft = drafter.open(
            prompt_length=context,
            max_tokens=256,
            sampling=SamplingSettings(temperature=temperature),
        )
        self._leaves = leaves
        self._open: list[tuple[TokenId, ...]] = []
        self._left = 0

    def ready(self) -> None:
        """Let enough guesses be pending, and leaves be there."""
        if self._left == 0:
            self.draft.last_logits(self._text, 1)  # drops all guesses
            self._open, pending = [()], 0
            while pending < PENDING or len(self._open) < MOST_PASSES * self._leaves:
                pending += len(self._open[:8])
                self._grow(8)
            self._left = MOST_PASSES
        self._left -= 1

    def step(self) -> None:
        """One forward pass."""
        self._grow(self._leaves)

    def _grow(self, leaves: int) -> None:
        paths, self._open = self._open[:leaves], self._open[leaves:]
        for path, guesses in zip(
            paths, self.draft.branch(self._text, paths, width=WIDTH), strict=True
        ):
            self._open += [(*path, guess.token) for guess in guesses]


class Chain:
    """Guesses one token after another below the same text again and again."""

    def __init__(self, drafter: ModelDrafter, *, context: int) -> None:
        self._prompt = [TokenId(5 + (7 * i) % 200) for i in range(context)]
        self._draft: ModelDraft = drafter.open(
            prompt_length=context, max_tokens=256, sampling=SamplingSettings(temperature=0.0)
        )
        self._text = list(self._prompt)

    def ready(self) -> None:
        """Go back when the chain is long, which costs a row that is not timed."""
        if len(self._text) - len(self._prompt) >= PENDING:
            self._text = list(self._prompt)
            self._draft.extend(self._text, 1)

    def step(self) -> None:
        """Guess one token."""
        self._text += self._draft.extend(self._text, 1)


def bare_layers(model: LeanModel, *, num_keys: int) -> BareLayers:
    products = [(matrix.forward, int(matrix.weight.shape[1])) for matrix in model.matrices()]
    shape = AttentionShape.of(model.config)
    return BareLayers(products, shape, dtype=torch.bfloat16, num_keys=num_keys)


def measured(
    drafter: TreeDrafter, model: LeanModel, *, context: int, leaves: int, rounds: int
) -> dict[str, Any]:
    """Times and ratios of a forward pass of some leaves."""
    tree = Tree(drafter, context=context, leaves=leaves, temperature=0.0)
    bare = bare_layers(model, num_keys=context + PENDING)
    what = {
        "bare": Timed(step=partial(bare.step, leaves)),
        "least": Timed(step=partial(bare.step_between, leaves, per_layer=SMALL_OPERATIONS)),
    }
    if leaves == 1:
        chain = Chain(ModelDrafter(drafter.engine, vocabulary_size=1 << 20), context=context)
        what["extend"] = Timed(step=chain.step, ready=chain.ready)
    with timed_forward(drafter.engine) as forward, timed_layers(drafter.engine) as layers:
        parts = {"forward": forward, "layers": layers}
        what["branch"] = Timed(step=tree.step, ready=tree.ready, parts=parts)
        times = timed_ms(what, rounds=rounds)
    tree.draft.close()
    row: dict[str, Any] = {
        "forward_ms": spread(times["forward"]),
        "forward_over_bare": ratio(times, "forward", "bare"),
        "branch_ms": spread(times["branch"]),
        "bare_ms": spread(times["bare"]),
        "least_ms": spread(times["least"]),
        "least_over_bare": ratio(times, "least", "bare"),
        "branch_over_bare": ratio(times, "branch", "bare"),
        "layers_ms": spread(times["layers"]),
        "branch_over_layers": ratio(times, "branch", "layers"),
    }
    if leaves == 1:
        row["extend_ms"] = spread(times["extend"])
        row["extend_over_bare"] = ratio(times, "extend", "bare")
    return row


class Stopwatch:
    """Notes how long a function took when it was called last."""

    def __init__(self, inner: Callable[..., Any]) -> None:
        self._inner = inner
        self.last_ms = 0.0

    def __call__(self, *arguments: Any, **keywords: Any) -> Any:
        """Do what the function does."""
        started_s = time.thread_time()
        result = self._inner(*arguments, **keywords)
        self.last_ms = 1000 * (time.thread_time() - started_s)
        return result


@contextmanager
def timed_forward(engine: Engine) -> Iterator[Callable[[], float]]:
    """Time the engine's steps; give what tells how many ms the last one took."""
    watch = Stopwatch(engine.forward)
    engine.forward = watch  # type: ignore[method-assign]
    try:
        yield lambda: watch.last_ms
    finally:
        del engine.forward  # the class has its own


@contextmanager
def timed_layers(engine: Engine) -> Iterator[Callable[[], float]]:
    """Time the layers and the output matrix; give what tells how many ms they took in the last step."""
    model = engine._model  # noqa: SLF001 - what is inside is what is asked
    head = model.get_output_embeddings()
    owners = [*model.base_model.layers, getattr(head, "product", head)]
    watches = [Stopwatch(owner.forward) for owner in owners]
    for owner, watch in zip(owners, watches, strict=True):
        owner.forward = watch
    try:
        yield lambda: sum(watch.last_ms for watch in watches)
    finally:
        for owner in owners:
            del owner.forward  # the class has its own


def split(
    drafter: TreeDrafter, model: LeanModel, *, leaves: int, temperature: float, rounds: int
) -> dict[str, float]:
    """Median ms of each part of a forward pass after 256 tokens."""
    context, engine = 256, drafter.engine
    tree = Tree(drafter, context=context, leaves=leaves, temperature=temperature)
    bare = bare_layers(model, num_keys=context + PENDING)
    tree.ready()
    drawing = tree.draft._drawing  # noqa: SLF001 - what is inside is what is asked
    ranking, forward = Stopwatch(drawing.ranked_leaves), Stopwatch(engine.forward)
    drawing.ranked_leaves, engine.forward = ranking, forward  # type: ignore[method-assign]
    whole, products, attention = (
        Stopwatch(step)
        for step in (tree.step, partial(bare.multiply, leaves), partial(bare.attend, leaves))
    )
    found: dict[str, list[float]] = {}
    for _ in range(rounds):
        for _ in range(2):
            products()
        for _ in range(2):
            attention()
        for _ in range(2):
            tree.ready()
            planned_ns = engine.step_split.plan_ns
            whole()
            planning_ms = (engine.step_split.plan_ns - planned_ns) / 1e6
        model_ms = forward.last_ms - planning_ms
        parts = {
            "products": products.last_ms,
            "attention": attention.last_ms,
            "norms, turns, cache writes, sums": model_ms - products.last_ms - attention.last_ms,
            "planning": planning_ms,
            "noise and ranking": ranking.last_ms,
            "bookkeeping": whole.last_ms - forward.last_ms - ranking.last_ms,
            "whole": whole.last_ms,
        }
        for name, part_ms in parts.items():
            found.setdefault(name, []).append(part_ms)
    del engine.forward, drawing.ranked_leaves  # the classes have their own
    tree.draft.close()
    return {name: round(statistics.median(values), 3) for name, values in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draft", default="smollm2-135m-draft")
    parser.add_argument("--target", default="smollm2-135m", help="whose tokenizer the draft has")
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    file = distilled_path(arguments.draft)
    if file is None or file.is_dir():
        raise SystemExit(f"{arguments.draft}: not a packed draft")
    with unpacked(file) as folder:
        model = lean_model(file, folder)
    if model is None:
        raise SystemExit(f"{arguments.draft}: cannot be multiplied as it is packed on this machine")
    engine: Engine = load_distilled(file, tokenizer=load_tokenizer(resolve(arguments.target)))
    drafter = TreeDrafter(engine, vocabulary_size=1 << 20)
    content: dict[str, Any] = machine() | {"rounds": arguments.rounds, "width": WIDTH}
    content |= {"contexts": {}, "split_ms": {}}
    for context in CONTEXTS:
        rows = content["contexts"][str(context)] = {}
        for leaves in LEAVES:
            row = measured(drafter, model, context=context, leaves=leaves, rounds=arguments.rounds)
            rows[str(leaves)] = row
            told = {name: value["median"] for name, value in row.items()}
            print(f"{context} tokens, {leaves} leaves: {told}", flush=True)
    for temperature in (0.0, 0.8):
        for leaves in (1, 8):
            parts = split(
                drafter, model, leaves=leaves, temperature=temperature, rounds=arguments.rounds
            )
            content["split_ms"][f"{leaves} leaves, temperature {temperature}"] = parts
            print(f"{leaves} leaves, temperature {temperature}: {parts}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
