"""Who may look at the fleet: API key, host name, content type.

Without an API key, three things keep other web pages in the user's browser out: we listen on loopback only, the Host header must
name loopback (a page whose name was rebound to 127.0.0.1 still sends its own name), and bodies must be declared as JSON, which a
page may not send across origins without asking first, and nobody here answers that. The edge's endpoint keeps the same rules.
"""

import hmac

from aiohttp import web

from orchestrator.options import GateSettings
from paceline.settings import Address


def check_host(request: web.Request, settings: GateSettings) -> None:
    """Let a request for this machine pass; with a key, or beyond loopback, any name will do.

    Raises:
        HTTPForbidden: the browser took us for another host.
    """
    if settings.api_key is not None or not settings.listen.is_loopback:
        return
    host = _host_name(request.host)
    if not Address(host=host, port=0).is_loopback:
        raise web.HTTPForbidden(
            text=f"Host: got {host!r}, expected localhost; set an API key to serve other names"
        )


def check_key(request: web.Request, settings: GateSettings) -> None:
    """Let a request with the right key pass.

    Raises:
        HTTPUnauthorized: the key is missing or wrong.
    """
    if settings.api_key is None:
        return
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    # Bytes, because compare_digest refuses text beyond ASCII, and a header may hold anything.
    equal = hmac.compare_digest(
        given.strip().encode("utf-8", "surrogateescape"), settings.api_key.encode()
    )
    if scheme.lower() != "bearer" or not equal:
        raise web.HTTPUnauthorized(
            text="the API key is missing or wrong; it belongs in the Authorization header"
        )


def check_type(request: web.Request) -> None:
    """Let a request pass that no other origin's page can send unasked.

    Raises:
        HTTPUnsupportedMediaType: its body is not declared as JSON.
    """
    if request.method == "POST" and request.content_type != "application/json":
        raise web.HTTPUnsupportedMediaType(
            text=f"Content-Type: got {request.content_type!r}, expected application/json"
        )


def _host_name(header: str) -> str:
    """Return the name in a Host header, without port and brackets; it may hold anything."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]
