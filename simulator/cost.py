"""What computing takes in simulated time: a step of the target, a forward pass of a drafter.

Pure values. `paceline calibrate` measures them on a real machine; docs/calibration.md says how and how well they fit.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from paceline.errors import ConfigError

LEVELS = (0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99)
"""Parts of the steps of a kind that took at most so long; see `Spread`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What one step computes: sums over the sequences in it."""

    num_sequences: int = 0
    num_rows: int = 0
    """Rows with logits: roots and drafts at the verifier, leaves at the edge."""
    num_prefill_rows: int = 0
    """Rows of prompts, without logits."""
    num_context_tokens: int = 0
    """Committed tokens before the step: what is read of the cache."""
    num_attended: int = 0
    """Over all rows: committed tokens that the row attends to."""

    def with_sequence(self, *, num_rows: int, context: int, prefill: bool = False) -> Work:
        """Return the step with one sequence more.

        Args:
            num_rows: its rows.
            context: its committed tokens before the step.
            prefill: the rows are a prompt's.
        """
        return Work(
            num_sequences=self.num_sequences + 1,
            num_rows=self.num_rows + (0 if prefill else num_rows),
            num_prefill_rows=self.num_prefill_rows + (num_rows if prefill else 0),
            num_context_tokens=self.num_context_tokens + context,
            num_attended=self.num_attended + num_rows * context,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCost:
    """Time of a step as a linear function of its work. A step without rows takes no time.

    Raises:
        ConfigError: a coefficient is negative or not finite, or all of them are 0.
    """

    fixed_s: float
    per_row_s: float
    """For each row with logits."""
    per_sequence_s: float = 0.0
    """For each sequence, whatever its rows: attention is called once for each."""
    per_prefill_row_s: float = 0.0
    per_context_token_s: float = 0.0
    """For each committed token of each sequence."""
    per_attended_s: float = 0.0
    """For each pair of a row and a committed token that it attends to."""

    def __post_init__(self) -> None:
        """Check every field."""
        for item in fields(self):
            value = getattr(self, item.name)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise ConfigError(f"{item.name}: got {value!r}, expected a number of seconds")
            if not 0.0 <= value < math.inf:
                raise ConfigError(
                    f"{item.name}: got {value}, expected a finite number of at least 0"
                )
        if not any(getattr(self, item.name) for item in fields(self)):
            raise ConfigError("fixed_s, per_row_s ...: got 0 for all, expected a step to take time")

    def seconds(self, work: Work) -> float:
        """Return how long a step takes."""
        if not work.num_rows and not work.num_prefill_rows:
            return 0.0
        return (
            self.fixed_s
            + self.per_sequence_s * work.num_sequences
            + self.per_row_s * work.num_rows
            + self.per_prefill_row_s * work.num_prefill_rows
            + self.per_context_token_s * work.num_context_tokens
            + self.per_attended_s * work.num_attended
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """How times of one kind of step scatter: quantiles of measured / median at `LEVELS`, all kinds together.

    Raises:
        ConfigError: as many values as levels are needed, positive, finite, never falling.
    """

    quantiles: tuple[float, ...] = (1.0,) * len(LEVELS)

    def __post_init__(self) -> None:
        """Check the quantiles."""
        if len(self.quantiles) != len(LEVELS):
            raise ConfigError(
                f"spread: got {len(self.quantiles)} quantiles, expected {len(LEVELS)}, one for each of {LEVELS}"
            )
        if not all(0.0 < value < math.inf for value in self.quantiles):
            raise ConfigError(
                f"spread: got {self.quantiles}, expected finite numbers greater than 0"
            )
        if list(self.quantiles) != sorted(self.quantiles):
            raise ConfigError(f"spread: got {self.quantiles}, expected them in ascending order")

    def factor(self, uniform: float) -> float:
        """Return by what a time is to be multiplied, for a number drawn evenly from [0, 1).

        Between two levels the quantiles are joined by straight lines; beyond the outer ones they stay.
        """
        if uniform <= LEVELS[0]:
            return self.quantiles[0]
        for index in range(1, len(LEVELS)):
            if uniform <= LEVELS[index]:
                low, high = LEVELS[index - 1], LEVELS[index]
                below, above = self.quantiles[index - 1], self.quantiles[index]
                return below + (above - below) * (uniform - low) / (high - low)
        return self.quantiles[-1]


@dataclass(frozen=True, slots=True, kw_only=True)
class FittedCost:
    """A cost as it was measured, and how far to trust it."""

    name: str
    """The model, or the drafter."""
    dtype: str
    """Its arithmetic; empty where there is none."""
    threads: int
    cost: StepCost
    spread: Spread = Spread()
    between_s: float = 0.0
    """What the program of a verifier takes between two steps besides; 0 if it was not measured."""
    rested_s: float = 0.0
    """What a step takes longer after a pause, in which others used the caches; 0 if it was not measured."""
    median_error: float = 0.0
    """Median over the measured kinds of step of |predicted / measured - 1|."""
    worst_error: float = 0.0
    r_squared: float = 1.0
    """Of the seconds, over the kinds of step."""
    num_steps: int = 0
    """Timed in all."""
    left_out: float = 0.0
    """Part of the timed steps that do not count, because others had the processor."""

    def __post_init__(self) -> None:
        """Check every field.

        Raises:
            ConfigError: a field is out of its range; names it.
        """
        for field, least, most in (
            ("threads", 1, 4096),
            ("between_s", 0.0, math.inf),
            ("rested_s", 0.0, math.inf),
            ("median_error", 0.0, math.inf),
            ("worst_error", 0.0, math.inf),
            ("r_squared", -math.inf, 1.0),
            ("num_steps", 0, math.inf),
            ("left_out", 0.0, 1.0),
        ):
            value = getattr(self, field)
            if not isinstance(value, int | float) or not least <= value <= most:
                raise ConfigError(
                    f"{field}: got {value!r}, expected a number from {least} to {most}"
                )
        if not self.name:
            raise ConfigError("name: got an empty one, expected that of a model or a drafter")

    def seconds(self, work: Work, *, uniform: float | None = None) -> float:
        """Return how long a step takes, scattered as it was measured if `uniform` from [0, 1) is given."""
        seconds = self.cost.seconds(work)
        return seconds if uniform is None else seconds * self.spread.factor(uniform)
