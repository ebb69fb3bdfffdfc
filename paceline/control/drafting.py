"""How far ahead to draft: a pure function of what was measured, used by the edge's own controller and by the planner.

With run-ahead the edge never waits for an answer, so nothing is counted in rounds. Two things bound a useful length:

 - *Cover.* A drafted token reaches the verifier half a round trip after it was made, waits for the step under way, is
   compared in its own step, and the edge hears of it half a round trip later. Until then it counts as drafted ahead. So
   a chain that never pauses holds

       (rtt + jitter + 2 steps) / time per token

   tokens. Time per token is the slower of what the edge drafts (`draft_s`) and what the verifier commits:
   step / expected tokens, where (1 - a^(n + 1)) / (1 - a) tokens are expected of a step to which n = step / draft_s
   drafts have come (Leviathan et al., arXiv 2211.17192, equation 1). More than that is never in flight.
 - *Run.* The k-th token ahead is of use with probability a^k. It may save one step and always costs a row of one, so it
   is worth its cost while a^k >= `WORTH`: up to ln(WORTH) / ln(a). The mean run 1 / (1 - a) is the same rule for a
   cost of 1 / e of a step, which no batch of rows comes near.

`docs/planning.md` derives both, compares them with an event simulation and says where they are wrong.
"""

import math
from dataclasses import dataclass, fields

from paceline.control.messages import EdgeGauges
from paceline.errors import LocalProtocolError

WORTH = 0.1
"""Least chance of being used at which a token is drafted: what a draft row is taken to cost, as a part of a step. In
simulation with rows of 3 % of a step, 0.37 loses another 3 % of the speed at a mean, and 0.05 gains 0.4 % for 4 % more drafts."""

PRIOR_ACCEPTANCE = 0.8
"""Taken for the acceptance probability before anything was judged; small drafters of a target's family reach it."""

PRIOR_JUDGED = 10
"""How many judged tokens the prior weighs: after three times as many the measurement rules."""

STEP_MOST = 2
"""Most tokens that one decision moves the length by."""

BAND_COVER = 0.05
"""The length stays while the wanted one is off by no more than this part of it, if the cover decides. Times are known
well, and a move costs nothing."""

BAND_LEAST = 0.5
"""The length stays while the wanted one, not rounded, is nearer than this many tokens, whatever decides. Half a token is
enough against flapping: since lengths are rounded up, there is half a token between what moves up and what moves back."""

