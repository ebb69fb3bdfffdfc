"""Asks a running orchestrator, for the commands that show and steer it."""

import ssl
from typing import Any

import aiohttp

from orchestrator.options import AskSettings
from paceline.errors import (
    ConfigError,
    LinkClosed,
    LinkTimeout,
    PacelineError,
    UnauthenticatedError,
)

TIMEOUT_S = 10.0


async def ask(
    settings: AskSettings, path: str, *, body: dict[str, object] | None = None
) -> dict[str, Any]:
    """Return the answer of one request; with a body it is an order.

    Raises:
        TransportError: nobody answers there.
        UnauthenticatedError: the key is missing or wrong.
        ConfigError: the orchestrator says that the request is wrong, or it is no orchestrator.
    """
    headers = {} if settings.api_key is None else {"Authorization": f"Bearer {settings.api_key}"}
    try:
        async with (
            aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=TIMEOUT_S)) as session,
            session.request(
                "GET" if body is None else "POST",
                settings.url + path,
                json=body,
                headers=headers,
                ssl=_context(settings),
                allow_redirects=False,
            ) as response,
        ):
            return _checked(response.status, await response.json(), settings)
    except TimeoutError as error:
        raise LinkTimeout(
            f"--at: {settings.url} did not answer within {TIMEOUT_S:.0f} s"
        ) from error
    except (aiohttp.ContentTypeError, ValueError) as error:
        raise ConfigError(f"--at: {settings.url} is not an orchestrator's page") from error
    except aiohttp.ClientError as error:
        raise LinkClosed(
            f"--at: no orchestrator answers at {settings.url}: {error}; is `paceline orchestrator serve` running there?"
        ) from error


def _checked(status: int, answer: Any, settings: AskSettings) -> dict[str, Any]:
    if not isinstance(answer, dict):
        raise ConfigError(f"--at: {settings.url} is not an orchestrator's page")
    if status == 200:
        return answer
    sentence = str(answer.get("error", f"status {status}"))
    if status == 401:
        raise UnauthenticatedError(f"{settings.url}: {sentence}; give it with --api-key-file")
    if status in (400, 403, 404):
        raise ConfigError(sentence)
    raise PacelineError(f"{settings.url}: {sentence}")


def _context(settings: AskSettings) -> ssl.SSLContext | bool:
    if settings.ca_file is None:
        return True
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:
        raise ConfigError(
            f"--tls-ca: cannot read certificates from {settings.ca_file}: {error}"
        ) from error
