"""What an edge learns from its own traffic: how many guesses hold, how far the verifier is. Pure; nothing reads a clock.

Why not the smallest of recent round trips: it needs as many measurements as it remembers to see that a route has become
longer, and it knows no jitter. Why not the estimator of TCP (RFC 6298): it is made for time-outs. Its mean moves by
1/8 per sample, so a step from 20 to 200 ms takes 18 samples to get within a tenth of it, and one outlier stays in it for as long.
"""

import math
from collections import deque

from paceline.errors import LocalProtocolError

HORIZON = 200
"""Judged tokens after which the weight of an older one has fallen to 1/e. More is steadier, less follows a change of
subject sooner."""

RECENT = 8
"""Round trips remembered."""

STEP_JITTERS = 3.0
"""Two samples in a row on one side of the base by more than this many jitters are a new route, not noise."""

ENOUGH = 4
"""Samples of a route that tell its jitter; with fewer, that of the route before stands for it."""

STEP_SHARE = 0.1
"""The same in parts of the base: a link without jitter still strays by the time of a process to be scheduled."""


class AcceptanceMeter:
    """Accepted / judged over the recent past, as a ratio of sums that fade with every judged token.

    A mean of the ratios of messages would weigh one with a single guess like one with sixteen.
    """

    __slots__ = ("_accepted", "_judged", "_keep")

    def __init__(self, *, horizon: int = HORIZON) -> None:
        if horizon < 2:
            raise LocalProtocolError(f"horizon: got {horizon}, expected at least 2")
        self._keep = 1.0 - 1.0 / horizon
        self._judged = 0.0
        self._accepted = 0.0

    def add(self, *, judged: int, accepted: int) -> None:
        """Count what the target compared and kept.

        Raises:
            LocalProtocolError: more accepted than judged, or less than nothing.
        """
        if not 0 <= accepted <= judged:
            raise LocalProtocolError(
                f"accepted, judged: got {accepted}, {judged}, expected 0 <= accepted <= judged"
            )
        if not judged:
            return
        fade = self._keep**judged
        # They fade within the message too, so that one large message weighs what many small ones do.
        weight = (1.0 - fade) / (1.0 - self._keep)
        self._judged = self._judged * fade + weight
        self._accepted = self._accepted * fade + weight * accepted / judged

    @property
    def probability(self) -> float:
        """The ratio; 0 before anything was judged."""
        return min(1.0, self._accepted / self._judged) if self._judged else 0.0

    @property
    def num_judged(self) -> int:
        """How many judged tokens it rests on: what was added, at most the horizon."""
        return round(self._judged)


class RttEstimator:
    """Base round trip and jitter of one route.

    The base is the median of the recent samples, so one outlier does not move it. Two samples in a row that lie clearly on one side of
    it are a new route: everything older is forgotten, so that a step in either direction is followed at the second sample.
    """

    __slots__ = ("_base_s", "_jitter_s", "_recent")

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=RECENT)
        self._base_s = 0.0
        self._jitter_s = 0.0

    def add(self, rtt_s: float) -> None:
        """Take one measurement in seconds.

        Raises:
            LocalProtocolError: negative or not finite.
        """
        if not 0.0 <= rtt_s < math.inf:
            raise LocalProtocolError(f"rtt_s: got {rtt_s}, expected a finite number of at least 0")
        before = self._recent[-1] if self._recent else rtt_s
        self._recent.append(rtt_s)
        if len(self._recent) > 2 and self._is_step(before, rtt_s):
            self._recent = deque((before, rtt_s), maxlen=RECENT)
        self._base_s = _middle(self._recent)
        if len(self._recent) >= ENOUGH:
            # Without the largest, or a single outlier would pass for jitter; without the base itself, which strays by 0.
            strays = sorted(abs(sample - self._base_s) for sample in self._recent)[1:-1]
            self._jitter_s = sum(strays) / len(strays)

    @property
    def rtt_s(self) -> float:
        """Base round trip in seconds; 0 before the first sample."""
        return self._base_s

    @property
    def jitter_s(self) -> float:
        """Mean distance of the recent samples from the base, the largest left out, in seconds; 0 before `ENOUGH`."""
        return self._jitter_s

    def _is_step(self, before: float, now: float) -> bool:
        clear = max(STEP_JITTERS * self._jitter_s, STEP_SHARE * self._base_s)
        above = min(before, now) > self._base_s + clear
        below = max(before, now) < self._base_s - clear
        return above or below


def _middle(samples: deque[float]) -> float:
    """Return the median, the lower of two: what is added to a round trip is delay."""
    return sorted(samples)[(len(samples) - 1) // 2]
