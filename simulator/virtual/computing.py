"""Real models in a simulated world.

A world computes where a real program would hand work to a thread: in the loop's own thread, at the moment of the call, and
lets virtual time pass for it. PyTorch is held to one thread meanwhile, so that sums are added in one order everywhere.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache

import torch

from edge.drafters import load_drafter
from paceline.drafter import Drafter
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import RowGroup
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

MOST_LOADED = 4
"""Models of a kind that a process keeps; loading one takes up to seconds."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Let PyTorch compute on one thread, whatever it was set to."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=MOST_LOADED)
def load(model: str) -> tuple[Engine, Tokenizer]:
    """Return a target in float32, and its tokenizer.

    Raises:
        ConfigError: no such model.
        ModelError: it cannot be loaded.
    """
    source = resolve(model)
    with one_thread():
        tokenizer = load_tokenizer(source)
        return load_model(source, dtype="float32", tokenizer=tokenizer), tokenizer


@lru_cache(maxsize=MOST_LOADED)
def load_draft(model: str, tokenizer: Tokenizer) -> Drafter:
    """Return a drafter; raises as `edge.drafters.load_drafter`."""
    with one_thread():
        return load_drafter(model, tokenizer=tokenizer)


def run(
    engine: Engine,
    tokenizer: Tokenizer,
    text: tuple[TokenId, ...],
    *,
    count: int,
    sampling: SamplingSettings,
) -> tuple[TokenId, ...]:
    """Return what follows `text`: one row and one draw after the other, without a session."""
    end = min(len(text) + count, engine.identity.context_length)
    sampler = Sampler(
        sampling, vocabulary_size=engine.identity.vocabulary_size, device=engine.device
    )
    grown, fresh = list(text), text
    with one_thread(), torch.inference_mode():
        sequence = engine.open(max_length=end, max_pending=0)
        try:
            while len(grown) < end:
                group = RowGroup(sequence=sequence, tokens=fresh, logits="last", commit=True)
                logits = engine.forward([group]).of(0)[0]
                token = sampler.draw(logits, position=Position(len(grown)))
                sampler.append_output((token,))
                grown.append(token)
                fresh = (token,)
                if token in tokenizer.stop_tokens:
                    break
        finally:
            engine.close(sequence)
    return tuple(grown[len(text) :])
