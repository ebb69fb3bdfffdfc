"""The HTTP face of the orchestrator: the dashboard's page and the JSON API under it.

    GET  /                                the page
    GET  /api/fleet                       edges, verifiers, totals, the orchestrator's own figures
    GET  /api/edges/ID                    one edge, with the whole explanation of its policy
    GET  /api/edges/ID/history?last_s=    points for charts and decisions
    GET  /api/events                      server-sent events: `fleet` once, then `change` every second
    POST /api/edges/ID/pin                {"draft_length": 6}
    POST /api/edges/ID/release            {}
    GET  /health                          200 while the broker is there, else 503; needs no key

Whatever fails is {"error": sentence} with a status. Every text is JSON: nothing a peer says is ever put into markup here.
"""

import contextlib
import json
import sqlite3
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict

from aiohttp import web

from orchestrator.dashboard import assets
from orchestrator.feed import sent_event
from orchestrator.history_file import unix_s
from orchestrator.options import GateSettings
from orchestrator.service import Service, UnknownEdgeError
from paceline.control.messages import MAX_DRAFT_LENGTH
from paceline.errors import ConfigError, OverloadedError
from paceline.http_gate import RefusedError, check_host, check_request
from paceline.settings import Address

MAX_BODY_BYTES = 4096
MAX_LAST_S = 31 * 24 * 3600.0
SHUTDOWN_S = 1.0
MAX_DECISIONS = 200

SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}

