"""A real model as the target of a simulated world: what it is, and its plain decoding.

What it computes is in `simulator.virtual.computing`, which is imported when it is needed: PyTorch takes seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from paceline.engine.rows import EngineSettings
from paceline.engine.tokenizer import Tokenizer
from paceline.messages import ModelIdentity
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.virtual.target import GREEDY

if TYPE_CHECKING:
    from paceline.engine.engine import Engine


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
        from simulator.virtual.computing import run  # noqa: PLC0415 - PyTorch

        engine, tokenizer = self._loaded
        return run(engine, tokenizer, tuple(text), count=count, sampling=sampling)

    @property
    def _loaded(self) -> tuple[Engine, Tokenizer]:
        from simulator.virtual.computing import load  # noqa: PLC0415 - PyTorch

        return load(self.model)
