"""One connection to a broker, from CONNECT to its end, and the broker library's errors as ours."""

import asyncio
import contextlib
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager

import aiomqtt
from aiomqtt.exceptions import MqttCodeError, MqttConnectError

from paceline.errors import LinkClosed, LinkTimeout, UnauthenticatedError
from paceline.mqtt.lanes import Letter
from paceline.mqtt.settings import BrokerSettings, tls_context
from paceline.mqtt.transport import MAX_UNACKNOWLEDGED, QOS, Deliver

ABANDON_S = 1.0
"""Longest wait for the library to notice that its socket is shut."""

# CONNACK codes of 3.1.1, and what paho makes of them, the reason codes of 5.
_REFUSALS = frozenset({4, 5, 134, 135})
_REFUSED_SUBSCRIPTION = 0x80

# The library tells the loss of a connection, which we tell ourselves, once.
_silent = logging.getLogger("paceline.mqtt.wire")
_silent.setLevel(logging.CRITICAL)


class SocketTransport:
    """Connections over TCP, with TLS where the settings want it; implements `Transport`.

    Args:
        settings: where to connect to, and as whom.

    Raises:
        ConfigError: a certificate or key cannot be read.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self._context = tls_context(settings)

    def connect(
        self, *, identifier: str, will: Letter | None, deliver: Deliver
    ) -> AbstractAsyncContextManager["SocketConversation"]:
        """See `Transport`."""
        return _connection(
            self._settings,
            identifier=identifier,
            will=will,
            deliver=deliver,
            context=self._context,
        )


class SocketConversation:
    """One connection; implements `Conversation`. Errors of the library come out of `SocketTransport.connect`."""

    def __init__(self, client: aiomqtt.Client) -> None:
        self._client = client

    async def subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        """See `Conversation`."""
        if not filters:
            return
        answers = await self._client.subscribe(list(filters))
        for (name, _), answer in zip(filters, answers, strict=True):
            code = answer if isinstance(answer, int) else getattr(answer, "value", 0)
            if code >= _REFUSED_SUBSCRIPTION:
                raise UnauthenticatedError(
                    f"subscription: the broker refuses {name}; allow it in its access rules"
                )

    async def publish(self, letter: Letter) -> None:
        """See `Conversation`."""
        await self._client.publish(letter.name, letter.payload, qos=QOS, retain=letter.retain)

    async def until_lost(self) -> None:
        """See `Conversation`."""
        # The intake leaves nothing to iterate over.
        async for _ in self._client.messages:
            pass


@contextlib.asynccontextmanager
async def _connection(
    settings: BrokerSettings,
    *,
    identifier: str,
    will: Letter | None,
    deliver: Deliver,
    context: ssl.SSLContext | None,
) -> AsyncIterator[SocketConversation]:
    client = aiomqtt.Client(
        settings.address.host,
        settings.address.port,
        username=settings.user,
        password=settings.password,
        identifier=identifier,
        clean_session=True,
        keepalive=settings.keepalive_s,
        timeout=settings.timeout_s,
        tls_context=context,
        will=None
        if will is None
        else aiomqtt.Will(will.name, will.payload, qos=QOS, retain=will.retain),
        queue_type=_intake(deliver),
        max_queued_outgoing_messages=2 * MAX_UNACKNOWLEDGED,
        max_inflight_messages=MAX_UNACKNOWLEDGED,
        # A small message must not wait for the acknowledgement of the one before: over TLS that is 25 times as slow.
        socket_options=((socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),),
        logger=_silent,
    )
    try:
        with _translated():
            await client.__aenter__()
            yield SocketConversation(client)
            await client.__aexit__(None, None, None)
    except BaseException:
        await _abandon(client)
        raise


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """Turn the library's errors into ours."""
    try:
        yield
    except MqttConnectError as error:
        code = error.rc if isinstance(error.rc, int) else getattr(error.rc, "value", None)
        if code in _REFUSALS:
            raise UnauthenticatedError(
                f"the broker does not let us in ({error}); check --broker-user and --broker-password-file"
            ) from error
        raise LinkClosed(f"the broker refuses the connection: {error}") from error
    except MqttCodeError as error:
        # What is below tells codes of the library, not causes.
        raise LinkClosed("the connection to the broker broke") from error
    except aiomqtt.MqttError as error:
        if str(error) == "Operation timed out":
            raise LinkTimeout("the broker does not answer") from error
        raise LinkClosed(_told(error)) from error


def _told(error: aiomqtt.MqttError) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, aiomqtt.MqttError) else error
    text = str(cause)
    if "SSL" in text or "certificate" in text:
        return f"{text}; check --broker-ca, or give --insecure for a broker without TLS"
    return text


def _intake(deliver: Deliver) -> type[asyncio.Queue[aiomqtt.Message]]:
    """Return the queue class that hands everything on at once.

    The library's own queue grows without bound, or else drops the newest without count.
    """

    class Intake(asyncio.Queue[aiomqtt.Message]):
        def put_nowait(self, item: aiomqtt.Message) -> None:
            deliver(
                str(item.topic),
                bytes(item.payload) if isinstance(item.payload, bytes | bytearray) else b"",
            )

    return Intake


async def _abandon(client: aiomqtt.Client) -> None:
    """Cut the connection off, whatever state it is in, and wait until the event loop has forgotten it."""
    # The library can only take leave politely, which waits for a broker that is stuck and keeps the will from being
    # published; and when a broker does not answer the CONNECT, it leaves the socket open. An end of file on the socket
    # is what it handles well.
    paho = client._client  # noqa: SLF001
    wire = paho.socket()
    if isinstance(wire, socket.socket):
        with contextlib.suppress(OSError):
            wire.shutdown(socket.SHUT_RDWR)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ABANDON_S):
                while paho.socket() is not None:  # noqa: ASYNC110 - there is no event to wait for
                    await asyncio.sleep(0.001)
    ended = client._disconnected  # noqa: SLF001
    if ended.done() and not ended.cancelled():
        ended.exception()  # seen: otherwise asyncio reports it as never retrieved
