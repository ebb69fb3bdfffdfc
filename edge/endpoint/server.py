"""Runs the endpoint's HTTP server."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from edge.endpoint.gate import EndpointSettings
from edge.endpoint.service import Service
from paceline.settings import Address

SHUTDOWN_S = 5.0
"""Answers in the making get so long to end once the agent is told to stop, in seconds."""


@contextlib.asynccontextmanager
async def serving(service: Service, *, settings: EndpointSettings) -> AsyncIterator[Address]:
    """Serve while the body runs; gives the address, with the port that the system chose if it was 0.

    Raises:
        OSError: the address cannot be listened at, because the port is in use for example.
    """
    runner = web.AppRunner(
        service.application(),
        # A client that leaves cancels its handler, which frees the verifier's session at once.
        handler_cancellation=True,
        access_log=None,
        shutdown_timeout=SHUTDOWN_S,
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, settings.listen.host, settings.listen.port)
        await site.start()
        yield Address(host=settings.listen.host, port=runner.addresses[0][1])
    finally:
        await runner.cleanup()
