"""An edge in the control plane: says that it is there and how it does, hears what it should do, measures its verifiers.

Everything here may stand still without a token being late: nothing waits for the broker, and nobody waits for this.
"""

import asyncio
import contextlib
import logging
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import paceline
from edge.control_options import EARLY_S, ControlSettings
from edge.controller import TICK_S, Activity, Controller
from edge.roster import Roster
from edge.steering import Steering
from paceline.beside import running_beside
from paceline.client.client import Client
from paceline.clock import Clock, MonotonicClock
from paceline.control.drafting import measured_from
from paceline.control.messages import (
    EdgeCounters,
    EdgeGauges,
    EdgePolicy,
    EdgeTelemetry,
    Presence,
    VerifierDistance,
)
from paceline.errors import PacelineError
from paceline.logs import mask_secrets
from paceline.mqtt.backoff import Generator
from paceline.mqtt.link import ControlLink, Will, control_link
from paceline.mqtt.transport import Transport
from paceline.settings import Address
from paceline.topics import (
    EDGE_POLICY,
    EDGE_PRESENCE,
    EDGE_TELEMETRY,
    ORCHESTRATOR_PRESENCE,
    Received,
)

log = logging.getLogger(__name__)

IDLE_S = 1.0
"""How often the link is looked at while nothing runs, in seconds."""

PROBE_TIMEOUT_S = 3.0
"""Longest wait for a verifier's answer to a probe, connecting included, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pilot:
    """What the control plane acts on."""

    client: Client
    controller: Controller
    steering: Steering
    activity: Activity
    roster: Roster
    tokenizer_fingerprint: bytes
    drafter: str
    """Its name; empty if nothing drafts."""


class ControlPlane:
    """One edge's part in it; made by `control_plane`."""

    def __init__(
        self,
        settings: ControlSettings,
        *,
        link: ControlLink,
        pilot: Pilot,
        incarnation: int,
        clock: Clock,
    ) -> None:
        self._settings = settings
        self._link = link
        self._pilot = pilot
        self._incarnation = incarnation
        self._clock = clock
        self._sequence = 0
        self._reported_s = float("-inf")
        self._new_names = asyncio.Event()
        self._told_of_telemetry = False
        self._num_attempts = 0

    # --- hear

    async def hear(self) -> None:
        """Take what the broker brings, until cancelled."""
        async for received in self._link.messages():
            self._look_at_link()
            self._take(received)
            self._pilot.controller.follow()

    def _look_at_link(self) -> None:
        """Tell the steering whether the link is up, and that it was down if it was so between two looks."""
        num_attempts = self._link.statistics.attempts
        if num_attempts != self._num_attempts:
            self._num_attempts = num_attempts
            self._pilot.steering.linked(is_up=False)
        self._pilot.steering.linked(is_up=self._link.is_connected)

    def _take(self, received: Received) -> None:
        match received.value:
            case Presence() if received.topic == ORCHESTRATOR_PRESENCE:
                self._pilot.steering.orchestrator(received.value)
            case None if received.topic == ORCHESTRATOR_PRESENCE:
                self._pilot.steering.orchestrator(None)
            case EdgePolicy() | None if received.topic == EDGE_POLICY:
                self._follow(received.value)
            case _:
                pass  # we did not ask for it

    def _follow(self, policy: EdgePolicy | None) -> None:
        steering, roster = self._pilot.steering, self._pilot.roster
        if not steering.told(policy):
            log.info("an outdated policy is ignored", extra={"num_so_far": steering.num_outdated})
            return
        wrong = roster.assign(policy.verifiers if policy is not None else ())
        if wrong:
            log.warning("the policy names verifiers that are no HOST:PORT", extra={"names": wrong})
        self._use()
        self._new_names.set()

    def _use(self) -> None:
        """Let the client use the verifiers that are fit for it."""
        verifiers = self._pilot.roster.usable
        if verifiers != self._pilot.client.verifiers:
            log.info("verifiers", extra={"order": " ".join(map(str, verifiers))})
            self._pilot.client.steer(verifiers=verifiers, weights=self._pilot.roster.weights)

    # --- say

    async def report(self) -> None:
        """Publish telemetry now and then, at once when the orchestrator should hear of it, until cancelled."""
        while True:
            now_s = self._clock.now_s()
            self._look_at_link()
            self._pilot.controller.follow()
            since_s = now_s - self._reported_s
            due_s = self._settings.telemetry_interval_s - since_s
            if due_s <= 0.0 or (since_s >= EARLY_S and self._has_news()):
                self._reported_s = now_s
                self._publish()
                due_s = self._settings.telemetry_interval_s
            await asyncio.sleep(min(due_s, TICK_S if self._pilot.activity.is_busy else IDLE_S))

    def _has_news(self) -> bool:
        pilot = self._pilot
        return pilot.activity.is_busy and pilot.steering.wants_answer(
            measured_from(pilot.client.gauges())
        )

    def _publish(self) -> None:
        try:
            self._link.publish(EDGE_TELEMETRY, self._settings.edge_id, self.telemetry())
        except PacelineError:
            # A figure that the schema does not take is a bug, but no reason to serve nobody.
            if not self._told_of_telemetry:
                self._told_of_telemetry = True
                log.exception("telemetry cannot be told")

    def telemetry(self) -> EdgeTelemetry:
        """Return the next message."""
        self._sequence += 1
        pilot = self._pilot
        return EdgeTelemetry(
            incarnation=self._incarnation,
            sequence=self._sequence,
            tokenizer_fingerprint=pilot.tokenizer_fingerprint,
            counters=self.counters(),
            gauges=self.gauges(),
            verifiers=tuple(map(self._distance, pilot.roster.asked)),
            drafter=pilot.drafter,
        )

    def counters(self) -> EdgeCounters:
        """Return the client's sums, with those of the link to the broker."""
        link = self._link.statistics
        return replace(
            self._pilot.client.counters(),
            dropped=link.dropped + link.shed,
            malformed=link.malformed,
        )

    def gauges(self) -> EdgeGauges:
        """Return how the client does now, and whom it follows."""
        return replace(self._pilot.client.gauges(), policy_revision=self._pilot.steering.revision)

    def _distance(self, verifier: Address) -> VerifierDistance:
        answers = self._pilot.roster.answers(verifier)
        rtt_s = self._pilot.client.rtt_s(verifier) if answers else 0.0
        return VerifierDistance(address=str(verifier), rtt_s=rtt_s)

    # --- measure

    async def probe(self) -> None:
        """Ask the verifiers in turn what they serve and how far they are, one at a time, until cancelled."""
        pilot = self._pilot
        while True:
            if self._new_names.is_set():
                self._new_names.clear()
                await pilot.client.keep_only(pilot.roster.all)
            due = pilot.roster.due(now_s=self._clock.now_s())
            if due is not None:
                await self._ask(due)
                continue
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(IDLE_S):
                    await self._new_names.wait()

    async def _ask(self, verifier: Address) -> None:
        roster = self._pilot.roster
        try:
            async with asyncio.timeout(PROBE_TIMEOUT_S):
                info = await self._pilot.client.probe(verifier)
        except (TimeoutError, PacelineError) as error:
            log.debug("verifier %s does not answer: %s", verifier, mask_secrets(str(error)))
            roster.silent(verifier, now_s=self._clock.now_s())
            return
        problem = roster.answered(verifier, now_s=self._clock.now_s(), target=info.target)
        if problem:
            log.warning("verifier %s is not used: %s", verifier, problem)
        self._use()


