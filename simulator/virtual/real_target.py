"""A real model as the target of a simulated world: what it is, and its plain decoding.

A world computes where a real program would hand work to a thread: in the loop's own thread, at the moment of the call, and
lets virtual time pass for it. PyTorch is held to one thread meanwhile, so that sums are added in one order everywhere.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch

from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.rows import EngineSettings, RowGroup
from paceline.engine.tokenizer import Tokenizer
from paceline.messages import ModelIdentity
from paceline.sampling.coupled import Sampler
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId
from simulator.virtual.target import GREEDY

MOST_LOADED = 4
"""Models that a process keeps; loading one takes up to seconds."""


@dataclass(frozen=True, kw_only=True)
class RealTarget:
    """A model that computes, in float32. Its tokens are drawn as a verifier draws them, at any temperature.

    Every world loads it once; every verifier has a cache of its own.
    """

    model: str
    """A folder, a GGUF file, a hub name or a short name, as for `paceline cloud --target`. Tiny ones are meant: a step
    of a real one takes as long as it takes."""
    sharing: Literal["tenant", "all", "none"] = "tenant"
    """Whose prefixes are shared; see `EngineSettings`."""

    @property
    def identity(self) -> ModelIdentity:
        """See `Target`.

        Raises:
            ConfigError: no such model.
            ModelError: it cannot be loaded.
        """
        return self._loaded[0].identity

    @property
    def tokenizer(self) -> Tokenizer:
        """See `Target`; raises as `identity`."""
        return self._loaded[1]

    def engine(self, *, most_tokens: int) -> Engine:
        """Return a new engine with an empty cache.

        Args:
            most_tokens: of all sessions together; what the cache has room for.
        """
        engine = self._loaded[0]
        memory_bytes = most_tokens * engine.row_bytes
        return engine.twin(EngineSettings(memory_bytes=memory_bytes, sharing=self.sharing))

    def run(
        self, text: Sequence[TokenId], count: int, *, sampling: SamplingSettings = GREEDY
    ) -> tuple[TokenId, ...]:
        """See `Target`: one row and one draw after the other, without a session."""
        engine, tokenizer = self._loaded
        end = min(len(text) + count, engine.identity.context_length)
        sampler = Sampler(
            sampling,
            vocabulary_size=engine.identity.vocabulary_size,
            device=engine.device,
        )
        grown, fresh = list(text), tuple(text)
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

    @property
    def _loaded(self) -> tuple[Engine, Tokenizer]:
        return _load(self.model)


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
def _load(model: str) -> tuple[Engine, Tokenizer]:
    source = resolve(model)
    with one_thread():
        tokenizer = load_tokenizer(source)
        return load_model(source, dtype="float32", tokenizer=tokenizer), tokenizer
