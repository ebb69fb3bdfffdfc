"""From timed steps to a cost: least squares on medians, no coefficient below 0. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from paceline.errors import ConfigError
from simulator.cost import LEVELS, FittedCost, Spread, StepCost, Work

_Array = NDArray[np.float64]

_TERMS: dict[str, Callable[[Work], int]] = {
    "fixed_s": lambda _: 1,
    "per_sequence_s": lambda work: work.num_sequences,
    "per_row_s": lambda work: work.num_rows,
    "per_prefill_row_s": lambda work: work.num_prefill_rows,
    "per_context_token_s": lambda work: work.num_context_tokens,
    "per_attended_s": lambda work: work.num_attended,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One kind of step, timed several times."""

    work: Work
    times_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        """The middle one of its times."""
        return float(np.median(self.times_s))


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What was timed; the fields are those of `FittedCost`."""

    name: str
    dtype: str
    threads: int
    left_out: float


def fit(subject: Subject, samples: Sequence[Sample]) -> FittedCost:
    """Return the cost that fits best: the sum of squares of predicted / median - 1 is the least there is.

    Relative, so that steps of one row count as much as steps of a hundred.

    Raises:
        ConfigError: there are fewer kinds of step than coefficients to tell apart.
    """
    medians = np.array([sample.median_s for sample in samples])
    columns = {
        name: np.array([float(term(sample.work)) for sample in samples])
        for name, term in _TERMS.items()
    }
    # What never occurs has no price; what is the same in every step is part of the fixed one.
    told = {
        name: column
        for name, column in columns.items()
        if name == "fixed_s" or (len(samples) and np.ptp(column) > 0)
    }
    if len(samples) < len(told):
        raise ConfigError(
            f"{subject.name}: {len(samples)} kinds of step were timed, at least {len(told)} are needed for as many "
            "coefficients"
        )
    matrix = np.stack(list(told.values()), axis=1)
    found = _nonnegative(matrix / medians[:, None])
    cost = StepCost(**({"per_row_s": 0.0} | dict(zip(told, found.tolist(), strict=True))))
    predicted = matrix @ found
    errors = np.abs(predicted / medians - 1)
    unexplained = float(np.square(predicted - medians).sum())
    total = float(np.square(medians - medians.mean()).sum())
    return FittedCost(
        name=subject.name,
        dtype=subject.dtype,
        threads=subject.threads,
        cost=cost,
        spread=_spread(samples),
        median_error=float(np.median(errors)),
        worst_error=float(errors.max()),
        r_squared=1 - unexplained / total if total > 0 else 1.0,
        num_steps=sum(len(sample.times_s) for sample in samples),
        left_out=subject.left_out,
    )


def _nonnegative(matrix: _Array) -> _Array:
    """Return x >= 0 with the least |matrix x - 1|; exact, by trying every set of columns that may be above 0."""
    count = matrix.shape[1]
    scale = np.abs(matrix).max(axis=0)
    scaled, goal = matrix / scale, np.ones(len(matrix))
    best, least = np.zeros(count), float("inf")
    for size in range(1, count + 1):
        for chosen in combinations(range(count), size):
            part = np.linalg.lstsq(scaled[:, chosen], goal, rcond=None)[0]
            left = float(np.square(scaled[:, chosen] @ part - goal).sum())
            if part.min() >= 0 and left < least:
                best, least = np.zeros(count), left
                best[list(chosen)] = part
    solution: _Array = best / scale
    return solution


def _spread(samples: Sequence[Sample]) -> Spread:
    ratios = np.concatenate([np.array(sample.times_s) / sample.median_s for sample in samples])
    quantiles = np.quantile(ratios, LEVELS)
    return Spread(quantiles=tuple(float(value) for value in quantiles))
