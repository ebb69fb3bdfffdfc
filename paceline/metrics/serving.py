"""Serves a registry to Prometheus from the program's own event loop."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import hdrs, web
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4, CollectorRegistry, generate_latest
from prometheus_client.openmetrics import exposition as openmetrics

from paceline.errors import ConfigError
from paceline.settings import Address

METRICS_PATH = "/metrics"
OPENMETRICS = "application/openmetrics-text"
SHUTDOWN_S = 1.0
"""A scrape under way gets so long to end, in seconds."""


@contextlib.asynccontextmanager
async def serving_metrics(
    registry: CollectorRegistry, listen: Address | None
) -> AsyncIterator[Address | None]:
    """Serve GET /metrics while the body runs; gives the address with the real port.

    Text format, or OpenMetrics to whom asks for it by the Accept header.

    Args:
        registry: what to tell.
        listen: where; None serves nothing and gives None.

    Raises:
        ConfigError: the address cannot be listened at.
    """
    if listen is None:
        yield None
        return

    async def answer(request: web.Request) -> web.Response:
        return exposition(registry, accept=",".join(request.headers.getall(hdrs.ACCEPT, [])))

    application = web.Application()
    application.router.add_get(METRICS_PATH, answer)
    runner = web.AppRunner(application, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        yield await _start(runner, listen)
    finally:
        await runner.cleanup()


def exposition(registry: CollectorRegistry, *, accept: str = "") -> web.Response:
    """Return all figures of this moment in the format that the Accept header asks for.

    The library's own handler is not used: up to 0.26 it writes `paceline_x` for samples of `paceline:x` in OpenMetrics
    (prometheus/client_python#1177). Names that need no escaping are the same under every escaping scheme.
    """
    kinds = {kind.partition(";")[0].strip() for kind in accept.split(",")}
    if OPENMETRICS in kinds:
        body = openmetrics.generate_latest(registry, escaping=openmetrics.ALLOWUTF8)  # type: ignore[no-untyped-call]
        kind = openmetrics.CONTENT_TYPE_LATEST
    else:
        body, kind = generate_latest(registry), CONTENT_TYPE_PLAIN_0_0_4
    response = web.Response(body=body, headers={hdrs.CONTENT_TYPE: kind})
    response.enable_compression()
    return response


async def _start(runner: web.AppRunner, listen: Address) -> Address:
    site = web.TCPSite(runner, listen.host, listen.port)
    try:
        await site.start()
    except OSError as error:
        raise ConfigError(
            f"--metrics-listen: cannot listen on {listen}: {error.strerror or error}; choose another address or port, "
            "or port 0 for any"
        ) from error
    return Address(host=listen.host, port=runner.addresses[0][1])
