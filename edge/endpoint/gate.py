"""Who may come in: API key, host name, content type, and how many at once.

Without an API key, three things keep other web pages in the user's browser out: the agent listens on loopback only,
the Host header must name loopback (a page whose name was rebound to 127.0.0.1 still sends its own name), and bodies
must be declared as JSON, which a page may not send across origins without asking first, and nobody here answers that.
"""

import hmac
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from edge.endpoint.failures import ApiError
from paceline.errors import ConfigError
from paceline.settings import Address

BUSY_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointSettings:
    """The endpoint's own settings.

    Raises:
        ConfigError: a field is out of its range, or others could use the agent without a key.
    """

    listen: Address
    """Where clients connect; port 0 lets the system choose."""

    api_key: str | None = field(default=None, repr=False)
    """What clients must present; none: no key, on loopback."""

    insecure: bool = False
    """Listen to other machines without an API key."""

    max_concurrent: int = 8
    """Answers in the making at once, 1 to 1024; more are refused with 429. Each is a session of the verifier."""

    max_tokens: int = 1024
    """Most tokens of an answer whose request does not say; at least 1. The verifier reserves memory for all of them."""

    max_body_bytes: int = 4 * 1024 * 1024
    """Longest request body; far above any context."""

    keep_alive_s: float = 10.0
    """A waiting stream says so this often, in seconds, so that proxies do not take it for dead."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not 1 <= self.max_concurrent <= 1024:
            raise ConfigError(
                f"--max-concurrent: got {self.max_concurrent}, expected a number from 1 to 1024"
            )
        if self.max_tokens < 1:
            raise ConfigError(f"--max-tokens: got {self.max_tokens}, expected at least 1")
        if self.api_key is not None and len(self.api_key) < 8:
            raise ConfigError("--api-key: too short, expected at least 8 characters")
        if not (self.listen.is_loopback or self.api_key or self.insecure):
            raise ConfigError(
                f"--listen {self.listen}: other machines could use the agent without a key; "
                "set --api-key, or --insecure if that is wanted"
            )


class Gate:
    """Checks requests before they are read."""

    def __init__(self, settings: EndpointSettings) -> None:
        self._settings = settings
        self._num_admitted = 0

    @property
    def num_admitted(self) -> int:
        """Answers in the making now."""
        return self._num_admitted

    def check(self, request: web.Request) -> None:
        """Let a request pass.

        Raises:
            ApiError: it may not.
        """
        self._check_key(request)
        self._check_host(request)
        if request.method == "POST" and request.content_type != "application/json":
            raise ApiError(
                status=415,
                message=f"Content-Type: got {request.content_type!r}, expected application/json",
                code="unsupported_media_type",
            )

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count one answer in the making.

        Raises:
            ApiError: there are too many already.
        """
        if self._num_admitted >= self._settings.max_concurrent:
            raise ApiError(
                status=429,
                message=f"{self._num_admitted} answers are in the making, which is the limit; try again",
                type="rate_limit_error",
                code="overloaded",
                retry_after_s=BUSY_RETRY_S,
            )
        self._num_admitted += 1
        try:
            yield
        finally:
            self._num_admitted -= 1

    def _check_key(self, request: web.Request) -> None:
        wanted = self._settings.api_key
        if wanted is None:
            return
        scheme, _, given = request.headers.get("Authorization", "").partition(" ")
        # Bytes, because compare_digest refuses text beyond ASCII, and a header may hold anything.
        equal = hmac.compare_digest(
            given.strip().encode("utf-8", "surrogateescape"), wanted.encode()
        )
        if scheme.lower() != "bearer" or not equal:
            raise ApiError(
                status=401,
                message="the API key is missing or wrong; send it as 'Authorization: Bearer KEY'",
                code="invalid_api_key",
            )

    def _check_host(self, request: web.Request) -> None:
        if self._settings.api_key is not None or not self._settings.listen.is_loopback:
            return
        host = _host_name(request.host)
        if not Address(host=host, port=0).is_loopback:
            raise ApiError(
                status=403,
                message=f"Host: got {host!r}, expected localhost; set an API key to serve other names",
                code="forbidden_host",
            )


def _host_name(header: str) -> str:
    """Return the name in a Host header, without port and brackets; it may hold anything."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
