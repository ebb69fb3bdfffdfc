"""What a step of the target takes, learned from the steps there were. Pure: whoever ran a step tells what it took.

The rule
--------
A step takes

    fixed + per_session * sessions + per_row * rows + per_prefill_row * prefill rows
          + per_context_token * committed tokens of its sessions + per_attended * (row, committed token) pairs

These are the coefficients that `paceline calibrate` measures on an idle machine; here they are fitted while serving, by
least squares of what is predicted over what was measured, with three additions.

 *  *It forgets.* A step counts FADE as much with every newer one: machines get slower, texts get longer.
 *  *It doubts.* A step that is far off, as errors of such steps go, counts in proportion less (Huber's weights): a pause of
    the machine is no price of rows. Errors that stay become usual within some twenty steps, and are believed; and of work
    that is unlike all before, no error is a surprise.
 *  *It begins somewhere.* What the steps do not tell is taken from PRIOR, the proportions that most machines are near, at
    the scale of the steps that were seen. The prior never fades. So while all steps look alike, what is known about the
    price of rows fades to the prior, which is on the cheap side: rows are tried again, and the steps tell once more.

No coefficient is below 0.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

import numpy as np
from numpy.typing import NDArray

FADE = 0.99
"""What a step counts less with each newer one: a hundred steps are remembered."""

PRIOR = (1.0, 0.01, 0.01, 0.006, 5e-5, 3e-6)
"""Coefficients as parts of the fixed one, in the order of `StepCosts`: a small model on one core of a Xeon, rounded; a
large one on a GPU has rows of 0.5 to 1 %."""

WIDTH = 5.0
"""How far, times itself, a coefficient typically is from the prior."""

USUAL_ERROR = 0.03
"""What times of steps of one kind scatter: the weight of a step against the prior."""

DOUBT_BEYOND = 3.0
"""Errors beyond so many usual ones count less."""

SOLVED_EACH = 4
"""Steps are learned from so many at a time, since a hundred are remembered and one changes little; only the first ones sooner, when as
many have come as were known before."""

_LEARNING = 0.1
_ERROR_LEAST = 0.005
_ERROR_FIRST = 0.1
_PREDICTED_LEAST = 0.01

_Array = NDArray[np.float64]

_PRIOR: _Array = np.array(PRIOR)
_ONE: _Array = np.eye(len(PRIOR))


@dataclass(frozen=True, slots=True, kw_only=True)
class StepWork:
    """What a step computes."""

    num_sessions: int = 0
    num_rows: int = 0
    """Roots and drafts."""
    num_prefill_rows: int = 0
    num_context_tokens: int = 0
    """Committed tokens of its sessions before the step: what is read of the cache."""
    num_attended: int = 0
    """Over all rows: committed tokens that the row attends to."""

    @property
    def terms(self) -> tuple[int, int, int, int, int]:
        """Return what the coefficients after the fixed one are multiplied by, in the order of `StepCosts`."""
        return (
            self.num_sessions,
            self.num_rows,
            self.num_prefill_rows,
            self.num_context_tokens,
            self.num_attended,
        )

    def with_rows(self, counts: Sequence[int], *, contexts: Sequence[int]) -> "StepWork":
        """Return the step with more sessions in it that verify.

        Args:
            counts: of each, its root and drafts.
            contexts: of each, its committed tokens.
        """
        return self._with(counts, contexts, num_prefill_rows=0, num_rows=sum(counts))

    def with_prefill(self, counts: Sequence[int], *, contexts: Sequence[int]) -> "StepWork":
        """Return the step with more sessions in it whose prompts are computed.

        Args:
            counts: of each, rows of the prompt.
            contexts: of each, tokens of it that are in the cache.
        """
        return self._with(counts, contexts, num_prefill_rows=sum(counts), num_rows=0)

    def _with(
        self,
        counts: Sequence[int],
        contexts: Sequence[int],
        *,
        num_prefill_rows: int,
        num_rows: int,
    ) -> "StepWork":
        return StepWork(
            num_sessions=self.num_sessions + len(counts),
            num_rows=self.num_rows + num_rows,
            num_prefill_rows=self.num_prefill_rows + num_prefill_rows,
            num_context_tokens=self.num_context_tokens + sum(contexts),
            num_attended=self.num_attended + sum(map(mul, counts, contexts)),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCosts:
    """Time of a step as a function of its work; all in seconds."""

    fixed_s: float
    per_session_s: float = 0.0
    """For each session in the step, whatever its rows."""
    per_row_s: float = 0.0
    """For each root and draft."""
    per_prefill_row_s: float = 0.0
    per_context_token_s: float = 0.0
    """For each committed token of each session."""
    per_attended_s: float = 0.0
    """For each pair of a row and a committed token that it attends to."""

    @classmethod
    def of(cls, coefficients: Sequence[float]) -> "StepCosts":
        """Return them from numbers in the order of the fields."""
        return cls(**dict(zip(cls.__slots__, coefficients, strict=True)))

    def seconds(self, work: StepWork) -> float:
        """Return what a step takes."""
        return (
            self.fixed_s
            + self.per_session_s * work.num_sessions
            + self.per_row_s * work.num_rows
            + self.per_prefill_row_s * work.num_prefill_rows
            + self.per_context_token_s * work.num_context_tokens
            + self.per_attended_s * work.num_attended
        )

    def row_s(self, context: int) -> float:
        """Return by how much a step gets longer with one more draft row of a session that is in it.

        Args:
            context: committed tokens of the session.
        """
        return self.per_row_s + self.per_attended_s * context


class StepCostFit:
    """Takes every step and tells what steps take."""

    def __init__(self) -> None:
        count = len(PRIOR)
        self._moments: _Array = np.zeros((count, count))
        self._sums: _Array = np.zeros(count)
        self._spread: _Array = np.zeros((count, count))
        self._coefficients: _Array = np.zeros(count)
        self._recent: list[tuple[float, ...]] = []
        """Steps to learn from: what they computed, and the seconds they took."""
        self._usual_error = _ERROR_FIRST
        self._costs: StepCosts | None = None
        self._num_steps = 0
        """Learned from."""

    @property
    def costs(self) -> StepCosts | None:
        """What steps take now; None before the first."""
        return self._costs

    def add(self, work: StepWork, took_s: float) -> None:
        """Take a step; one that took no time, or computed nothing, tells nothing."""
        if took_s <= 0.0 or work.num_sessions == 0:
            return
        self._recent.append((1.0, *work.terms, took_s))
        if len(self._recent) >= min(SOLVED_EACH, max(1, self._num_steps)):
            self._take()

    def _take(self) -> None:
        """Learn from the recent steps."""
        recent = np.array(self._recent)
        self._num_steps += len(recent)
        self._recent.clear()
        work, took_s = recent[:, :-1], recent[:, -1]
        predicted_s = took_s
        if self._costs is not None:
            predicted_s = np.maximum(work @ self._coefficients, took_s * _PREDICTED_LEAST)
        # In parts of what is predicted: a step of one row tells as much as one of a hundred.
        terms, measured = work / predicted_s[:, None], took_s / predicted_s
        unknown = USUAL_ERROR**2 * ((terms @ self._spread) * terms).sum(axis=1)
        pairs = zip(np.abs(measured - 1.0).tolist(), unknown.tolist(), strict=True)
        weights = np.array([self._weight(error, unknown=unsure) for error, unsure in pairs])
        weights *= FADE ** np.arange(len(weights) - 1, -1, -1)
        faded = FADE ** len(weights)
        self._moments = self._moments * faded + (weights[:, None] * terms).T @ terms
        self._sums = self._sums * faded + (weights * measured) @ terms
        self._coefficients, self._spread = _solved(self._moments, self._sums)
        self._costs = StepCosts.of(self._coefficients.tolist())

    def _weight(self, error: float, *, unknown: float) -> float:
        """Return what a step counts, and learn what errors are usual.

        Args:
            error: of the prediction, as a part of it.
            unknown: variance of it that comes from not knowing the coefficients.
        """
        limit = DOUBT_BEYOND * (self._usual_error**2 + unknown) ** 0.5
        usual = min(error, DOUBT_BEYOND * self._usual_error)
        learned = self._usual_error + _LEARNING * (usual - self._usual_error)
        self._usual_error = max(_ERROR_LEAST, learned)
        return min(1.0, limit / error) if error > 0.0 else 1.0


def _solved(moments: _Array, sums: _Array) -> tuple[_Array, _Array]:
    """Return the likeliest coefficients, none below 0, from sums over steps and the prior; and how unsure they are.

    That is their covariance as a multiple of the variance of an error.
    """
    # The prior's scale is that at which it fits the steps best.
    prior = _PRIOR * (float(_PRIOR @ sums) / float(_PRIOR @ moments @ _PRIOR))
    trust = np.square(USUAL_ERROR / (WIDTH * prior))
    matrix, goal = moments + _ONE * trust, sums + trust * prior
    # The inverse as well, in one go.
    solved = np.linalg.solve(matrix, np.column_stack((goal, _ONE)))
    found, used = solved[:, 0], list(range(len(prior)))
    while found.min() < 0.0:
        used.remove(int(found.argmin()))
        found = np.zeros(len(prior))
        found[used] = np.linalg.solve(matrix[np.ix_(used, used)], goal[used])
    return np.asarray(found, dtype=np.float64), np.asarray(solved[:, 1:], dtype=np.float64)
