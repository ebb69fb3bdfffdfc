"""Times steps of the target as the verifier runs them: prefill, and trees of several sessions at once."""

from __future__ import annotations

import random  # noqa: TID251 - a seeded generator of our own is made of it
from functools import partial
from itertools import cycle

from cloud.orders import OpenOrder, StepOrder, StepResult
from cloud.walk import ROOT, Tree
from cloud.worker import Worker, WorkerSettings
from paceline.engine.engine import Engine
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.calibration.collecting import Collection
from simulator.calibration.grid import Advance, Kind, StepGrid
from simulator.cost import Work

PREFILL_ROWS = (16, 64, 128, 256)
MOST_GROWTH = 8
"""Most tokens that a step commits: the trees are no deeper."""


class _House:
    """The sessions that are timed, by the length of their text."""

    def __init__(self, worker: Worker, *, growth: int, advance: Advance) -> None:
        self._worker = worker
        self._growth = growth
        self._advance = advance
        self._num_opened = 0
        self.keys: dict[int, list[int]] = {}
        self.lengths: dict[int, int] = {}

    def open(self, context: int) -> int:
        """Open a session whose prompt is not computed yet; return its key.

        Texts differ, so that nothing is shared, as with users who do not know each other.
        """
        key = self._num_opened
        self._num_opened += 1
        order = OpenOrder(
            key=key,
            text=tuple(TokenId(5 + (7 * i + key) % 200) for i in range(context)),
            num_output=0,
            max_length=context + self._growth,
            sampling=SamplingSettings(temperature=0.0),
            num_logprobs=0,
            tenant="",
        )
        error = self._worker.arrange([], [order])[key]
        if error is not None:
            raise error
        return key

    def prefill(self, key: int, context: int, *, collection: Collection | None = None) -> None:
        """Compute a prompt in pieces of several sizes; time all but the last, which has logits too."""
        done = 0
        for rows in cycle(PREFILL_ROWS):
            count = min(rows, context - done)
            step = partial(self._worker.step, [StepOrder(key=key, num_prefill=count)])
            if collection is None or done + count == context:
                check(step())
            else:
                work = Work().with_sequence(num_rows=count, context=done, prefill=True)
                check(collection.time(("prefill", work), work, step))
            done += count
            if done == context:
                return

    def fill(self, grid: StepGrid) -> None:
        """Open and prefill all sessions that the grid needs."""
        for context in grid.contexts:
            for _ in range(grid.most_of(context)):
                key = self.open(context)
                self.prefill(key, context)
                self.keys.setdefault(context, []).append(key)
                self.lengths[key] = context + 1
                self._advance()


def time_target(engine: Engine, grid: StepGrid, *, advance: Advance = lambda: None) -> Collection:
    """Time every kind of step in turns, in another order each round, so that a busy machine slows all alike.

    At temperature 0: with noise a draw takes longer unless it was prepared while the model was idle.

    Raises:
        OverloadedError: the cache has no room for the contexts.
        InvalidRequestError: the model's context is shorter.
    """
    worker = Worker(engine, settings=WorkerSettings(max_draft_rows=grid.most_rows - 1))
    try:
        # What a session can grow by in all the steps that it takes part in.
        growth = 2 + grid.rounds * MOST_GROWTH * len(grid.kinds)
        house = _House(worker, growth=growth, advance=advance)
        house.fill(grid)
        collection = Collection()
        order = random.Random(0)  # noqa: S311 - an order, no secret
        for _ in range(grid.rounds):
            kinds: list[Kind | None] = [*grid.kinds, None]
            order.shuffle(kinds)
            for kind in kinds:
                if kind is None:
                    key = house.open(grid.max_context)
                    house.prefill(key, grid.max_context, collection=collection)
                    worker.arrange([key], [])
                else:
                    _time_step(worker, house, kind, collection=collection)
                advance()
    finally:
        worker.close()
        engine.reset_counters()
    return collection


def _time_step(worker: Worker, house: _House, kind: Kind, *, collection: Collection) -> None:
    keys = house.keys[kind.context][: kind.num_sequences]
    drafts = _tree(kind.num_rows - 1)
    work = Work()
    for key in keys:
        # The root is not in the cache yet.
        work = work.with_sequence(num_rows=kind.num_rows, context=house.lengths[key] - 1)
    orders = [StepOrder(key=key, drafts=drafts) for key in keys]
    result = collection.time(kind, work, lambda: worker.step(orders))
    check(result)
    for key, served in result.served.items():
        house.lengths[key] += len(served.tokens)


def _tree(num_drafts: int) -> Tree:
    """Return a tree in which every row has up to two children, as drafters that hedge make them."""
    return Tree(
        tokens=tuple(TokenId(10 + index) for index in range(num_drafts)),
        parents=tuple(ROOT if index < 2 else index // 2 - 1 for index in range(num_drafts)),
    )


def check(result: StepResult) -> None:
    """Raise what made a session of a step fail, if anything did."""
    for error in result.failed.values():
        raise error
