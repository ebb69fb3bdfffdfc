"""The handlers of the OpenAI-compatible endpoint."""

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from aiohttp import web
from aiohttp.typedefs import Handler

from edge.endpoint.answer import Heading, piece_logprobs
from edge.endpoint.failures import ApiError, translate
from edge.endpoint.gate import EndpointSettings, Gate
from edge.endpoint.health import Health
from edge.endpoint.request import GenerationRequest, parse_chat, parse_completion
from edge.endpoint.stream import EventStream
from paceline.client.client import Client
from paceline.client.generation import Generation
from paceline.client.outcome import GenerationResult, Piece
from paceline.engine.tokenizer import Tokenizer
from paceline.errors import PacelineError
from paceline.messages import Limits, ModelIdentity

log = logging.getLogger(__name__)

READ_S = 30.0
"""Longest time for a request's body to arrive, in seconds."""

STREAM = web.RequestKey("stream", EventStream)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """The target, as clients of the endpoint see it."""

    name: str
    """What clients call it."""

    target: ModelIdentity
    limits: Limits

    @property
    def fingerprint(self) -> str:
        """OpenAI's system_fingerprint: changes when the text of a seed may change."""
        parts = (self.target.weights_fingerprint.hex(), self.target.dtype, self.target.quantisation)
        return f"fp_{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:12]}"

    def listed(self, *, created: int) -> dict[str, Any]:
        """Return its entry in the list of models."""
        return {
            "id": self.name,
            "object": "model",
            "created": created,
            "owned_by": "paceline",
            "context_length": self.limits.context_length,
        }


