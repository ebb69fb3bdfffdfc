"""Who may ask a program over HTTP: API key, host name, content type. The edge's endpoint and the orchestrator's API keep these rules.

Without an API key, three things keep other web pages in the user's browser out: the program listens on loopback only, the Host header
must name loopback (a page whose name was rebound to 127.0.0.1 still sends its own name), and bodies must be declared as JSON, which a
page may not send across origins without asking first, and nobody here answers that.
"""

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING

from paceline.errors import ConfigError
from paceline.settings import Address

if TYPE_CHECKING:
    from aiohttp import web  # takes its time, and reading options needs none of it

MIN_KEY_LENGTH = 8


# Not frozen: the interpreter writes the traceback into an exception.
@dataclass(eq=False, kw_only=True)
class RefusedError(Exception):
    """A request that may not come in."""

    status: int
    """HTTP status."""

    message: str
    """One sentence: what was got, what was expected."""

    code: str
    """Machine-readable reason."""

    def __str__(self) -> str:
        """Return the message."""
        return self.message


def check_opening(listen: Address, *, api_key: str | None, is_insecure: bool, risk: str) -> None:
    """Let an address be listened at if nobody comes in that should not.

    Args:
        listen: where clients will connect.
        api_key: what they must present; None asks for none.
        is_insecure: the operator wants it all the same.
        risk: what others could do, for the error: "use the agent".

    Raises:
        ConfigError: the key is too short, or other machines could come in without one.
    """
    if api_key is not None and len(api_key) < MIN_KEY_LENGTH:
        raise ConfigError(f"--api-key is too short, expected at least {MIN_KEY_LENGTH} characters")
    if not (listen.is_loopback or api_key or is_insecure):
        raise ConfigError(
            f"--listen {listen}: other machines could {risk} without a key; set --api-key-file, or --insecure if that is wanted"
        )


def check_request(request: "web.Request", *, listen: Address, api_key: str | None) -> None:
    """Let a request pass that knows the key, or else was meant for this machine, and that no other page can have sent unasked.

    Raises:
        RefusedError: it may not pass.
    """
    check_host(request, listen=listen, api_key=api_key)
    _check_key(request, api_key)
    if request.method == "POST" and request.content_type != "application/json":
        raise RefusedError(
            status=415,
            message=f"Content-Type: got {request.content_type!r}, expected application/json",
            code="unsupported_media_type",
        )


def check_host(request: "web.Request", *, listen: Address, api_key: str | None) -> None:
    """Let a request for this machine pass; with a key, or beyond loopback, any name will do.

    Raises:
        RefusedError: the browser took us for another host.
    """
    if api_key is not None or not listen.is_loopback:
        return
    host = _host_name(request.host)
    if not Address(host=host, port=0).is_loopback:
        raise RefusedError(
            status=403,
            message=f"Host: got {host!r}, expected localhost; set an API key to serve other names",
            code="forbidden_host",
        )


def _check_key(request: "web.Request", wanted: str | None) -> None:
    if wanted is None:
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # Bytes, because compare_digest refuses text beyond ASCII, and a header may hold anything.
    equal = hmac.compare_digest(
        given.strip().encode("utf-8", "surrogateescape"), wanted.encode("utf-8")
    )
    if scheme.lower() != "bearer" or not equal:
        raise RefusedError(
            status=401,
            message="the API key is missing or wrong; send it as 'Authorization: Bearer KEY'",
            code="invalid_api_key",
        )


def _host_name(header: str) -> str:
    """Return the name in a Host header, without port and brackets; it may hold anything."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
