"""A link before a server that has nothing to do with Paceline: does our health check notice what happens to the network?"""

import threading
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from simulator.testing import RelayedLinks


def is_healthy(address: str) -> bool:
    """What is tested."""
    try:
        with urllib.request.urlopen(f"http://{address}/health", timeout=0.8) as response:
            return bool(response.status == 200)
    except OSError:
        return False


class Health(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the same
        pass


class Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        pass  # connections break here on purpose


@pytest.fixture
def server() -> Iterator[Server]:
    with Server(("127.0.0.1", 0), Health) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


@pytest.mark.network(rtt="40ms")
def test_the_health_check_notices(link: RelayedLinks, server: Server) -> None:
    way = link(server.server_address)
    assert is_healthy(way.address)
    way.cut()
    assert not is_healthy(way.address)  # refused
    way.heal()
    assert is_healthy(way.address)
    way.black_hole()
    assert not is_healthy(way.address)  # too late
    way.heal()
    way.change(rtt="2s")
    assert not is_healthy(way.address)  # the same
