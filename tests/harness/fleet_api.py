"""A running orchestrator as a child process, and its API as a page sees it."""

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiohttp
from harness.processes import Child, running

from paceline.mqtt.settings import BrokerSettings
from paceline.settings import parse_address

READY = r"^paceline orchestrator ready on (https?://\S+) with broker (\S+)$"
TIMEOUT_S = 30.0


@contextlib.contextmanager
def orchestrator(*arguments: str, broker: str | None = None) -> Iterator[Child]:
    """Run `paceline orchestrator serve` on free ports, with its own broker unless one is named."""
    where = ("--broker-listen", "127.0.0.1:0") if broker is None else ("--broker", broker)
    with running(
        "paceline.command",
        *("orchestrator", "serve", "--listen", "127.0.0.1:0", *where, *arguments),
        ready=READY,
    ) as child:
        yield child


def ready(child: Child) -> re.Match[str]:
    """Return what the ready line said."""
    assert child.ready is not None
    return child.ready


def url_of(child: Child) -> str:
    """Return where its page is."""
    return ready(child)[1]


def broker_of(child: Child) -> BrokerSettings:
    """Return where its broker is."""
    return BrokerSettings(address=parse_address(ready(child)[2]), max_retry_s=0.5)


class FleetApi:
    """Asks one orchestrator."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def get(self, path: str) -> tuple[int, dict[str, Any]]:
        """Return status and answer."""
        async with self._session.get(self._url + path) as answer:
            return answer.status, await answer.json()

    async def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        """Return status and answer."""
        async with self._session.post(self._url + path, json=body) as answer:
            return answer.status, await answer.json()

    async def fleet(self) -> dict[str, Any]:
        """Return everything."""
        status, fleet = await self.get("/api/fleet")
        assert status == 200, fleet
        return fleet

    async def until(
        self, holds: Callable[[dict[str, Any]], bool], *, timeout_s: float = TIMEOUT_S
    ) -> dict[str, Any]:
        """Follow the events, as a page does, until something holds of the whole fleet; return the fleet then."""
        edges: dict[str, Any] = {}
        fleet: dict[str, Any] = {}
        try:
            async with asyncio.timeout(timeout_s):
                async for kind, data in self._events():
                    if kind == "fleet":
                        edges = {}
                    for gone in data.get("gone", ()):
                        edges.pop(gone, None)
                    edges |= {row["id"]: row for row in data["edges"]}
                    fleet = data | {"edges": list(edges.values())}
                    if holds(fleet):
                        return fleet
        except TimeoutError:
            pass
        raise AssertionError(f"it did not come to hold: {json.dumps(fleet)[:4000]}")

    async def _events(self) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        async with self._session.get(
            f"{self._url}/api/events", timeout=aiohttp.ClientTimeout(total=None), read_bufsize=2**23
        ) as answer:
            assert answer.status == 200
            kind = ""
            async for line in answer.content:
                text = line.decode().rstrip("\n")
                if text.startswith("event: "):
                    kind = text.removeprefix("event: ")
                elif text.startswith("data: "):
                    yield kind, json.loads(text.removeprefix("data: "))


@contextlib.asynccontextmanager
async def api_of(child: Child, **headers: str) -> AsyncIterator[FleetApi]:
    """Give its API while the body runs."""
    async with aiohttp.ClientSession(
        headers=headers, timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)
    ) as session:
        yield FleetApi(session, url_of(child))


def edge_row(fleet: dict[str, Any], edge_id: str) -> dict[str, Any]:
    """Return the row of one edge; an empty one if it is not there."""
    found: list[dict[str, Any]] = [row for row in fleet["edges"] if row["id"] == edge_id]
    return found[0] if found else {}
