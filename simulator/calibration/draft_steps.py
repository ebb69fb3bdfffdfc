"""Times what drafters do at the edge: forward passes of a model with several leaves, guesses of prompt lookup."""

from __future__ import annotations

import random  # noqa: TID251 - a seeded generator of our own is made of it
from functools import partial
from itertools import product

import torch

from edge.drafters.lookup import LONGEST, LookupDraft, LookupDrafter
from paceline.engine.engine import Engine
from paceline.engine.rows import COMMITTED_END, RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId
from simulator.calibration.collecting import Collection
from simulator.calibration.grid import StepGrid
from simulator.cost import Work

LEAVES = (1, 2, 4, 8)
"""Rows of one forward pass: tokens that each begin or continue a branch. One is a chain."""
PREFILL_ROWS = 128
PREFILLS = 7
"""How often the longest text is prefilled."""
LOOKUP_ROUNDS = 20
"""For each round of a model: a guess takes microseconds, so a disturbance shows more."""


def time_model_draft(engine: Engine, grid: StepGrid) -> Collection:
    """Time a forward pass of a draft model: rows, ranking of each, freeing of what was not taken.

    Raises:
        OverloadedError: the cache has no room for the contexts.
    """
    room = engine.identity.context_length - 1
    contexts = sorted({min(context, room) for context in grid.contexts})
    sampler = Sampler(
        SamplingSettings(temperature=0.0),
        vocabulary_size=engine.identity.vocabulary_size,
        device=engine.device,
    )
    collection = Collection()
    sequences: dict[int, CacheSequence] = {}
    try:
        for _ in range(min(PREFILLS, grid.rounds)):
            timed = _prefilled(engine, contexts[-1], collection=collection)
            engine.rollback(timed, 0)
            engine.close(timed)
        for context in contexts:
            sequences[context] = _prefilled(engine, context)
        for context, leaves in _turns(contexts, grid.rounds):
            work = Work().with_sequence(num_rows=leaves, context=context)
            _time_pass(engine, sampler, sequences[context], work=work, collection=collection)
        return collection
    finally:
        for sequence in sequences.values():
            engine.rollback(sequence, 0)
            engine.close(sequence)
        engine.reset_counters()


def time_lookup(grid: StepGrid) -> Collection:
    """Time prompt lookup: rows are the tokens guessed by one call, on a text that repeats itself."""
    drafter = LookupDrafter()
    drafts: dict[int, tuple[list[TokenId], LookupDraft]] = {}
    for context in grid.contexts:
        text = [TokenId(5 + i % (2 * LONGEST)) for i in range(context)]
        draft = drafter.open(
            prompt_length=context, max_tokens=8, sampling=SamplingSettings(temperature=0.0)
        )
        draft.extend(text, 1)
        drafts[context] = (text, draft)
    collection = Collection()
    for context, guesses in _turns(list(drafts), LOOKUP_ROUNDS * grid.rounds):
        text, draft = drafts[context]
        work = Work().with_sequence(num_rows=guesses, context=context)
        collection.time(work, work, partial(draft.extend, text, guesses))
    return collection


def _turns(contexts: list[int], rounds: int) -> list[tuple[int, int]]:
    """Return every context with every number of leaves, in another order each round."""
    order = random.Random(0)  # noqa: S311 - an order, no secret
    turns: list[tuple[int, int]] = []
    for _ in range(rounds):
        kinds = list(product(contexts, LEAVES))
        order.shuffle(kinds)
        turns.extend(kinds)
    return turns


def _prefilled(
    engine: Engine, context: int, *, collection: Collection | None = None
) -> CacheSequence:
    sequence = engine.open(max_length=context + 1, max_pending=max(LEAVES))
    for done in range(0, context, PREFILL_ROWS):
        count = min(PREFILL_ROWS, context - done)
        tokens = [TokenId(5 + i % 200) for i in range(count)]
        group = RowGroup(sequence=sequence, tokens=tokens, logits="none", commit=True)
        work = Work().with_sequence(num_rows=count, context=done, prefill=True)
        if collection is None:
            engine.forward([group])
        else:
            collection.time(("prefill", work), work, partial(engine.forward, [group]))
    return sequence


def _time_pass(
    engine: Engine,
    sampler: Sampler,
    sequence: CacheSequence,
    *,
    work: Work,
    collection: Collection,
) -> None:
    group = RowGroup(
        sequence=sequence,
        tokens=[TokenId(10 + leaf) for leaf in range(work.num_rows)],
        parents=(COMMITTED_END,) * work.num_rows,
    )

    @torch.inference_mode()
    def run() -> None:
        position = Position(sequence.length + 1)
        for row in engine.forward([group]).of(0):
            sampler.rank(row, position=position, k=1)
        engine.commit(sequence, ())

    collection.time(work, work, run)