BAND_RUN = 0.2
"""The same if the run decides. It rests on a count: 200 judged tokens leave the run uncertain by about this much."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known of a link, a drafter and a verifier. 0 stands for what is not known yet.

    Raises:
        LocalProtocolError: a value is negative, not finite, or no probability.
    """

    rtt_s: float
    jitter_s: float
    draft_s: float
    """Time of the drafter for one token."""
    step_s: float
    """Time of one step of the verifier."""
    acceptance_probability: float
    """Accepted / judged over the recent past."""
    num_judged: float
    """How many judged tokens it rests on."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name in _MEASURED:
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise LocalProtocolError(
                    f"{name}: got {value}, expected a finite number of at least 0"
                )
        if self.acceptance_probability > 1.0:
            raise LocalProtocolError(
                f"acceptance_probability: got {self.acceptance_probability}, expected at most 1"
            )


_MEASURED = tuple(item.name for item in fields(Measured))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a length and a window may be.

    Raises:
        LocalProtocolError: no length fits.
    """

    least: int = 1
    """A length of 0 would measure nothing and so never rise again: below 1 it counts as 1, unless `most` is 0."""
    most: int = 64
    window_most: int = 128

    def __post_init__(self) -> None:
        """Check every field."""
        if not 0 <= self.least <= max(1, self.most) or self.most < 0 or self.window_most < 1:
            raise LocalProtocolError(
                f"least, most, window_most: got {self.least}, {self.most}, {self.window_most}, "
                "expected 0 <= least <= most and a window of at least 1"
            )

    @property
    def longest(self) -> int:
        """The longest length that the window holds as well."""
        return min(self.most, self.window_most)

    @property
    def shortest(self) -> int:
        """The shortest length that still measures."""
        return min(max(1, self.least), self.longest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafting:
    """How far ahead an edge drafts."""

    draft_length: int
    """How many tokens deep to draft beyond the committed text."""
    window: int
    """Most drafted tokens in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Want:
    """The length that the formula gives, and what it came from."""

    length: float
    """Not rounded, within the bounds."""
    cover: float
    run: float
    """How many tokens ahead the chance of being used falls to WORTH; may be infinite."""
    token_s: float
    """Time per token of a chain that does not pause."""
    acceptance: float
    """After shrinking to the prior."""

    @property
    def is_cut(self) -> bool:
        """The run decides, not the cover."""
        return self.run < self.cover


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How far ahead to draft from now on, and why."""

    drafting: Drafting
    wanted: int
    """The length before hysteresis."""
    before: int
    """The length until now."""
    measured: Measured
    bounds: Bounds
    want: Want | None
    """None if too little is known."""

    @property
    def sentence(self) -> str:
        """One line for people, ASCII, at most 480 characters. Written when it is read: most decisions change nothing."""
        return _sentence(self)


def choose(measured: Measured, *, current: Drafting, bounds: Bounds) -> Decision:
    """Return how far to draft from here on: at most STEP_MOST away from the current length, which it keeps in doubt.

    A current length out of bounds is brought to them at once.
    """
    start = min(max(current.draft_length, bounds.shortest), bounds.longest)
    want, length, target = None, start, start
    if measured.rtt_s and measured.draft_s:
        want = wanted(measured, bounds)
        target = _up(want.length)
        off = abs(want.length - start)
        if off >= BAND_LEAST and off > (BAND_RUN if want.is_cut else BAND_COVER) * start:
            length += max(-STEP_MOST, min(STEP_MOST, target - start))
    return Decision(
        drafting=Drafting(draft_length=length, window=window_for(length, bounds)),
        wanted=target,
        before=current.draft_length,
        measured=measured,
        bounds=bounds,
        want=want,
    )


def measured_from(gauges: EdgeGauges) -> Measured:
    """Return what an edge told of itself, as `choose` takes it. A probability above 1, which is a lie, counts as 1."""
    return Measured(
        rtt_s=gauges.rtt_s,
        jitter_s=gauges.rtt_jitter_s,
        draft_s=gauges.draft_s,
        step_s=gauges.step_s,
        acceptance_probability=min(1.0, gauges.acceptance_probability),
        num_judged=gauges.num_judged,
    )


def wanted(measured: Measured, bounds: Bounds) -> Want:
    """Return what the formula gives. `rtt_s` and `draft_s` are known; an unknown step counts as none.

    Never falls when `rtt_s` or `jitter_s` grows.
    """
    acceptance = shrunk(measured)
    per_step = expected_tokens(acceptance, measured.step_s / measured.draft_s)
    token_s = max(measured.draft_s, measured.step_s / per_step)
    cover = (measured.rtt_s + measured.jitter_s + 2.0 * measured.step_s) / token_s
    run = math.inf if acceptance >= 1.0 else math.log(WORTH) / math.log(acceptance)
    length = min(max(min(cover, run), bounds.shortest), bounds.longest)
    return Want(length=length, cover=cover, run=run, token_s=token_s, acceptance=acceptance)


def shrunk(measured: Measured) -> float:
    """Return the acceptance probability, drawn to the prior while little was judged; above 0."""
    accepted = measured.acceptance_probability * measured.num_judged
    prior = PRIOR_ACCEPTANCE * PRIOR_JUDGED
    return (accepted + prior) / (measured.num_judged + PRIOR_JUDGED)


def expected_tokens(acceptance: float, num_drafts: float) -> float:
    """Return how many tokens a step commits that has `num_drafts` drafts of a chain (arXiv 2211.17192, equation 1)."""
    if acceptance >= 1.0:
        return num_drafts + 1.0
    # Through expm1: the plain difference of powers loses everything for an acceptance next to 1.
    miss = -math.expm1((num_drafts + 1.0) * math.log(acceptance))
    return miss / (1.0 - acceptance)


def window_for(draft_length: int, bounds: Bounds) -> int:
    """Return the window that never holds a chain of this length back.

    A chain alone has at most `draft_length` names. When one is contradicted, the edge starts the next at once, while the
    whole old one may still be under way to the verifier, which frees its names when it hears the new base: two chains.
    """
    return max(1, min(2 * draft_length, bounds.window_most))


def _sentence(decision: Decision) -> str:
    measured, want, bounds = decision.measured, decision.want, decision.bounds
    length, before = decision.drafting.draft_length, decision.before
    if bounds.longest == 0:
        return "draft nothing: 0 tokens is the most allowed here"
    if want is None:
        names = {"round trip": measured.rtt_s, "drafting time": measured.draft_s}
        unknown = " and the ".join(name for name, value in names.items() if not value)
        return f"draft {_tokens(length)} ahead: kept, the {unknown} is not known yet"
    cover = (
        f"{_count(want.cover)} cover {_ms(measured.rtt_s)} round trip, {_ms(measured.jitter_s)} jitter "
        f"and two {_ms(measured.step_s)} steps at {_ms(want.token_s)} per token"
    )
    run = (
        f"at {_percent(want.acceptance)} acceptance {_count(want.run)} keep a chance of "
        f"{_percent(WORTH)} to be used"
    )
    parts = [cover, run]
    binding = min(want.cover, want.run)
    if binding > bounds.longest:
        parts.append(f"{bounds.longest} is the most allowed")
    elif binding < bounds.shortest:
        parts.append(f"{bounds.shortest} is the least that measures")
    if measured.draft_s > measured.step_s > 0.0:
        parts.append("most will come late, the drafter is slower than a step")
    elif measured.step_s and want.length < 1.0 + measured.rtt_s / measured.step_s:
        alone = measured.rtt_s / measured.step_s
        parts.append(
            f"most will come late, the verifier alone is {_count(alone)} further in a round trip"
        )
    target = decision.wanted
    if length != before:
        rest = "" if length == target else f" on the way to {target}"
        parts.append(f"moved by {abs(length - before)} from {before}{rest}")
    elif length != target:
        parts.append(f"kept, {target} is too near to move")
    else:
        parts.append("kept")
    return f"draft {_tokens(length)} ahead: {'; '.join(parts)}"


def _up(value: float) -> int:
    """Round up, but not what is above a whole number by the error of the arithmetic alone."""
    return math.ceil(value - 1e-9)


def _tokens(count: int) -> str:
    return "1 token" if count == 1 else f"{count} tokens"


def _count(value: float) -> str:
    return str(_up(value)) if value < 10_000 else "over 10000"


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f} ms" if ms >= 10 else f"{ms:.2g} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"
