"""Visits a broker as an edge would, and leaves no trace: nothing is retained, nobody else's topic is touched."""

import asyncio
import contextlib
import secrets
from dataclasses import replace

from paceline.clock import MonotonicClock
from paceline.control.messages import Presence
from paceline.errors import LinkClosed, PacelineError, RemoteProtocolError
from paceline.mqtt.connection import SocketTransport
from paceline.mqtt.lanes import Letter
from paceline.mqtt.settings import BrokerSettings
from paceline.mqtt.transport import QOS, Conversation
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
            SocketTransport(replace(settings, timeout_s=deadline_s)).connect(
                # Not the edge's own: a running one would be thrown out, where the broker does not insist on the user's name.
                identifier=f"doctor-{secrets.token_hex(6)}",
                will=None,
                deliver=visit.deliver,
            ) as conversation,
        ):
            visit.was_let_in = True
            try:
                async with asyncio.TaskGroup() as group:
                    watching = group.create_task(conversation.until_lost())
                    await visit.talk(conversation, deadline_s=deadline_s)
                    watching.cancel()
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None
    except TimeoutError:
        return BrokerFinding(reason="TRANSPORT", error=f"no answer within {3 * deadline_s:g} s")
    except PacelineError as error:
        if not (visit.was_let_in and isinstance(error, LinkClosed)):
            return BrokerFinding(reason=error.reason, error=str(error))
        # One name, one connection: the edge of this name runs, and came back.
        return BrokerFinding(was_replaced=True, orchestrator=visit.orchestrator)
    return BrokerFinding(echo_s=visit.echo_s, orchestrator=visit.orchestrator)


class _Visit:
    """What came while we were there."""

    def __init__(self, topic: str) -> None:
        self._clock = MonotonicClock()
        self._nonce = secrets.token_bytes(16)
        self._came_back = asyncio.Event()
        self._presence_came = asyncio.Event()
        self.was_let_in = False
        self.echo_s: float | None = None
        self._started_s = 0.0
        self.orchestrator: str | None = None
        self._topic = topic

    async def talk(self, conversation: Conversation, *, deadline_s: float) -> None:
        """Say something to ourselves and listen."""
        presence = ORCHESTRATOR_PRESENCE.name()
        await conversation.subscribe(((presence, QOS), (self._topic, QOS)))
        self._started_s = self._clock.now_s()
        await conversation.publish(Letter(name=self._topic, payload=self._nonce, retain=False))
        await _within(self._came_back, deadline_s)
        await _within(self._presence_came, GRACE_S)

    def deliver(self, name: str, payload: bytes) -> None:
        """Take a message in."""
        if name == self._topic and payload == self._nonce:
            self.echo_s = self._clock.now_s() - self._started_s
            self._came_back.set()
        elif name == ORCHESTRATOR_PRESENCE.name():
            self.orchestrator = _told(payload)
            self._presence_came.set()


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
