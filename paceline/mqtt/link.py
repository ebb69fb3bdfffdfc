"""A program's link to the control plane: publishes without waiting, receives with a bound, and comes back by itself."""

import asyncio
import contextlib
import logging
import re
import secrets
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace

import aiomqtt

from paceline.codec.control import MAX_PAYLOAD_BYTES, ControlValue
from paceline.errors import (
    ConfigError,
    LinkTimeout,
    PacelineError,
    RemoteProtocolError,
    UnauthenticatedError,
)
from paceline.mqtt.backoff import Backoff, Generator
from paceline.mqtt.connection import MAX_UNACKNOWLEDGED, QOS, connection, subscribe, translated
from paceline.mqtt.mailbox import MAX_NAMES, Letter, Mailbox
from paceline.mqtt.settings import BrokerSettings, tls_context
from paceline.topics import Received, Topic, locate, read

log = logging.getLogger(__name__)

INBOX_DEPTH = 8
"""How many unread messages of one name that is not retained are kept."""

LEAVE_S = 2.0
"""Longest wait, when the program ends, for the broker to take what is still to be said."""

MALFORMED_LOG_S = 60.0
"""Shortest time between two log lines about messages that cannot be read."""

READ_AT_ONCE = 64
"""Messages that are read before other tasks have their turn."""

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
    ) -> None:
        self._settings = settings
        self._identifier = identifier
        self._will = will
        # What is not retained is detail: its loss between broker and reader costs less than a queue at the broker.
        self._filters = tuple((topic.filter, QOS if topic.retain else 0) for topic in subscriptions)
        self._context: ssl.SSLContext | None = tls_context(settings)
        self._backoff = Backoff(
            first_s=settings.first_retry_s, max_s=settings.max_retry_s, generator=generator
        )
        self._statistics = Statistics()
        self._outbox = Mailbox(depth=1)
        self._outbox_news = asyncio.Event()
        self._retained: OrderedDict[str, bytes] = OrderedDict()
        self._num_unacknowledged = 0
        self._said_all = asyncio.Event()
        self._said_all.set()
        self._inbox = Mailbox(depth=INBOX_DEPTH)
        self._inbox_news = asyncio.Event()
        self._found = asyncio.Event()
        self._leaving = asyncio.Event()
        self._gone = asyncio.Event()
        self._trouble: type[PacelineError] | None = None
        self._malformed_logged_s: float | None = None

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
        return self._statistics

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
        self._post(
            Letter(name=topic.name(member), payload=topic.encode(value), retain=topic.retain)
        )

    async def messages(self) -> AsyncIterator[Received]:
        """Give what comes under the subscribed topics, for ever; for one reader."""
        num_read = 0
        while True:
            while (letter := self._inbox.take()) is None:
                self._inbox_news.clear()
                await self._inbox_news.wait()
            num_read += 1
            if num_read % READ_AT_ONCE == 0:
                await asyncio.sleep(0)
            try:
                received = read(letter.name, letter.payload)
            except RemoteProtocolError as error:
                self._note_malformed(letter.name, str(error))
                continue
            yield received

    async def keep(self) -> None:
        """Be connected until `leave` is called. For the task that owns the link."""
        try:
            while not self._leaving.is_set():
                started_s = asyncio.get_running_loop().time()
                self._count(attempts=1)
                delay_s = 0.0
                try:
                    await self._converse()
                except UnauthenticatedError as error:
                    delay_s = self._settings.max_retry_s
                    self._note_trouble(error)
                except PacelineError as error:
                    self._backoff.lasted(asyncio.get_running_loop().time() - started_s)
                    delay_s = self._backoff.next_s()
                    self._note_trouble(error)
                finally:
                    self._found.clear()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(delay_s):
                        await self._leaving.wait()
        finally:
            self._gone.set()

    async def leave(self) -> None:
        """Say the will ourselves, and that we go; wait until the connection is closed."""
        if self._will is not None:
            self._post(self._will)
        self._leaving.set()
        await self._gone.wait()

    async def _converse(self) -> None:
        """Connect, and carry messages until the connection fails or we leave."""
        async with connection(
            self._settings,
            identifier=self._identifier,
            will=self._will,
            deliver=self._deliver,
            context=self._context,
        ) as client:
            await subscribe(client, self._filters)
            # The broker may have lost what it retained, or have published our will.
            for name, payload in self._retained.items():
                self._outbox.put(Letter(name=name, payload=payload, retain=True))
                self._said_all.clear()
            self._outbox_news.set()
            self._note_found()
            try:
                async with asyncio.TaskGroup() as group:
                    tasks = [group.create_task(_until_lost(client))]
                    tasks += [
                        group.create_task(self._say(client)) for _ in range(MAX_UNACKNOWLEDGED)
                    ]
                    await self._leaving.wait()
                    await self._until_said()
                    for task in tasks:
                        task.cancel()
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None

    async def _say(self, client: aiomqtt.Client) -> None:
        """Hand letters to the broker, one after the other."""
        # A cancellation that meets the answer inside the library is lost there; it must not keep this task alive.
        while not _is_cancelled():
            letter = self._outbox.take()
            if letter is None:
                self._outbox_news.clear()
                await self._outbox_news.wait()
                continue
            self._num_unacknowledged += 1
            try:
                # Between taking and sending nothing waits, so letters of one name go out in order.
                await client.publish(letter.name, letter.payload, qos=QOS, retain=letter.retain)
            except BaseException:
                self._count(dropped=0 if letter.retain else 1)
                raise
            finally:
                self._num_unacknowledged -= 1
            self._note_taken(letter)

    async def _until_said(self) -> None:
        try:
            async with asyncio.timeout(LEAVE_S):
                await self._said_all.wait()
        except TimeoutError as error:
            raise LinkTimeout("the broker does not take our farewell") from error

    def _post(self, letter: Letter) -> None:
        if letter.retain:
            # Also what clears a topic, until the broker has taken it.
            self._retained[letter.name] = letter.payload
            self._retained.move_to_end(letter.name)
            if len(self._retained) > MAX_NAMES:
                self._retained.popitem(last=False)
        self._count(dropped=self._outbox.put(letter))
        self._said_all.clear()
        self._outbox_news.set()

    def _note_taken(self, letter: Letter) -> None:
        self._count(published=1)
        if letter.retain and not letter.payload and self._retained.get(letter.name) == b"":
            del self._retained[letter.name]
        if not self._outbox and not self._num_unacknowledged:
            self._said_all.set()

    def _deliver(self, name: str, payload: bytes) -> None:
        """Take in what came; called by the library, so nothing may go wrong here."""
        self._count(received=1)
        if len(payload) > MAX_PAYLOAD_BYTES:
            self._note_malformed(
                name, f"payload: got {len(payload)} bytes, expected at most {MAX_PAYLOAD_BYTES}"
            )
            return
        try:
            topic, _ = locate(name)
        except RemoteProtocolError as error:
            self._note_malformed(name, str(error))
            return
        self._count(shed=self._inbox.put(Letter(name=name, payload=payload, retain=topic.retain)))
        self._inbox_news.set()

    def _note_malformed(self, name: str, reason: str) -> None:
        self._count(malformed=1)
        now_s = asyncio.get_running_loop().time()
        last_s = self._malformed_logged_s
        if last_s is None or now_s - last_s >= MALFORMED_LOG_S:
            self._malformed_logged_s = now_s
            log.warning(
                "control message cannot be read",
                extra={
                    "topic": name[:100],
                    "reason": reason,
                    "num_so_far": self._statistics.malformed,
                },
            )

    def _note_found(self) -> None:
        self._count(connections=1)
        self._found.set()
        log.info(
            "broker found" if self._statistics.connections == 1 else "broker is back",
            extra={"broker": self._settings.address, "client": self._identifier},
        )
        self._trouble = None

    def _note_trouble(self, error: PacelineError) -> None:
        """Log the first of a series of failures of one kind."""
        kind = UnauthenticatedError if isinstance(error, UnauthenticatedError) else PacelineError
        if kind is not self._trouble and not self._leaving.is_set():
            self._trouble = kind
            was_there = self._found.is_set()
            log.log(
                logging.ERROR if kind is UnauthenticatedError else logging.WARNING,
                "broker lost, trying on" if was_there else "no broker, trying on",
                extra={"broker": self._settings.address, "reason": str(error)},
            )

    def _count(self, **more: int) -> None:
        sums = {name: getattr(self._statistics, name) + number for name, number in more.items()}
        self._statistics = replace(self._statistics, **sums)


@contextlib.asynccontextmanager
async def control_link(
    settings: BrokerSettings,
    *,
    name: str,
    will: Will | None = None,
    subscriptions: tuple[Topic, ...] = (),
    generator: Generator | None = None,
) -> AsyncIterator[ControlLink]:
    """Keep a link to the broker while the body runs; entering does not wait for it.

    Args:
        settings: which broker.
        name: of this program among all at the broker, and the same after a restart: the newer one takes over.
        will: published by the broker when it loses this program, and by this program when the body ends.
        subscriptions: topics whose messages `ControlLink.messages` gives.
        generator: draws the delays between attempts; the system's if None.

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


async def _until_lost(client: aiomqtt.Client) -> None:
    """Wait until the connection breaks; raise why."""
    with translated():
        async for _ in client.messages:
            pass


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
