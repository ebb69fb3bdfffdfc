"""Runs the endpoint's HTTP server."""

import contextlib
import socket
from collections.abc import AsyncIterator

from aiohttp import web

from edge.endpoint.service import Service
from paceline.settings import Address

SHUTDOWN_S = 5.0
"""Answers in the making get so long to end once the agent is told to stop, in seconds."""


@contextlib.asynccontextmanager
async def serving(service: Service, *, listener: socket.socket) -> AsyncIterator[Address]:
    """Serve on a bound socket, which is closed in the end, while the body runs; gives its address."""
    runner = web.AppRunner(
        service.application(),
        # A client that leaves cancels its handler, which frees the verifier's session at once.
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        await web.SockSite(runner, listener).start()
        host, port = listener.getsockname()[:2]
        yield Address(host=host, port=port)
    finally:
        await runner.cleanup()