class Service:
    """Answers requests with a client's generations.

    Args:
        client: entered; outlives the service.
        tokenizer: the target's.
        model: the one model that is served.
        settings: the endpoint's.
    """

    def __init__(
        self,
        client: Client,
        *,
        tokenizer: Tokenizer,
        model: ServedModel,
        settings: EndpointSettings,
    ) -> None:
        self._client = client
        self._tokenizer = tokenizer
        self._model = model
        self._settings = settings
        self._gate = Gate(settings)
        self._health = Health(client)
        self._created = _unix_time()

    @property
    def num_admitted(self) -> int:
        """Answers in the making now."""
        return self._gate.num_admitted

    def application(self) -> web.Application:
        """Return the routes, for a server."""
        app = web.Application(
            middlewares=[self._guard], client_max_size=self._settings.max_body_bytes
        )
        app.router.add_get("/health", self._get_health)
        app.router.add_get("/v1/models", self._get_models)
        app.router.add_get("/v1/models/{name:.+}", self._get_model)
        app.router.add_post("/v1/chat/completions", self._post_chat)
        app.router.add_post("/v1/completions", self._post_completion)
        return app

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Let a request in, and turn every failure into an answer."""
        try:
            if request.path != "/health":
                self._gate.check(request)
            response = await handler(request)
        except web.HTTPException as error:
            return _refusal(ApiError(status=error.status, message=_said(error)), error.headers)
        except ConnectionError:
            raise  # The client has gone; aiohttp knows what to do.
        except Exception as error:  # noqa: BLE001 - the one place that answers for every bug
            failure = _failure(error)
            stream: EventStream | None = request.get(STREAM)
            if stream is None or not stream.is_open:
                return _refusal(failure)
            await stream.send(failure.body())
            await stream.close()
            return stream.response
        return response

    async def _get_health(self, request: web.Request) -> web.Response:
        del request
        report = await self._health.report()
        body = {"model": self._model.name, "active": self.num_admitted, **report}
        return web.json_response(body, status=200 if report["verifier"]["reachable"] else 503)

    async def _get_models(self, request: web.Request) -> web.Response:
        del request
        listed = self._model.listed(created=self._created)
        return web.json_response({"object": "list", "data": [listed]})

    async def _get_model(self, request: web.Request) -> web.Response:
        self._check_model(request.match_info["name"])
        return web.json_response(self._model.listed(created=self._created))

    async def _post_chat(self, request: web.Request) -> web.StreamResponse:
        body = await _json_of(request)
        wanted = parse_chat(body, default_seed=secrets.randbits(63))
        return await self._answer(request, wanted, self._heading("chat"))

    async def _post_completion(self, request: web.Request) -> web.StreamResponse:
        body = await _json_of(request)
        wanted = parse_completion(body, default_seed=secrets.randbits(63))
        return await self._answer(request, wanted, self._heading("text"))

    async def _answer(
        self, request: web.Request, wanted: GenerationRequest, heading: Heading
    ) -> web.StreamResponse:
        self._check_model(wanted.model)
        with self._gate.admitted():
            generation = self._generate(wanted)
            if wanted.stream:
                return await self._stream(request, wanted, heading, generation)
            return await self._collect(wanted, heading, generation)

    async def _collect(
        self, wanted: GenerationRequest, heading: Heading, generation: Generation
    ) -> web.Response:
        """Answer in one piece."""
        async with generation:
            tokens = [self._logprobs(wanted, piece) async for piece in generation]
        result = generation.result
        _log_answer(result)
        present = [entry for entry in tokens if entry is not None]
        return web.json_response(
            heading.body(result, logprobs=None if wanted.num_logprobs is None else present)
        )

    async def _stream(
        self,
        request: web.Request,
        wanted: GenerationRequest,
        heading: Heading,
        generation: Generation,
    ) -> web.StreamResponse:
        """Answer with one event per token."""
        request[STREAM] = stream = EventStream(request, keep_alive_s=self._settings.keep_alive_s)
        no_usage = {"usage": None} if wanted.include_usage else {}
        async with stream.kept_alive(), generation:
            first = heading.first_chunk()
            async for piece in generation:
                if first is not None:
                    await stream.send(first | no_usage)
                    first = None
                logprobs = self._logprobs(wanted, piece)
                await stream.send(heading.piece_chunk(piece.text, logprobs=logprobs) | no_usage)
        result = generation.result
        if first is not None:
            await stream.send(first | no_usage)
        await stream.send(heading.last_chunk(result) | no_usage)
        if wanted.include_usage:
            await stream.send(heading.usage_chunk(result))
        await stream.close()
        _log_answer(result)
        return stream.response

    def _generate(self, wanted: GenerationRequest) -> Generation:
        return self._client.generate(
            messages=wanted.messages,
            prompt=wanted.prompt,
            # More than the verifier ever gives is the same as what it gives.
            max_tokens=min(
                wanted.max_tokens or self._settings.max_tokens, self._model.limits.max_tokens
            ),
            sampling=wanted.sampling,
            stop=wanted.stop,
            # Zero would mean none at all; the token's own comes with the first alternative.
            num_logprobs=0 if wanted.num_logprobs is None else max(1, wanted.num_logprobs),
        )

    def _logprobs(self, wanted: GenerationRequest, piece: Piece) -> dict[str, Any] | None:
        if wanted.num_logprobs is None:
            return None
        return piece_logprobs(piece, num_top=wanted.num_logprobs, tokenizer=self._tokenizer)

    def _heading(self, kind: Literal["chat", "text"]) -> Heading:
        return Heading(
            kind=kind,
            id=f"{'chatcmpl' if kind == 'chat' else 'cmpl'}-{secrets.token_hex(12)}",
            created=_unix_time(),
            model=self._model.name,
            fingerprint=self._model.fingerprint,
        )

    def _check_model(self, name: str) -> None:
        if name != self._model.name:
            raise ApiError(
                status=404,
                message=f"model: got {name!r}, this server has {self._model.name!r}",
                param="model",
                code="model_not_found",
            )


async def _json_of(request: web.Request) -> Any:
    try:
        async with asyncio.timeout(READ_S):
            data = await request.read()
    except TimeoutError as error:
        raise ApiError(
            status=408, message=f"the body did not arrive within {READ_S:g} s", code="timeout"
        ) from error
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ApiError(
            status=400, message=f"the body is not JSON: {error}", code="invalid_json"
        ) from error


def _failure(error: Exception) -> ApiError:
    match error:
        case ApiError():
            return error
        case PacelineError():
            return translate(error)
    log.error("a request failed unexpectedly", exc_info=error)
    return ApiError(
        status=500, message="internal error; the agent's log tells more", type="server_error"
    )


def _refusal(error: ApiError, headers: Mapping[str, str] | None = None) -> web.Response:
    allowed = {"Allow": headers["Allow"]} if headers and "Allow" in headers else {}
    return web.json_response(error.body(), status=error.status, headers=error.headers() | allowed)


def _said(error: web.HTTPException) -> str:
    """Return what an error of aiohttp's own means here."""
    match error:
        case web.HTTPRequestEntityTooLarge():
            return f"the body is too large: {error.text}"
        case web.HTTPNotFound():
            return "no such path; try /v1/models, /v1/chat/completions or /v1/completions"
    return error.text or error.reason


def _log_answer(result: GenerationResult) -> None:
    statistics = result.statistics
    log.info(
        "answered",
        extra={
            "prompt_tokens": result.prompt_tokens,
            "completion_tokens": result.completion_tokens,
            "finish_reason": result.finish_reason.value,
            "tokens_per_s": statistics.tokens_per_s,
            "accepted": statistics.accepted,
            "judged": statistics.judged,
        },
    )


def _unix_time() -> int:
    return int(datetime.now(UTC).timestamp())
