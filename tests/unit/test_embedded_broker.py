"""The broker inside the orchestrator: this machine only, bounded, and gone without a trace."""

import asyncio
import contextlib
import logging
import socket
import threading

import pytest
from harness.control import edge_link, eventually, here, quick
from harness.event_loop import run_async

from orchestrator import embedded
from orchestrator.embedded import MAX_PACKET_BYTES, embedded_broker
from paceline.errors import ConfigError
from paceline.settings import Address
from paceline.topics import EDGE_PRESENCE

ANY_PORT = Address(host="127.0.0.1", port=0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "broker.example"])
def test_it_listens_to_this_machine_only(host: str) -> None:
    async def main() -> None:
        async with embedded_broker(Address(host=host, port=0)):
            pass

    with pytest.raises(ConfigError, match="run mosquitto for other machines"):
        run_async(main())


def test_a_taken_port_is_told() -> None:
    async def main() -> None:
        async with embedded_broker(ANY_PORT) as address:
            with pytest.raises(ConfigError, match=f"cannot listen at {address}"):
                async with embedded_broker(address):
                    pass

    run_async(main())


def test_the_bodys_own_error_comes_out_as_it_is() -> None:
    async def main() -> None:
        async with embedded_broker(ANY_PORT):
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_async(main())


def test_it_ends_whatever_its_clients_do(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with embedded_broker(ANY_PORT) as address:
            silent, writer = await asyncio.open_connection(address.host, address.port)
            async with edge_link(quick(address), "kiosk-7") as link:
                link.publish(EDGE_PRESENCE, "kiosk-7", here())
                await eventually(lambda: link.statistics.published == 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}
        assert await silent.read() == b""
        writer.close()

    with caplog.at_level(logging.WARNING):
        run_async(main())
    assert not [record for record in caplog.records if not record.name.startswith("paceline.")]


CONNECT = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01x"


def test_it_ends_at_once_while_a_client_goes_on_talking() -> None:
    """A cancellation that meets a packet was lost, and the end was waited for without end."""

    def talk(address: Address, is_heard: threading.Event) -> None:
        with (
            contextlib.suppress(OSError),
            socket.create_connection((address.host, address.port), timeout=10) as client,
        ):
            client.sendall(CONNECT)
            while client.recv(4096):
                is_heard.set()
                client.sendall(b"\xc0\x00")

    async def main() -> None:
        for _ in range(10):
            is_heard = threading.Event()
            async with embedded_broker(ANY_PORT) as address:
                client = threading.Thread(target=talk, args=(address, is_heard))
                client.start()
                assert await asyncio.to_thread(is_heard.wait, 10)
                before_s = asyncio.get_running_loop().time()
            assert asyncio.get_running_loop().time() - before_s < embedded.STOP_S
            await asyncio.to_thread(client.join)

    run_async(main())


@pytest.mark.parametrize(
    "start",
    [
        b"\x10\xff\xff\xff\x7f",  # a CONNECT that announces 256 MiB
        CONNECT + b"\x30" + b"\x81\x80\x04" + bytes(MAX_PACKET_BYTES + 1),
        b"GET / HTTP/1.1\r\n\r\n",
        CONNECT + b"\xf0\x00",
        CONNECT + CONNECT,
        bytes(100),
    ],
    ids=["huge connect", "huge publish", "http", "reserved", "connect twice", "zeros"],
)
def test_a_client_that_speaks_nonsense_hurts_only_itself(
    start: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "PACKET_S", 0.05)

    async def main() -> None:
        async with (
            embedded_broker(ANY_PORT) as address,
            edge_link(quick(address), "kiosk-7") as link,
        ):
            await link.connected()
            reader, writer = await asyncio.open_connection(address.host, address.port)
            writer.write(start)
            while await reader.read(100):
                pass
            writer.close()
            link.publish(EDGE_PRESENCE, "kiosk-7", here())
            await eventually(lambda: link.statistics.published == 1)
            assert link.statistics.connections == 1

    run_async(main(), timeout_s=5.0)


def test_connections_beyond_the_bound_are_ended_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "MAX_CONNECTIONS", 1)

    async def main() -> None:
        async with (
            embedded_broker(ANY_PORT) as address,
            edge_link(quick(address), "kiosk-7") as link,
        ):
            await link.connected()
            reader, writer = await asyncio.open_connection(address.host, address.port)
            with contextlib.suppress(ConnectionResetError):
                assert await reader.read() == b""
            writer.close()
            assert link.is_connected

    run_async(main())
