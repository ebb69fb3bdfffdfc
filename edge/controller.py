"""Lets a client follow its steering: measures, decides, tells, as often as there is something new."""

import asyncio
from dataclasses import replace

from edge.steering import Steering
from paceline.client.client import Client
from paceline.client.outcome import ClientObserver, EndReason, Statistics
from paceline.control.drafting import measured_from
from paceline.control.messages import EdgeCounters
from paceline.errors import PacelineError

TICK_S = 0.25
"""Time between two decisions while something runs, in seconds."""


class Activity:
    """Whether a client generates; an observer that passes on what it is told.

    Args:
        follower: is told everything as well.
    """

    def __init__(self, follower: ClientObserver | None = None) -> None:
        self._follower = follower
        self._num_running = 0
        self._began = asyncio.Event()

    @property
    def is_busy(self) -> bool:
        """A generation runs."""
        return self._num_running > 0

    async def busy(self) -> None:
        """Wait until a generation runs."""
        await self._began.wait()

    def generation_started(self) -> None:
        """See `ClientObserver`."""
        self._num_running += 1
        self._began.set()
        if self._follower is not None:
            self._follower.generation_started()

    def generation_ended(
        self, *, statistics: Statistics, reason: EndReason | None, error: PacelineError | None
    ) -> None:
        """See `ClientObserver`."""
        self._num_running -= 1
        if not self._num_running:
            self._began.clear()
        if self._follower is not None:
            self._follower.generation_ended(statistics=statistics, reason=reason, error=error)


class Controller:
    """Steers one client.

    Args:
        client: whose generations are steered.
        steering: decides.
        activity: the client's observer.
    """

    def __init__(self, client: Client, *, steering: Steering, activity: Activity) -> None:
        self._client = client
        self._steering = steering
        self._activity = activity
        self._evidence: tuple[EdgeCounters, float, float] | None = None

    async def run(self) -> None:
        """Decide now and then while something runs, until cancelled."""
        while True:
            await self._activity.busy()
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Decide, if anything was measured since the last time."""
        gauges = self._client.gauges()
        counters = replace(self._client.counters(), busy_ns=0)  # time alone is no evidence
        evidence = (counters, gauges.rtt_s, gauges.rtt_jitter_s)
        if evidence != self._evidence:
            self._evidence = evidence
            self._steering.measured(measured_from(gauges))
        if self._steering.grows:
            self._steering.tree_measured(self._client.tree_measured())
        self.follow()

    def follow(self) -> None:
        """Tell the client what holds now."""
        wanted, now = self._steering.drafting, self._client.drafting
        growth = self._steering.growth if now.growth is not None else None
        if growth is not None and now.pipeline.patience_ms:
            growth = replace(
                growth, pace=None
            )  # a verifier that waits for drafts leaves none behind
        following = replace(
            now, draft_length=wanted.draft_length, window=wanted.window, growth=growth
        )
        if following != now:
            self._client.steer(drafting=following)
