"""Which kinds of step are timed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from paceline.errors import ConfigError

Advance = Callable[[], None]
"""Told of each of the steps that `StepGrid.num_turns` counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepGrid:
    """Which steps are timed.

    Raises:
        ConfigError: a field is out of its range.
    """

    max_context: int = 2048
    """Longest text; a quarter of it and 64 tokens are the others."""
    most_sequences: int = 8
    most_rows: int = 32
    rounds: int = 7
    """How often each kind of step is timed."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name, least, most in (
            ("max_context", 16, 1 << 20),
            ("most_sequences", 1, 64),
            ("most_rows", 1, 256),
            ("rounds", 1, 1000),
        ):
            if not least <= getattr(self, name) <= most:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected {least} to {most}")

    @property
    def num_turns(self) -> int:
        """How often `time_target` tells that it got on."""
        filled = sum(self.most_of(context) for context in self.contexts)
        return filled + self.rounds * (len(self.kinds) + 1)

    @property
    def contexts(self) -> tuple[int, ...]:
        """Lengths of text, ascending."""
        return tuple(sorted({min(64, self.max_context), self.max_context // 4, self.max_context}))

    @property
    def kinds(self) -> tuple[Kind, ...]:
        """All kinds of step but prefill; long texts in few sequences only, which bounds memory."""
        many = (1, 2, 4, 8, 16, 32, 64, 128, 256)
        return tuple(
            Kind(context=context, num_sequences=count, num_rows=rows)
            for context in self.contexts
            for count in self._counts(context)
            # One sequence alone shows how time goes with rows; with others beside it a few kinds are enough.
            for rows in (many if count == 1 else (1, 4, 8))
            if rows <= self.most_rows
        )

    def _counts(self, context: int) -> tuple[int, ...]:
        most_tokens = self.most_sequences * self.max_context // 2
        return tuple(
            count
            for count in (1, 2, 4, 8, 16, 32, 64)
            if count <= self.most_sequences and (count == 1 or count * context <= most_tokens)
        )

    def most_of(self, context: int) -> int:
        """Return how many sequences of a context there are."""
        return max(kind.num_sequences for kind in self.kinds if kind.context == context)


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Kind:
    """Steps of `num_sequences` sessions with `context` tokens and `num_rows` rows each, the root among them."""

    context: int
    num_sequences: int
    num_rows: int
