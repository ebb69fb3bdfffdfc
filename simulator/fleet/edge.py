"""An edge in the fleet's model: what its drafter costs, what it measures, and how far it drafts."""

from __future__ import annotations

from edge.controller import TICK_S
from edge.steering import LengthPolicy
from paceline.client.meter import RECENT_DRAFTS, RECENT_STEPS, RecentRatio
from paceline.client.runner import PING_S
from paceline.control.drafting import Bounds, Drafting, Measured, choose
from paceline.control.measuring import AcceptanceMeter, RttEstimator
from simulator.fleet.delays import STEP_S, Delays
from simulator.fleet.settings import DrafterModel

FOREVER_S = float("inf")
CALM_S = 1.0
"""After a decision that changed nothing the next one may come so much later; the real controller takes it `TICK_S` later,
and nearly always decides the same."""

WINDOW_MOST = 128
PER_S = 1.0 / STEP_S
NUM_FACTORS = 1021
"""Scatter of times is drawn from so many values in turn; a prime, so that edges do not fall into step."""


class Pace:
    """What an edge's drafter costs, ready to be added up.

    Args:
        drafter: the settings.
        factors: scatter of its times, in turn.
    """

    __slots__ = (
        "attended_s",
        "bounds",
        "context_s",
        "factors",
        "follows",
        "pass_s",
        "per_message",
        "prefill_s",
        "start",
    )

    def __init__(self, drafter: DrafterModel, *, factors: tuple[float, ...]) -> None:
        cost = drafter.cost
        self.pass_s = cost.fixed_s + cost.per_sequence_s + cost.per_row_s
        self.prefill_s = cost.per_prefill_row_s
        self.context_s = cost.per_context_token_s
        self.attended_s = cost.per_attended_s
        self.factors = factors
        self.follows = drafter.length_policy is not LengthPolicy.FIXED
        self.per_message = drafter.drafting.tokens_per_message
        self.start = Drafting(
            draft_length=drafter.drafting.draft_length, window=drafter.drafting.window
        )
        self.bounds = Bounds(window_most=WINDOW_MOST)

    def seconds(self, *, num_new: int, common: int, length: int, num_passes: int) -> float:
        """Return what drafting takes.

        Args:
            num_new: tokens that are not in its cache yet, but for the last.
            common: tokens that are.
            length: of the text, what was guessed before included.
            num_passes: one for each token.
        """
        first_s = self.pass_s + self.prefill_s * num_new
        first_s += (self.context_s + self.attended_s * (num_new + 1)) * common
        return first_s + (num_passes - 1) * (
            self.pass_s + (self.context_s + self.attended_s) * length
        )


class Edge:
    """What stays of an edge from one answer to the next.

    Args:
        number: in the fleet.
        kind: number of its network.
        delays: of its network.
        offset: where in their record it begins.
        pace: of its drafter; None drafts nothing.
        slowdown: factor on the drafter's times.
    """

    __slots__ = (
        "accepted",
        "delays",
        "down",
        "draft_s",
        "drafting",
        "is_connected",
        "kind",
        "next_factor",
        "next_ping_s",
        "next_tick_s",
        "number",
        "offset",
        "pace",
        "rtt",
        "slowdown",
        "step_s",
        "up",
    )

    def __init__(
        self,
        *,
        number: int,
        kind: int,
        delays: Delays,
        offset: int,
        pace: Pace | None,
        slowdown: float = 1.0,
    ) -> None:
        self.number = number
        self.kind = kind
        self.delays = delays
        self.up, self.down = delays.up, delays.down
        self.offset = offset
        self.pace = pace
        self.slowdown = slowdown
        self.drafting = pace.start if pace else Drafting(draft_length=0, window=1)
        self.is_connected = False
        self.rtt = RttEstimator()
        self.accepted = AcceptanceMeter()
        self.draft_s = RecentRatio(horizon=RECENT_DRAFTS)
        self.step_s = RecentRatio(horizon=RECENT_STEPS)
        self.next_factor = offset
        self.next_tick_s = self.next_ping_s = FOREVER_S

    def up_s(self, now_s: float) -> float:
        """Return how long a message takes that is sent now."""
        up = self.up
        return up[(int(now_s * PER_S) + self.offset) % len(up)]

    def down_s(self, now_s: float) -> float:
        """Return the same for the way back."""
        down = self.down
        return down[(int(now_s * PER_S) + self.offset) % len(down)]

    def factor(self) -> float:
        """Return how much longer than usual the drafter takes this time."""
        assert self.pace is not None
        factors = self.pace.factors
        self.next_factor += 1
        return factors[self.next_factor % len(factors)] * self.slowdown

    def begins(self, now_s: float) -> None:
        """A generation begins: the controller ticks from here on, and the round trip is measured."""
        if self.pace is not None and self.pace.follows:
            self.next_tick_s = now_s + TICK_S
            self.next_ping_s = now_s + self._ping_s(now_s)

    def steer(self, now_s: float) -> None:
        """Decide how far to draft, as `edge.controller` does now and then."""
        assert self.pace is not None
        if now_s >= self.next_ping_s:
            self.rtt.add(self._ping_s(self.next_ping_s))
            self.next_ping_s = now_s + PING_S
        measured = Measured(
            rtt_s=self.rtt.rtt_s,
            jitter_s=self.rtt.jitter_s,
            draft_s=self.draft_s.value,
            step_s=self.step_s.value,
            acceptance_probability=self.accepted.probability,
            num_judged=self.accepted.num_judged,
        )
        decision = choose(measured, current=self.drafting, bounds=self.pace.bounds)
        is_kept = decision.drafting.draft_length == self.drafting.draft_length
        self.drafting = decision.drafting
        self.next_tick_s = now_s + (CALM_S if is_kept and self.rtt.rtt_s else TICK_S)

    def _ping_s(self, now_s: float) -> float:
        return self.delays.round_trip_s(int(now_s * PER_S) + self.offset)