@contextlib.asynccontextmanager
async def control_plane(
    settings: ControlSettings,
    *,
    pilot: Pilot,
    clock: Clock | None = None,
    incarnation: int | None = None,
    generator: Generator | None = None,
    transport: Transport | None = None,
) -> AsyncIterator[ControlPlane]:
    """Take part in the control plane while the body runs; entering does not wait for the broker.

    Args:
        settings: which one, and as whom.
        pilot: what it acts on.
        clock: for simulations, as what follows; the machine's if None.
        incarnation: of this program, 1 to 2**64 - 1; drawn at random if None.
        generator: see `control_link`.
        transport: the same.

    Raises:
        ConfigError: a certificate cannot be read.
    """
    edge_id = settings.edge_id
    incarnation = incarnation or secrets.randbits(64) or 1
    here = Presence(online=True, incarnation=incarnation, version=paceline.__version__)
    async with control_link(
        settings.broker,
        name=f"edge-{edge_id}",
        will=Will(topic=EDGE_PRESENCE, member=edge_id, value=replace(here, online=False)),
        subscriptions=(EDGE_POLICY.of(edge_id), ORCHESTRATOR_PRESENCE),
        generator=generator,
        transport=transport,
    ) as link:
        link.publish(EDGE_PRESENCE, edge_id, here)
        plane = ControlPlane(
            settings,
            link=link,
            pilot=pilot,
            incarnation=incarnation,
            clock=clock or MonotonicClock(),
        )
        async with running_beside(plane.hear, plane.report, plane.probe):
            yield plane
