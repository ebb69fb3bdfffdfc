"""A stream of server-sent events that opens with its first event and says so when it has to wait."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from aiohttp import web

from edge.endpoint.answer import DONE, KEEP_ALIVE, event

HEADERS = {
    "Content-Type": "text/event-stream; charset=utf-8",
    "Cache-Control": "no-cache",
    # nginx would otherwise collect events into lumps.
    "X-Accel-Buffering": "no",
}

WRITE_S = 60.0
"""A client that takes nothing for so long counts as gone, in seconds: its answer holds memory of the verifier."""


class EventStream:
    """Writes events to one client.

    Until the first event nothing is sent, not even the status, so an early failure can still have its own.

    Args:
        request: whom to answer.
        keep_alive_s: after so long without an event a comment is sent.
    """

    def __init__(self, request: web.Request, *, keep_alive_s: float) -> None:
        self._request = request
        self._keep_alive_s = keep_alive_s
        self._response = web.StreamResponse(headers=HEADERS)
        self._opening = asyncio.Lock()
        self._was_quiet = True

    @property
    def response(self) -> web.StreamResponse:
        """The response, for the server."""
        return self._response

    @property
    def is_open(self) -> bool:
        """The status has been sent."""
        return self._response.prepared

    async def send(self, data: dict[str, Any]) -> None:
        """Write one event.

        Raises:
            ConnectionError: the client has gone.
        """
        await self._write(event(data))

    async def close(self) -> None:
        """Write the end of the stream.

        Raises:
            ConnectionError: the client has gone.
        """
        await self._write(DONE)
        await self._response.write_eof()

    @contextlib.asynccontextmanager
    async def kept_alive(self) -> AsyncIterator[None]:
        """Write comments while the body waits for its next event. What the body raises comes out as it is."""
        try:
            async with asyncio.TaskGroup() as group:
                comments = group.create_task(self._comment())
                try:
                    yield
                finally:
                    comments.cancel()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _comment(self) -> None:
        # A client that has gone is the body's business: its own write or its cancellation tells it.
        with contextlib.suppress(ConnectionError):
            while True:
                self._was_quiet = True
                await asyncio.sleep(self._keep_alive_s)
                if self._was_quiet:
                    await self._write(KEEP_ALIVE)

    async def _write(self, data: bytes) -> None:
        async with self._opening:
            if not self._response.prepared:
                await self._response.prepare(self._request)
        self._was_quiet = False
        try:
            async with asyncio.timeout(WRITE_S):
                await self._response.write(data)
        except TimeoutError as error:
            if self._request.transport is not None:
                self._request.transport.abort()
            raise ConnectionAbortedError(f"the client took nothing for {WRITE_S:g} s") from error