_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Api:
    """Answers requests about one service."""

    def __init__(self, service: Service, *, settings: GateSettings) -> None:
        self._service = service
        self._settings = settings
        self._assets = assets()

    def application(self) -> web.Application:
        """Return the application with all its paths."""
        application = web.Application(middlewares=[self._guard], client_max_size=MAX_BODY_BYTES)
        application.router.add_get("/health", self._health)
        application.router.add_get("/api/fleet", self._fleet)
        # HEAD would follow for ever and never be told anything.
        application.router.add_get("/api/events", self._events, allow_head=False)
        application.router.add_get("/api/edges/{edge}", self._edge)
        application.router.add_get("/api/edges/{edge}/history", self._history)
        application.router.add_post("/api/edges/{edge}/pin", self._pin)
        application.router.add_post("/api/edges/{edge}/release", self._release)
        for path in self._assets:
            application.router.add_get(path, self._asset)
        application.on_response_prepare.append(_add_security_headers)
        return application

    @web.middleware
    async def _guard(self, request: web.Request, handler: _Handler) -> web.StreamResponse:
        """Let in who may come in, and turn every failure into JSON."""
        settings = self._settings
        # The page and whether we are well are for everybody who may call us by this name: neither tells of the fleet.
        check = check_request if request.path.startswith("/api/") else check_host
        try:
            check(request, listen=settings.listen, api_key=settings.api_key)
            return await handler(request)
        except RefusedError as error:
            return _json({"error": error.message}, status=error.status)
        except web.HTTPException as error:
            return _failure(error)
        except UnknownEdgeError as error:
            return _json({"error": str(error)}, status=404)
        except ConfigError as error:
            return _json({"error": str(error)}, status=400)
        except OverloadedError as error:
            return _json({"error": str(error)}, status=503)
        except sqlite3.Error as error:
            return _json({"error": f"the history cannot be read: {error}"}, status=503)

    async def _asset(self, request: web.Request) -> web.Response:
        asset = self._assets[request.path]
        headers = {"Cache-Control": "no-cache", "ETag": f'"{asset.tag}"'}
        if request.headers.get("If-None-Match") == headers["ETag"]:
            return web.Response(status=304, headers=headers)
        return web.Response(
            body=asset.content, content_type=asset.content_type, charset="utf-8", headers=headers
        )

    async def _health(self, request: web.Request) -> web.Response:
        del request
        is_connected = self._service.is_connected
        return _json({"is_connected": is_connected}, status=200 if is_connected else 503)

    async def _fleet(self, request: web.Request) -> web.Response:
        del request
        return web.Response(text=self._service.everything(), content_type="application/json")

    async def _edge(self, request: web.Request) -> web.Response:
        return _json(self._service.edge(request.match_info["edge"]))

    async def _history(self, request: web.Request) -> web.Response:
        edge, last_s = request.match_info["edge"], _last_s(request)
        self._service.check_edge(edge)
        now_s = unix_s()
        points = await self._service.history.edge(edge, since_s=now_s - last_s)
        decisions = await self._service.history.decisions(
            edge, since_s=now_s - last_s, limit=MAX_DECISIONS
        )
        return _json(
            {
                "edge": edge,
                "now_s": now_s,
                "last_s": last_s,
                "points": [asdict(point) for point in points],
                "decisions": [asdict(decision) for decision in decisions],
            }
        )

    async def _pin(self, request: web.Request) -> web.Response:
        edge, body = request.match_info["edge"], await _body(request)
        length = body.get("draft_length")
        if type(length) is not int or not 0 <= length <= MAX_DRAFT_LENGTH:
            raise ConfigError(
                f"draft_length: got {length!r}, expected a whole number from 0 to {MAX_DRAFT_LENGTH}"
            )
        await self._service.pin(edge, draft_length=length)
        return _json(self._service.edge(edge))

    async def _release(self, request: web.Request) -> web.Response:
        edge = request.match_info["edge"]
        await _body(request)
        await self._service.pin(edge, draft_length=None)
        return _json(self._service.edge(edge))

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Stream events until the reader leaves, or is dropped because it reads too slowly."""

        def drop() -> None:
            if request.transport is not None:
                request.transport.abort()

        with self._service.feed.reading(drop) as reader:
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store"}
            )
            await response.prepare(request)
            # What changes while this is written waits in the reader's queue.
            await response.write(sent_event("fleet", self._service.everything()))
            async for event in reader.events():
                await response.write(event)
        return response


@contextlib.asynccontextmanager
async def serving(
    application: web.Application, *, listen: Address, tls: ssl.SSLContext | None
) -> AsyncIterator[Address]:
    """Serve while the body runs; gives the address with the real port.

    Raises:
        ConfigError: the address cannot be listened at.
    """
    # A browser that leaves cancels its handler, so that its place in the feed is free at once.
    runner = web.AppRunner(
        application, handler_cancellation=True, access_log=None, shutdown_timeout=SHUTDOWN_S
    )
    await runner.setup()
    try:
        site = web.TCPSite(runner, listen.host, listen.port, ssl_context=tls)
        try:
            await site.start()
        except OSError as error:
            raise ConfigError(
                f"--listen: cannot listen on {listen}: {error.strerror or error}; choose another address or port, or port 0 "
                "for any"
            ) from error
        yield Address(host=listen.host, port=runner.addresses[0][1])
    finally:
        await runner.cleanup()


async def _add_security_headers(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers.update(SECURITY_HEADERS)


def _last_s(request: web.Request) -> float:
    text = request.query.get("last_s", "300")
    try:
        last_s = float(text)
    except ValueError:
        last_s = -1.0
    if not 0.0 < last_s <= MAX_LAST_S:
        raise ConfigError(
            f"last_s: got {text!r}, expected seconds, above 0 and at most {MAX_LAST_S:.0f}"
        )
    return last_s


async def _body(request: web.Request) -> dict[str, object]:
    try:
        body = await request.json()
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"body: not JSON: {error}") from error
    if not isinstance(body, dict):
        raise ConfigError(f"body: got {type(body).__name__}, expected an object")
    return body


def _json(value: object, *, status: int = 200) -> web.Response:
    text = json.dumps(value, allow_nan=False)
    return web.Response(
        text=text,
        status=status,
        content_type="application/json",
        headers={"Cache-Control": "no-store"},
    )


def _failure(error: web.HTTPException) -> web.Response:
    response = _json({"error": error.text or error.reason}, status=error.status)
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
