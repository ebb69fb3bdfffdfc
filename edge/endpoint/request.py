"""What a client asks for: OpenAI's request bodies, checked.

Every field is one of four: used, known to change nothing here (accepted), supported only in its neutral value, or
refused by name. Nothing that would change the answer is ignored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from edge.endpoint import fields
from edge.endpoint.failures import ApiError, bad_request
from paceline.prompts import Message
from paceline.sampling.settings import SamplingSettings
from paceline.settings import unknown_name


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationRequest:
    """One answer to make."""

    model: str
    """Name of the model that the client wants."""

    messages: tuple[Message, ...] | None = None
    """A conversation; either this or `prompt`."""

    prompt: str | None = None
    """A text that is continued as it stands."""

    sampling: SamplingSettings

    max_tokens: int | None
    """Most tokens of the answer; none: the agent's own bound."""

    stop: tuple[str, ...] = ()

    num_logprobs: int | None = None
    """Alternatives to tell beside each token's own log probability; none: no log probabilities."""

    stream: bool = False

    include_usage: bool = False
    """End a stream with a chunk that counts tokens."""


_SHARED = frozenset(
    {
        "model",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "presence_penalty",
        "frequency_penalty",
        "repetition_penalty",
        "logit_bias",
        "max_tokens",
        "stop",
        "seed",
        "stream",
        "stream_options",
    }
)
_CHAT = _SHARED | {"messages", "max_completion_tokens", "logprobs", "top_logprobs"}
_TEXT = _SHARED | {"prompt"}

_HARMLESS = frozenset(
    {
        "user",
        "store",
        "metadata",
        "safety_identifier",
        "prompt_cache_key",
        "prompt_cache_retention",
        "service_tier",
        "parallel_tool_calls",
    }
)
"""They name the caller or steer OpenAI's own service; the text does not depend on them."""


def _is(*neutral: Any) -> Callable[[Any], bool]:
    """Return the test for being one of these values, types included: 1 is not true."""
    return lambda value: any(value == known and type(value) is type(known) for known in neutral)


_NEUTRAL_ONLY: Mapping[str, Callable[[Any], bool]] = {
    "n": _is(1),
    "best_of": _is(1),
    "echo": _is(False),  # noqa: FBT003 - it is the value
    "suffix": _is(""),
    "tools": _is([]),
    "tool_choice": _is("none", "auto"),
    "functions": _is([]),
    "function_call": _is("none", "auto"),
    "response_format": _is({"type": "text"}),
    "modalities": _is(["text"]),
    "reasoning_effort": _is("none"),
    "verbosity": _is("medium"),
    "audio": _is(),
    "prediction": _is(),
    "web_search_options": _is(),
    "moderation": _is(),
}
"""Fields of OpenAI's that are not supported, each with the test for a value that asks for nothing."""


def parse_chat(body: Any, *, default_seed: int) -> GenerationRequest:
    """Return the request of a body for /v1/chat/completions.

    Args:
        body: decoded JSON.
        default_seed: used when the body has none.

    Raises:
        ApiError: a field is unknown, unsupported or wrong; names it.
        InvalidRequestError: a sampling setting is out of its range; names it.
    """
    _check_names(body, known=_CHAT)
    return _request(
        body,
        messages=fields.messages(body),
        default_seed=default_seed,
        max_tokens=fields.max_tokens(body, "max_completion_tokens", "max_tokens"),
        num_logprobs=fields.num_chat_logprobs(body),
    )


def parse_completion(body: Any, *, default_seed: int) -> GenerationRequest:
    """Return the request of a body for /v1/completions. The same as `parse_chat` otherwise."""
    if isinstance(body, dict) and body.get("logprobs") is not None:
        raise bad_request("logprobs", "works on /v1/chat/completions only", code="unsupported")
    known = _TEXT | {"logprobs"}
    _check_names(body, known=known)
    prompt = body.get("prompt")
    if isinstance(prompt, list) and len(prompt) == 1:
        prompt = prompt[0]
    if not isinstance(prompt, str) or not prompt:
        raise bad_request("prompt", "expected one text that is not empty")
    return _request(
        body,
        prompt=prompt,
        default_seed=default_seed,
        # OpenAI's default on this path.
        max_tokens=fields.max_tokens(body, "max_tokens") or 16,
    )


def _request(
    body: Mapping[str, Any],
    *,
    default_seed: int,
    max_tokens: int | None,
    messages: tuple[Message, ...] | None = None,
    prompt: str | None = None,
    num_logprobs: int | None = None,
) -> GenerationRequest:
    model = body.get("model")
    if not isinstance(model, str) or not model:
        raise bad_request("model", "expected the name of a model; GET /v1/models lists it")
    top_k = fields.integer(body, "top_k", 0)
    assert top_k is not None
    stream = fields.boolean(body, "stream", default=False)
    return GenerationRequest(
        model=model,
        messages=messages,
        prompt=prompt,
        sampling=SamplingSettings(
            temperature=fields.number(body, "temperature", 1.0),
            # Several servers write "all" as -1.
            top_k=0 if top_k == -1 else top_k,
            top_p=fields.number(body, "top_p", 1.0),
            min_p=fields.number(body, "min_p", 0.0),
            repetition_penalty=fields.number(body, "repetition_penalty", 1.0),
            presence_penalty=fields.number(body, "presence_penalty", 0.0),
            frequency_penalty=fields.number(body, "frequency_penalty", 0.0),
            logit_bias=fields.logit_bias(body),
            seed=fields.seed(body, default_seed),
        ),
        max_tokens=max_tokens,
        num_logprobs=num_logprobs,
        stop=fields.stop_strings(body),
        stream=stream,
        include_usage=fields.include_usage(body, stream=stream),
    )


def _check_names(body: Any, *, known: frozenset[str]) -> None:
    if not isinstance(body, dict):
        raise ApiError(status=400, message="the body must be a JSON object")
    for name, value in body.items():
        if name in known or name in _HARMLESS:
            continue
        neutral = _NEUTRAL_ONLY.get(name)
        if neutral is None:
            refusal = unknown_name(name, known, what="parameter")
            raise ApiError(status=400, message=str(refusal), param=name, code="unknown_parameter")
        if value is not None and not neutral(value):
            raise bad_request(name, "is not supported by this server", code="unsupported_parameter")
