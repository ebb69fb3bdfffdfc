"""Visits a broker as an edge would, and leaves no trace: nothing is retained, nobody else's topic is touched."""

import asyncio
import contextlib
import secrets
from dataclasses import replace

from paceline.clock import MonotonicClock
from paceline.control.messages import Presence
from paceline.errors import PacelineError, RemoteProtocolError
from paceline.mqtt.connection import QOS, connection, subscribe
from paceline.mqtt.settings import BrokerSettings, tls_context
from paceline.topics import ORCHESTRATOR_PRESENCE, PREFIX, check_id
from simulator.doctor.verdicts.broker import BrokerFinding

GRACE_S = 1.0
"""How long after our own message a retained one may still come: brokers send them about in order."""


def echo_topic(edge_id: str) -> str:
    """Return where an edge may speak to itself.

    Raises:
        ConfigError: no edge's id can look like that.
    """
    return f"{PREFIX}/edges/{check_id(edge_id)}/doctor"


async def visit_broker(
    settings: BrokerSettings, *, edge_id: str, deadline_s: float
) -> BrokerFinding:
    """Log in, speak to ourselves, and read the orchestrator's presence; each wait is bounded by `deadline_s`.

    Raises:
        ConfigError: no edge's id can look like that.
    """
    topic = echo_topic(edge_id)
    visit = _Visit(topic)
    try:
        async with (
            asyncio.timeout(3 * deadline_s),
            connection(
                replace(settings, timeout_s=deadline_s),
                # Never the edge's own: a running one would be thrown out.
                identifier=f"doctor-{secrets.token_hex(6)}",
                will=None,
                deliver=visit.deliver,
                context=tls_context(settings),
            ) as client,
        ):
            presence = ORCHESTRATOR_PRESENCE.name()
            await subscribe(client, ((presence, QOS), (topic, QOS)))
            started_s = visit.clock.now_s()
            await client.publish(topic, visit.nonce, qos=QOS)
            await _within(visit.came_back, deadline_s)
            await _within(visit.presence_came, GRACE_S)
    except TimeoutError:
        return BrokerFinding(reason="TRANSPORT", error=f"no answer within {3 * deadline_s:g} s")
    except PacelineError as error:
        return BrokerFinding(reason=error.reason, error=str(error))
    echo_s = None if visit.at_s is None else visit.at_s - started_s
    return BrokerFinding(echo_s=echo_s, orchestrator=visit.orchestrator)


class _Visit:
    """What came while we were there."""

    def __init__(self, topic: str) -> None:
        self.clock = MonotonicClock()
        self.nonce = secrets.token_bytes(16)
        self.came_back = asyncio.Event()
        self.presence_came = asyncio.Event()
        self.at_s: float | None = None
        self.orchestrator: str | None = None
        self._topic = topic

    def deliver(self, name: str, payload: bytes) -> None:
        """Take a message in."""
        if name == self._topic and payload == self.nonce:
            self.at_s = self.clock.now_s()
            self.came_back.set()
        elif name == ORCHESTRATOR_PRESENCE.name():
            self.orchestrator = _told(payload)
            self.presence_came.set()


def _told(payload: bytes) -> str | None:
    try:
        value = ORCHESTRATOR_PRESENCE.decode(payload)
    except RemoteProtocolError as error:
        return f"its presence cannot be read: {error}"
    if not isinstance(value, Presence):
        return None
    return "online" if value.online else "offline"


async def _within(event: asyncio.Event, bound_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(bound_s):
            await event.wait()
