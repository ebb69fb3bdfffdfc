"""The relay as other tests use it: in a thread of its own."""

import socket
import time

import pytest
from harness.relay import threaded_relay

from simulator.relay import CutMode


def _connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


@pytest.mark.slow
def test_a_relay_in_a_thread_is_controlled_from_the_test() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = f"127.0.0.1:{server.getsockname()[1]}"
        with threaded_relay(to, rtt_s=0.06) as relay:
            with _connect(relay.port) as client:
                carried, _ = server.accept()
                with carried:
                    started_s = time.monotonic()
                    client.sendall(b"x")
                    assert carried.recv(1) == b"x"
                    assert time.monotonic() - started_s >= 0.03
                    relay.set_rtt(0.0)
                    relay.cut(CutMode.BLACK_HOLE)
                    client.sendall(b"y")
                    carried.settimeout(0.05)
                    with pytest.raises(TimeoutError):
                        carried.recv(1)
                    relay.heal()
                    carried.settimeout(10)
                    assert carried.recv(1) == b"y"
                    assert relay.statistics().up_bytes == 2
                    relay.cut()
                    with pytest.raises(ConnectionResetError):
                        client.recv(1)
            with pytest.raises(ConnectionRefusedError):
                _connect(relay.port)
