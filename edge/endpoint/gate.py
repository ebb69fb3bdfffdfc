"""Who may come in (the rules of `paceline.http_gate`), and how many at once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from aiohttp import web

from edge.endpoint.failures import ApiError
from paceline.errors import ConfigError
from paceline.http_gate import RefusedError, check_opening, check_request
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
        check_opening(
            self.listen, api_key=self.api_key, is_insecure=self.insecure, risk="use the agent"
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
        settings = self._settings
        try:
            check_request(request, listen=settings.listen, api_key=settings.api_key)
        except RefusedError as error:
            raise ApiError(status=error.status, message=error.message, code=error.code) from error

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
