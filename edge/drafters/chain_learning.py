"""What the drafters of a hierarchy take and are worth to each other, learned from each pass; pure, nothing reads a clock.

Everything that was seen fades with each pass of the last drafter, and what is faded out gives way to hope: a drafter that costs
nothing and is mostly right. So one that was left out is tried again after a while, more often the less it would cost to be
wrong, and no judgement lasts for ever. Every PROBE-th pass of a drafter is one without help, or a pass of one row and one of
many could never be told apart.
"""

from __future__ import annotations

from edge.drafters.length_recursion import Handover, PassCost, Rung, best_chain

MOST_AT_ONCE = 8
"""Most tokens of another drafter that one looks at in a pass."""
HORIZON = 64
"""Passes of the last drafter after which the weight of an older one has fallen to 1/e."""
PROBE = 24
"""A drafter that gets help does without it once in so many passes."""
HOPED = 0.8
"""How often a drafter is right of which nothing is known."""
DOUBT = 2.0
"""So many guesses are imagined that were right as often as is hoped."""
COST_DOUBT = 0.25
"""So many passes are imagined that cost nothing."""
SLOPE_DOUBT = 0.25
"""So little do passes of different lengths tell for which more tokens take no longer; in squared tokens."""
OUTLIER = 3.0
"""A pass counts as at most so many times what was expected: the processor may have been elsewhere."""
ENOUGH = 4.0
"""Passes after which something is expected."""


class ChainBook:
    """What is known, and what follows from it.

    Args:
        looks: of each drafter, cheapest first, whether it can look at tokens of those before it.
    """

    def __init__(self, looks: tuple[bool, ...]) -> None:
        self._looks = looks
        self._costs = [_CostMeter() for _ in looks]
        self._pairs = {
            (below, above): _PairMeter()
            for above, can_look in enumerate(looks)
            if can_look
            for below in range(above)
        }
        self._num_passes = [0] * len(looks)

    def plan(self, drafter: int) -> Rung | None:
        """Return whose tokens a drafter's next pass should look at and how many; None: nobody's.

        Of the rung, `drafter` is who offers, and `length` how much: little where little is known, so that a trial is cheap.
        """
        if (self._num_passes[drafter] + 1) % PROBE == 0:
            return None
        costs = [meter.cost for meter in self._costs]
        handovers = {pair: meter.handover for pair, meter in self._pairs.items()}
        rungs = best_chain(costs, handovers, last=drafter, most=MOST_AT_ONCE).rungs
        if len(rungs) == 1:
            return None
        below = rungs[-2].drafter
        length = min(rungs[-1].length, 1 + int(2 * self._pairs[below, drafter].judged))
        return Rung(drafter=below, length=length)

    def saw_call(self, drafter: int, *, num_tokens: int, took_s: float) -> None:
        """Note a call of a drafter that looks at nobody's tokens, which gave so many. To give none costs like one."""
        weight = max(1, num_tokens)
        self._costs[drafter].add(looked_at=0, took_s=took_s / weight, weight=weight)

    def saw_pass(self, drafter: int, *, looked_at: int, took_s: float) -> None:
        """Note a pass that looked at so many tokens of others."""
        self._num_passes[drafter] += 1
        self._costs[drafter].add(looked_at=looked_at, took_s=took_s)
        if drafter == len(self._looks) - 1:
            self._fade()

    def saw_offer(self, below: int, above: int, *, offered: int, kept: int) -> None:
        """Note what one drafter had for a pass of another, and how much of it that would have drawn too."""
        self._pairs[below, above].add(offered=offered, kept=kept)

    def _fade(self) -> None:
        factor = 1.0 - 1.0 / HORIZON
        for cost in self._costs:
            cost.fade(factor)
        for pair in self._pairs.values():
            pair.fade(factor)


class _PairMeter:
    """How often one drafter's tokens are what another one draws."""

    __slots__ = ("_asked", "_kept", "_offered", "judged")

    def __init__(self) -> None:
        self._asked = self._offered = self._kept = 0.0
        self.judged = 0.0
        """Tokens of the recent past of which it was seen whether they are right."""

    @property
    def handover(self) -> Handover:
        acceptance = (self._kept + DOUBT * HOPED) / (self.judged + DOUBT)
        return Handover(
            acceptance=acceptance, share=(self._offered + DOUBT) / (self._asked + DOUBT)
        )

    def add(self, *, offered: int, kept: int) -> None:
        self._asked += 1
        if offered:
            self._offered += 1
            self.judged += min(kept + 1, offered)
            self._kept += kept

    def fade(self, factor: float) -> None:
        self._asked *= factor
        self._offered *= factor
        self.judged *= factor
        self._kept *= factor


class _CostMeter:
    """Time of a pass against the tokens that it looked at: a line of least squares with a slope of 0 or more."""

    __slots__ = ("_looked", "_product", "_square", "_time_s", "_weight")

    def __init__(self) -> None:
        self._weight = self._looked = self._square = self._time_s = self._product = 0.0

    @property
    def cost(self) -> PassCost:
        base_s, slope_s = self._line()
        trust = self._weight / (self._weight + COST_DOUBT)
        return PassCost(base_s=trust * base_s, per_token_s=trust * slope_s)

    def add(self, *, looked_at: int, took_s: float, weight: float = 1.0) -> None:
        if self._weight >= ENOUGH:
            base_s, slope_s = self._line()
            # The mean, too: a line that is steep for once would let nothing through at its low end.
            expected_s = max(base_s + slope_s * looked_at, self._time_s / self._weight)
            took_s = min(took_s, OUTLIER * expected_s) if expected_s else took_s
        self._weight += weight
        self._looked += weight * looked_at
        self._square += weight * looked_at**2
        self._time_s += weight * took_s
        self._product += weight * looked_at * took_s

    def fade(self, factor: float) -> None:
        self._weight *= factor
        self._looked *= factor
        self._square *= factor
        self._time_s *= factor
        self._product *= factor

    def _line(self) -> tuple[float, float]:
        """Return time without tokens to look at, and time for each."""
        if not self._weight:
            return 0.0, 0.0
        looked, time_s = self._looked / self._weight, self._time_s / self._weight
        spread = self._square - self._looked * looked
        together = self._product - self._looked * time_s
        # A slope of which little is known any more becomes none.
        slope_s = max(0.0, together / (spread + SLOPE_DOUBT))
        # No time is negative, whatever noise says.
        slope_s = min(slope_s, time_s / looked) if looked else 0.0
        return time_s - slope_s * looked, slope_s
