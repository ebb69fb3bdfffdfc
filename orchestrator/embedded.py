"""A broker inside the orchestrator, for one machine without another one (amqtt).

It listens to this machine only, has neither passwords nor access rules, and forgets everything when it ends. Deployments run
mosquitto.
"""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

from amqtt.adapters import StreamReaderAdapter, StreamWriterAdapter
from amqtt.broker import Broker
from amqtt.contexts import BrokerConfig, ListenerConfig, ListenerType
from amqtt.mqtt.protocol.broker_handler import BrokerProtocolHandler

from paceline.errors import ConfigError
from paceline.settings import Address

MAX_PACKET_BYTES = 64 * 2**10
"""Largest packet that is taken; a client that announces a larger one is disconnected."""

PACKET_S = 10.0
"""Longest wait for a client's first byte, and for the parts of a packet that has begun."""

STOP_S = 0.5
"""Longest wait for a client's reader to end before it is told again."""

MAX_CONNECTIONS = 4096
"""Most clients at once; further ones are disconnected at once."""

log = logging.getLogger(__name__)

_LISTENER = "default"
_PLUGINS = {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}}

# It tells every client that goes without a farewell, as an error.
logging.getLogger("amqtt").setLevel(logging.CRITICAL)


class _BoundedReader(StreamReaderAdapter):  # type: ignore[misc]
    """Refuses what announces more bytes than a packet of ours has, or does not come to the end of a packet."""

    def __init__(self, reader: asyncio.StreamReader) -> None:
        super().__init__(reader)
        self._has_begun = False

    async def read(self, n: int = -1) -> bytes:
        if not 0 <= n <= MAX_PACKET_BYTES:
            raise ConnectionResetError(
                f"packet: got {n} bytes, expected at most {MAX_PACKET_BYTES}"
            )
        # amqtt reads a packet's first byte alone; between packets a client may be silent.
        is_between = n == 1 and self._has_begun
        async with asyncio.timeout(None if is_between else PACKET_S):
            data: bytes = await super().read(n)
        self._has_begun = True
        return data


class _TakingOverBroker(Broker):  # type: ignore[misc]
    """Ends the connection that a client of the same identifier has, as [MQTT-3.1.4-2] asks for."""

    async def _delete_session(self, client_id: str) -> None:
        # amqtt forgets the session only and leaves the old connection, whose will comes much later, after the new
        # client has said that it is there.
        _, handler = self.sessions.get(client_id, (None, None))
        if handler is not None:
            await handler.handle_connection_closed()
            await self._stop_handler(handler)
        await super()._delete_session(client_id)

    async def _stop_handler(self, handler: BrokerProtocolHandler) -> None:
        # amqtt cancels the client's reader once and waits for its end. Before Python 3.12 a cancellation that meets a
        # packet is lost in `asyncio.wait_for`, and the wait would be for ever: so it is told again.
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(STOP_S):
                    await super()._stop_handler(handler)
                    return


@contextlib.asynccontextmanager
async def embedded_broker(listen: Address) -> AsyncIterator[Address]:
    """Run a broker while the body runs; gives the address it listens at, with the real port.

    Raises:
        ConfigError: the address is not of this machine only, or is taken.
    """
    if not listen.is_loopback:
        raise ConfigError(
            f"--broker-listen: got {listen}, expected a loopback address: the embedded broker knows no passwords; "
            "run mosquitto for other machines and name it with --broker"
        )
    # amqtt serves the connections; we listen, so that the port can be chosen by the system and the bounds are ours.
    broker = _TakingOverBroker(
        BrokerConfig(
            listeners={_LISTENER: ListenerConfig(type=ListenerType.EXTERNAL, bind="external")},
            plugins=_PLUGINS,
        )
    )
    await broker.start()
    try:
        async with asyncio.TaskGroup() as group:
            writers: set[asyncio.StreamWriter] = set()
            server = await _listen(broker, listen, group=group, writers=writers)
            try:
                host, port = server.sockets[0].getsockname()[:2]
                yield Address(host=host, port=port)
            finally:
                server.close()
                # Nothing more comes then; and those that never said who they are amqtt does not know.
                for writer in writers:
                    writer.transport.abort()
                await broker.shutdown()
    except BaseExceptionGroup as failures:
        # The body's own error, not a report of tasks.
        raise failures.exceptions[0] from None


async def _listen(
    broker: Broker,
    listen: Address,
    *,
    group: asyncio.TaskGroup,
    writers: set[asyncio.StreamWriter],
) -> asyncio.Server:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.add(writer)
        try:
            if len(writers) <= MAX_CONNECTIONS:
                await broker.external_connected(
                    _BoundedReader(reader), StreamWriterAdapter(writer), _LISTENER
                )
        except Exception as error:  # noqa: BLE001 - whatever one client does, the others go on
            log.info("client disconnected", extra={"reason": f"{type(error).__name__}: {error}"})
        finally:
            writers.discard(writer)
            writer.transport.abort()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        group.create_task(serve(reader, writer))

    try:
        return await asyncio.start_server(connected, listen.host, listen.port)
    except OSError as error:
        await broker.shutdown()
        raise ConfigError(f"--broker-listen: cannot listen at {listen}: {error}") from error
