"""What computing costs in virtual time: steps of a target and calls of a drafter are charged to the thread they run on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cloud.orders import StepOrder, StepTimes
from paceline.tokens import TokenId
from simulator.cost import Spread, StepCost, Work
from simulator.virtual.events import Tell
from simulator.virtual.machine import Occupation
from simulator.virtual.target import hashed

COMPARED = 64
"""Tokens at the end of a text that are compared one by one."""
PAUSE_S = 0.005
"""A machine that did nothing for so long has rested: it is not found where it was left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """How far a session's text is computed."""

    length: int
    """Committed tokens."""
    num_to_prefill: int
    """Of the prompt, at the end of the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepLimits:
    """What a step takes besides computing."""

    least_s: float = 0.0
    """It takes at least so long."""
    between_s: float = 0.0
    """What the program takes from the end of one to the beginning of the next."""
    rested_s: float = 0.0
    """It takes so much longer after a pause of at least `PAUSE_S`: others used the caches."""


class StepMeter:
    """Charges steps of a target.

    Args:
        cost: of a step.
        spread: how steps scatter.
        occupation: of the thread.
        seed: of the scatter.
        limits: what steps take besides.
        tell: told of every step, if anybody wants to know.
    """

    def __init__(
        self,
        *,
        cost: StepCost,
        spread: Spread,
        occupation: Occupation,
        seed: int,
        limits: StepLimits = StepLimits(),
        tell: Tell | None,
    ) -> None:
        self._cost = cost
        self._spread = spread
        self._occupation = occupation
        self._seed = seed
        self._limits = limits
        self._tell = tell
        self._ended_s = 0.0
        self.times = StepTimes()

    def charge(self, orders: Sequence[StepOrder], fills: Mapping[int, Fill]) -> tuple[int, int]:
        """Charge a step; return its nanoseconds and its rows.

        Args:
            orders: what it computes.
            fills: the sessions before it, by key.
        """
        work = _work(orders, fills)
        uniform = hashed(self._seed, self.times.num_steps, ()) / 2**32
        seconds = self._cost.seconds(work) * self._spread.factor(uniform)
        begins_s = self._occupation.begins_s
        if orders and begins_s - self._ended_s >= PAUSE_S:
            seconds += self._limits.rested_s
        took_s = self._occupation.spend(max(seconds, self._limits.least_s))
        step_ns = round(took_s * 1e9)
        if orders:
            between_s = self._occupation.spend(self._limits.between_s)
            self._ended_s = begins_s + took_s + between_s
        if self._tell is not None:
            self._tell(
                "step",
                sessions=tuple(order.key for order in orders),
                rows=work.num_rows,
                prefill_rows=work.num_prefill_rows,
                took_ns=step_ns,
            )
        num_rows = work.num_rows + work.num_prefill_rows
        self.times = self.times.plus(
            StepTimes(
                num_steps=1 if orders else 0,
                num_rows=num_rows,
                num_prefill_rows=work.num_prefill_rows,
                forward_ns=step_ns,
                total_ns=step_ns,
            )
        )
        return step_ns, num_rows


class DraftMeter:
    """Charges the calls of one generation's draft: every token it guesses is a forward pass.

    Args:
        cost: of a forward pass.
        spread: how calls scatter.
        occupation: of the thread.
        tell: told of every call that guesses, if anybody wants to know.
    """

    def __init__(
        self, *, cost: StepCost, spread: Spread, occupation: Occupation, tell: Tell | None
    ) -> None:
        self._cost = cost
        self._spread = spread
        self._occupation = occupation
        self._tell = tell
        self._known: tuple[TokenId, ...] = ()
        """The text that is in its cache."""
        self._num_calls = 0

    def prefilled(self, text: tuple[TokenId, ...], *, most: int) -> None:
        """Charge the computation of the next piece of `text`; its last token is never part of it.

        Args:
            text: prompt, output and guesses.
            most: tokens of a piece.
        """
        common = _common(self._known, text)
        num_new = min(most, len(text) - common - 1)
        if num_new <= 0:
            return
        work = Work().with_sequence(num_rows=num_new, context=common, prefill=True)
        self._spend(text, self._cost.seconds(work))
        self._known = text[: common + num_new]

    def guessed(
        self, text: tuple[TokenId, ...], tokens: Sequence[TokenId], *, num_guessed: int
    ) -> None:
        """Charge the passes that guessed; what is not in the cache is prefilled in the first.

        Args:
            text: prompt, output and guesses to go on from.
            tokens: new guesses. Without one there was a pass all the same.
            num_guessed: how many of the last tokens of `text` are guesses.
        """
        num_passes = max(1, len(tokens))
        common = _common(self._known, text)
        num_new = max(0, len(text) - common - 1)
        seconds = self._cost.seconds(
            Work(
                num_sequences=1,
                num_rows=1,
                num_prefill_rows=num_new,
                num_context_tokens=common,
                num_attended=(num_new + 1) * common,
            )
        )
        if num_passes > 1:
            seconds += (num_passes - 1) * self._cost.seconds(
                Work().with_sequence(num_rows=1, context=len(text))
            )
        took_s = self._spend(text, seconds)
        if self._tell is not None:
            self._tell(
                "drafted",
                position=len(text) - num_guessed,
                guessed=num_guessed,
                tokens=num_passes,
                begins_s=self._occupation.begins_s,
                took_ns=round(took_s * 1e9),
            )
        self._known = (*text, *tokens[:-1])  # the last one is never a row

    def _spend(self, text: tuple[TokenId, ...], seconds: float) -> float:
        self._num_calls += 1
        uniform = hashed(len(text), self._num_calls, text[-2:]) / 2**32
        return self._occupation.spend(seconds * self._spread.factor(uniform))


def _work(orders: Sequence[StepOrder], fills: Mapping[int, Fill]) -> Work:
    work = Work()
    for order in orders:
        fill = fills[order.key]
        if order.num_prefill:
            done = fill.length - fill.num_to_prefill
            work = work.with_sequence(num_rows=order.num_prefill, context=done, prefill=True)
        else:
            num_rows = 1 + len(order.drafts.tokens)
            work = work.with_sequence(num_rows=num_rows, context=fill.length)
    return work


def _common(known: tuple[TokenId, ...], text: tuple[TokenId, ...]) -> int:
    """Return how many tokens two texts have in common at their beginning."""
    shorter = min(len(known), len(text))
    begin = max(0, shorter - COMPARED)
    if known[:begin] != text[:begin]:
        begin = 0
    while begin < shorter and known[begin] == text[begin]:
        begin += 1
    return begin
