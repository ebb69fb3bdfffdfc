"""What a client measures while it generates: round trips, acceptance, times of drafter and verifier. Pure."""

from collections.abc import Collection
from dataclasses import dataclass, field

from paceline.control.marginal import Measured
from paceline.control.measuring import (
    STEP_JITTERS,
    STEP_SHARE,
    AcceptanceMeter,
    RttEstimator,
)
from paceline.control.steps import StepMeter
from paceline.messages import Commit
from paceline.settings import Address

RECENT_STEPS = 32
"""Commits after which the weight of an older step time has fallen to 1/e: about a second of work."""

RECENT_DRAFTS = 32
"""The same for calls of the drafter."""


class RecentRatio:
    """A ratio of sums that fade with every entry, so that it follows what changes and no entry counts for more than its part.

    Args:
        horizon: entries after which the weight of an older one has fallen to 1/e; at least 2.
    """

    def __init__(self, *, horizon: int) -> None:
        self._keep = 1.0 - 1.0 / horizon
        self._part = 0.0
        self._whole = 0.0

    def add(self, part: float, whole: float) -> None:
        """Take one entry; neither is negative."""
        self._part = self._part * self._keep + part
        self._whole = self._whole * self._keep + whole

    @property
    def value(self) -> float:
        """The ratio; 0 before the first entry."""
        return self._part / self._whole if self._whole else 0.0


@dataclass(slots=True)
class _Verifier:
    """What is known of one verifier."""

    rtt: RttEstimator = field(default_factory=RttEstimator)
    step_s: RecentRatio = field(default_factory=lambda: RecentRatio(horizon=RECENT_STEPS))
    steps: StepMeter = field(default_factory=StepMeter)
    asked_s: float | None = None


class Meter:
    """Measurements by verifier, and of the drafter, over all generations. Grows with the verifiers the client was told of."""

    def __init__(self) -> None:
        self._verifiers: dict[Address, _Verifier] = {}
        self._draft_s = RecentRatio(horizon=RECENT_DRAFTS)
        self._call_s = RecentRatio(horizon=RECENT_DRAFTS)
        self._acceptance = AcceptanceMeter()
        self.in_use: Address | None = None
        """The verifier that opened a session last."""

    # --- what happened

    def claims_rtt(self, verifier: Address, *, now_s: float, every_s: float) -> bool:
        """Return whether the caller shall measure the round trip now: nobody did within `every_s`."""
        known = self._of(verifier)
        if known.asked_s is not None and now_s - known.asked_s < every_s / 2:
            return False  # half of it: those who ask each keep their own time, and one of them must be due
        known.asked_s = now_s
        return True

    def add_rtt(self, verifier: Address, rtt_s: float) -> bool:
        """Take a measured round trip; return whether it is far from what was known, so that another one is due at once."""
        known = self._of(verifier)
        before_s, clear_s = known.rtt.rtt_s, STEP_JITTERS * known.rtt.jitter_s
        known.rtt.add(rtt_s)
        if not before_s or abs(rtt_s - before_s) <= max(clear_s, STEP_SHARE * before_s):
            return False
        known.asked_s = None
        return True

    def committed(self, commit: Commit, *, address: Address) -> None:
        """Take what a commit of this verifier tells."""
        known = self._of(address)
        if commit.verify_ns:
            known.step_s.add(commit.verify_ns / 1e9, 1.0)
        known.steps.add(commit)
        # Of several guesses for a position at most one is right; they count as one, as a chain's do. A verifier that counts
        # wrongly harms its figures, not the text.
        judged = min(commit.num_judged, len(commit.tokens))
        self._acceptance.add(judged=judged, accepted=min(commit.num_accepted, judged))

    def drafted(self, took_s: float, num_tokens: int) -> None:
        """The drafter gave so many tokens, waiting for the drafting thread included."""
        self._draft_s.add(took_s, num_tokens)
        self._call_s.add(took_s, 1.0)

    def keep_only(self, verifiers: Collection[Address]) -> None:
        """Forget what is known of other verifiers, but for the one in use."""
        kept = {*verifiers, self.in_use}
        self._verifiers = {one: known for one, known in self._verifiers.items() if one in kept}

    # --- what follows

    def rtt_s(self, verifier: Address) -> float:
        """Return the round trip in seconds; 0 if it was never measured."""
        known = self._verifiers.get(verifier)
        return known.rtt.rtt_s if known else 0.0

    def jitter_s(self, verifier: Address) -> float:
        """Return how far round trips typically stray from that, in seconds."""
        known = self._verifiers.get(verifier)
        return known.rtt.jitter_s if known else 0.0

    def step_s(self, verifier: Address) -> float:
        """Return the time of a step of this verifier in seconds; 0 if none was seen."""
        known = self._verifiers.get(verifier)
        return known.step_s.value if known else 0.0

    @property
    def draft_s(self) -> float:
        """Time of the drafter for one token, in seconds; 0 before the first."""
        return self._draft_s.value

    def tree(self, verifier: Address) -> Measured:
        """Return what tells how a tree should grow, with this verifier."""
        known = self._verifiers.get(verifier) or _Verifier()
        return Measured(
            rtt_s=known.rtt.rtt_s,
            jitter_s=known.rtt.jitter_s,
            forward_s=self._call_s.value,
            step_s=known.steps.step_s,
            light_s=known.steps.light_s,
            tokens_per_step=known.steps.tokens_per_step,
            row_s=known.steps.row_s,
            row_price_s=known.steps.row_price_s,
        )

    @property
    def acceptance_probability(self) -> float:
        """Accepted / judged over the recent past."""
        return self._acceptance.probability

    @property
    def num_judged(self) -> int:
        """How many drafted tokens that rests on."""
        return self._acceptance.num_judged

    def _of(self, verifier: Address) -> _Verifier:
        return self._verifiers.setdefault(verifier, _Verifier())
