"""A program's link to the control plane: publishes without waiting, receives with a bound, and comes back by itself."""

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass

from paceline.codec.control import ControlValue
from paceline.errors import ConfigError, LinkTimeout, PacelineError, UnauthenticatedError
from paceline.mqtt.backoff import Backoff, Generator
from paceline.mqtt.connection import SocketTransport
from paceline.mqtt.inbox import Inbox
from paceline.mqtt.lanes import Letter
from paceline.mqtt.outbox import Outbox
from paceline.mqtt.settings import BrokerSettings
from paceline.mqtt.transport import MAX_UNACKNOWLEDGED, QOS, Conversation, Transport
from paceline.topics import Received, Topic

log = logging.getLogger(__name__)

LEAVE_S = 2.0
"""Longest wait, when the program ends, for the broker to take what is still to be said."""

_NAME = re.compile(r"[A-Za-z0-9._-]{1,100}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Will:
    """What the broker publishes when it loses this program, and what the program says itself when it ends."""

    topic: Topic
    member: str = ""
    value: ControlValue


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """Sums since the link was opened."""

    published: int = 0
    """Messages the broker has taken."""

    dropped: int = 0
    """Messages it has not taken before a newer one of the same name, or of others, came; or when the connection broke."""

    received: int = 0
    """Messages that came."""

    shed: int = 0
    """Of them, those that had to go unread for newer ones."""

    malformed: int = 0
    """Of them, those that could not be read."""

    connections: int = 0
    """Times the broker was found."""

    attempts: int = 0
    """Times it was sought."""


class ControlLink:
    """One program's link to its broker. Made by `control_link`."""

    def __init__(
        self,
        settings: BrokerSettings,
        *,
        identifier: str,
        will: Letter | None,
        subscriptions: tuple[Topic, ...],
        generator: Generator,
        transport: Transport,
    ) -> None:
        self._settings = settings
        self._transport = transport
        self._identifier = identifier
        self._will = will
        # What is not retained is detail: its loss between broker and reader costs less than a queue at the broker.
        self._filters = tuple((topic.filter, QOS if topic.retain else 0) for topic in subscriptions)
        self._backoff = Backoff(
            first_s=settings.first_retry_s, max_s=settings.max_retry_s, generator=generator
        )
        self._inbox = Inbox()
        self._outbox = Outbox()
        self._found = asyncio.Event()
        self._leaving = asyncio.Event()
        self._gone = asyncio.Event()
        self._trouble: type[PacelineError] | None = None
        self._num_attempts = 0
        self._num_connections = 0

    @property
    def is_connected(self) -> bool:
        """The broker is there and everything is subscribed to."""
        return self._found.is_set()

    async def connected(self) -> None:
        """Wait until the broker is there; the caller sets the bound."""
        await self._found.wait()

    @property
    def statistics(self) -> Statistics:
        """What has happened so far."""
        return Statistics(
            published=self._outbox.num_taken,
            dropped=self._outbox.num_dropped,
            received=self._inbox.num_received,
            shed=self._inbox.num_shed,
            malformed=self._inbox.num_malformed,
            connections=self._num_connections,
            attempts=self._num_attempts,
        )

    def publish(self, topic: Topic, member: str, value: ControlValue | None) -> None:
        """Say something, as soon as the broker takes it; never waits. A newer value takes the place of one that waits.

        Args:
            topic: where.
            member: id of the edge or verifier it is about; empty for the orchestrator.
            value: what; None clears a retained topic.

        Raises:
            LocalProtocolError: the value does not belong there, or a field is out of its bounds.
            ConfigError: no member's id can look like that.
        """
        payload = topic.encode(value)
        self._outbox.post(Letter(name=topic.name(member), payload=payload, retain=topic.retain))

    def messages(self) -> AsyncIterator[Received]:
        """Give what comes under the subscribed topics, for ever; for one reader."""
        return self._inbox.messages()

    async def keep(self) -> None:
        """Be connected until `leave` is called. For the task that owns the link."""
        try:
            while not self._leaving.is_set():
                delay_s = await self._attempt()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._leaving.wait()
        finally:
            self._gone.set()

    async def leave(self) -> None:
        """Say the will ourselves, and that we go; wait until the connection is closed."""
        if self._will is not None:
            self._outbox.post(self._will)
        self._leaving.set()
        await self._gone.wait()

    async def _attempt(self) -> float:
        """Connect and stay connected as long as it lasts; return how long to wait before the next attempt."""
        started_s = asyncio.get_running_loop().time()
        self._num_attempts += 1
        try:
            await self._converse()
        except UnauthenticatedError as error:
            self._note_trouble(error)
            return self._settings.max_retry_s
        except PacelineError as error:
            self._note_trouble(error)
            self._backoff.lasted(asyncio.get_running_loop().time() - started_s)
            return self._backoff.next_s()
        finally:
            self._found.clear()
        return 0.0

    async def _converse(self) -> None:
        """Connect, and carry messages until the connection fails or we leave."""
        async with self._transport.connect(
            identifier=self._identifier, will=self._will, deliver=self._inbox.deliver
        ) as conversation:
            await conversation.subscribe(self._filters)
            self._outbox.repost_retained()
            self._note_found()
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(conversation.until_lost())]
                    tasks += [
                        group.create_task(self._say(conversation))
                        for _ in range(MAX_UNACKNOWLEDGED)
                    ]
                    await self._leaving.wait()
                    await self._until_said()
                    for task in tasks:
                        task.cancel()
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None

    async def _say(self, conversation: Conversation) -> None:
        """Hand letters to the broker, one after the other."""
        # A cancellation that meets the answer inside the library is lost there; it must not keep this task alive.
        while not _is_cancelled():
            letter = await self._outbox.take()
            try:
                # Between taking and sending nothing waits, so letters of one name go out in order.
                await conversation.publish(letter)
            except BaseException:
                self._outbox.lost(letter)
                raise
            self._outbox.taken(letter)

    async def _until_said(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._outbox.all_taken()
        except TimeoutError as error:
            raise LinkTimeout("the broker does not take our farewell") from error

    def _note_found(self) -> None:
        self._num_connections += 1
        self._trouble = None
        self._found.set()
        log.info(
            "broker found" if self._num_connections == 1 else "broker is back",
            extra={"broker": self._settings.address, "client": self._identifier},
        )

    def _note_trouble(self, error: PacelineError) -> None:
        """Log the first of a series of failures of one kind."""
        is_refused = isinstance(error, UnauthenticatedError)
        kind = UnauthenticatedError if is_refused else PacelineError
        if kind is self._trouble or self._leaving.is_set():
            return
        self._trouble = kind
        log.log(
            logging.ERROR if is_refused else logging.WARNING,
            "broker lost, trying on" if self._found.is_set() else "no broker, trying on",
            extra={"broker": self._settings.address, "reason": str(error)},
        )


@contextlib.asynccontextmanager
async def control_link(
    settings: BrokerSettings,
    *,
    name: str,
    will: Will | None = None,
    subscriptions: tuple[Topic, ...] = (),
    generator: Generator | None = None,
    transport: Transport | None = None,
) -> AsyncIterator[ControlLink]:
    """Keep a link to the broker while the body runs; entering does not wait for it.

    Leaving takes LEAVE_S at most if the broker is there, and until an attempt under way has failed if it is not: 5 s for a
    machine that does not answer at all.

    Args:
        settings: which broker.
        name: of this program among all at the broker, and the same after a restart: the newer one takes over.
        will: published by the broker when it loses this program, and by this program when the body ends.
        subscriptions: topics whose messages `ControlLink.messages` gives; `Topic.of` names one member's alone.
        generator: draws the delays between attempts; the system's if None.
        transport: makes the connections, for simulations; sockets as `settings` says if None.

    Raises:
        ConfigError: the name is no name, or a certificate cannot be read.
        LocalProtocolError: the will does not belong to its topic.
    """
    if _NAME.fullmatch(name) is None:
        raise ConfigError(
            f"name: got {name!r}, expected 1 to 100 letters, digits, dots, hyphens and underscores"
        )
    link = ControlLink(
        settings,
        identifier=f"paceline-{name}",
        will=None if will is None else _letter(will),
        subscriptions=subscriptions,
        generator=secrets.SystemRandom() if generator is None else generator,
        transport=SocketTransport(settings) if transport is None else transport,
    )
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(link.keep())
            try:
                yield link
            finally:
                await link.leave()
    except BaseExceptionGroup as failures:
        # The body's own error, not a report of tasks.
        raise failures.exceptions[0] from None


def _letter(will: Will) -> Letter:
    return Letter(
        name=will.topic.name(will.member),
        payload=will.topic.encode(will.value),
        retain=will.topic.retain,
    )


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
