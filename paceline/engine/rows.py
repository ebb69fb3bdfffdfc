"""What goes into a step of the engine and what comes out.

Shape suffixes: L = rows whose logits are wanted, in order of the groups; V = vocabulary of the model; W = those of its
tokens whose logits are computed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from paceline.tokens import TokenId

if TYPE_CHECKING:
    from torch import Tensor

    from paceline.engine.sequence import CacheSequence

COMMITTED_END = -1
"""As a parent: the row hangs off the last committed token."""

WantedLogits = Literal["all", "last", "none"]


@dataclass(frozen=True, slots=True, kw_only=True)
class RowGroup:
    """Rows of one sequence for one step.

    A row sees the committed text, its ancestors among the pending rows, and itself. Its position is the committed
    length plus its depth (0 for a child of the committed end).
    """

    sequence: CacheSequence
    tokens: Sequence[TokenId]
    """One token per row; at least one."""
    parents: Sequence[int] | None = None
    """Pending index of each row's parent, or -1 for the committed end. Rows of this group get the next pending
    indices in order, so a row may name an earlier row of its own group. None: a chain off the committed end."""
    logits: WantedLogits = "all"
    """The rows whose logits are computed."""
    commit: bool = False
    """Make the rows committed text at once, as prefill does: a chain, and no other row may be pending."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SomeTokens:
    """Tokens whose logits are computed; those of all others are -inf, so nobody draws them."""

    ids: Tensor
    """[W], ascending."""
    vocabulary_size: int
    """V, of the model."""

    def whole(self, logits: Tensor) -> Tensor:
        """Logits [..., V] from those of these tokens, [..., W]."""
        shape = (*logits.shape[:-1], self.vocabulary_size)
        return logits.new_full(shape, float("-inf")).index_copy_(len(shape) - 1, self.ids, logits)


@dataclass(frozen=True, slots=True, kw_only=True)
class Logits:
    """Logits of one step, in float32 on the model's device; valid for as long as they are held."""

    values: Tensor
    """[L, V]; [L, W] where the engine computes those of some tokens only."""
    offsets: tuple[int, ...]
    """Group i owns rows offsets[i] to offsets[i + 1]."""
    some: SomeTokens | None = None
    """The tokens that `values` has columns of; None: all."""
    hidden: Tensor | None = None
    """What the output matrix made each row of `values` from, [L, hidden width], in the model's type; None where that is not known."""

    def of(self, group: int) -> Tensor:
        """The logits of a group's rows, [rows, V]: all of them, one, or none, as the group asked."""
        values = self.known_of(group)
        return values if self.some is None else self.some.whole(values)

    def known_of(self, group: int) -> Tensor:
        """The same without the tokens whose logits are not computed: columns of `values`."""
        return self.values[self.offsets[group] : self.offsets[group + 1]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryStats:
    """Bytes of the cache. reserved + shared never exceeds budget."""

    reserved: int
    """Buffers of open sequences, whether written or not."""
    used: int
    """Rows that hold something, in buffers and shared segments."""
    shared: int
    """Prefix segments that outlive the sequence that made them."""
    budget: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSplit:
    """Where the time of all steps so far went, in ns of the calling thread. On CUDA: time to launch, not to run."""

    num_steps: int = 0
    num_rows: int = 0
    plan_ns: int = 0
    """Choosing slots, building masks and index tensors."""
    attention_ns: int = 0
    head_ns: int = 0
    """The matrix that turns hidden states into logits, and the cast to float32."""
    linear_ns: int = 0
    """All else in the model: embeddings, projections, feed-forward, norms."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkCounters:
    """Rows of keys and values that were written or moved, all layers counted as one."""

    rows_written: int = 0
    rows_moved: int = 0
    """Moved by commits; at most the length of the path and of `keep`."""
    rows_copied: int = 0
    """Copied when a closing sequence left its text to the prefix cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Memory of an engine and who may share in it."""

    memory_bytes: int = 4 << 30
    """Budget for keys and values of sequences and prefix cache together."""
    sharing: Literal["tenant", "all", "none"] = "tenant"
    """Whose prefixes are shared. tenant: sessions of one named tenant among themselves, sessions without a name not
    at all. all: everybody's; a session can then learn from its speed that somebody had the same prefix."""
    copies: bool = False
    """Copy what is shared into the sequence's own rows when it opens. Takes memory, and time once, and nobody waits for a prefix
    that another sequence computes; but each step attends to one piece of text, which for a small model is a fifth faster."""
