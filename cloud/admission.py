"""What a session may ask for, checked before it costs anything."""

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.errors import ConfigError, IncompatibleError, InvalidRequestError
from paceline.messages import FLOOR_WINDOW, PROTOCOL_VERSION, Limits, ModelIdentity, Open
from paceline.tokens import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionSettings:
    """Bounds of sessions.

    Raises:
        ConfigError: a field is out of its range.
    """

    window: int = 256
    """Most names an edge may have in flight; 64 to 65536. More hides a longer link, and costs some 200 bytes each."""

    max_lead: int = 256
    """Most tokens committed beyond the last acknowledgement; at least 8. Many times round trip over step time: too few
    and a session stands still while its acknowledgement travels, too many and a dead edge wastes as many tokens."""

    lease_s: float = 60.0
    """How long a session without a stream is kept, in seconds; 0 to 86400. Longer outlives longer breaks of a link and
    holds the memory of edges that are gone."""

    silence_s: float = 60.0
    """How long an edge may owe an acknowledgement or a close, in seconds; more than 0. Then its stream is ended and
    its lease begins. Shorter frees memory sooner, too short ends streams over links that stall."""

    max_sessions: int = 64
    """Most sessions at once, those without a stream included; at least 1. More share the same steps."""

    max_sessions_per_tenant: int = 64
    """The same per tenant; at least 1. Less keeps one tenant from taking all of them."""

    max_tokens: int = 1_048_576
    """Most tokens of output; at least 1. The model's context bounds it in any case. Memory for prompt and output is
    reserved when a session opens, so a lower bound admits more sessions."""

    retry_after_s: float = 1.0
    """When a refused edge may try again, in seconds; more than 0."""

    def __post_init__(self) -> None:
        """Check every field."""
        _within("window", self.window, FLOOR_WINDOW, 65536)
        _within("max_lead", self.max_lead, 8, 2**31)
        _within("lease_s", self.lease_s, 0.0, 86400.0)
        _within("silence_s", self.silence_s, 1e-3, 86400.0)
        _within("max_sessions", self.max_sessions, 1, 65536)
        _within("max_sessions_per_tenant", self.max_sessions_per_tenant, 1, 65536)
        _within("max_tokens", self.max_tokens, 1, 2**31)
        _within("retry_after_s", self.retry_after_s, 1e-3, 3600.0)


def session_limits(settings: SessionSettings, target: ModelIdentity) -> Limits:
    """Return what every session of this verifier gets."""
    return Limits(
        window=settings.window,
        max_lead=settings.max_lead,
        context_length=target.context_length,
        max_tokens=min(settings.max_tokens, target.context_length),
        lease_ms=int(settings.lease_s * 1000),
    )


def check_open(request: Open, target: ModelIdentity, limits: Limits) -> None:
    """Raise unless this verifier can ever serve the request.

    Raises:
        IncompatibleError: version, tokenizer or weights differ.
        InvalidRequestError: it is too long, or has tokens that the target does not know.
    """
    if request.protocol_version != PROTOCOL_VERSION:
        raise IncompatibleError(
            f"open.protocol_version: got {request.protocol_version}, this verifier speaks {PROTOCOL_VERSION}; "
            "update the older side"
        )
    if request.tokenizer_fingerprint != target.tokenizer_fingerprint:
        raise IncompatibleError(
            f"open.tokenizer_fingerprint: got {request.tokenizer_fingerprint.hex()}, this verifier's target "
            f"{target.name!r} has {target.tokenizer_fingerprint.hex()}; give the edge the tokenizer of the target"
        )
    if request.weights_fingerprint and request.weights_fingerprint != target.weights_fingerprint:
        raise IncompatibleError(
            f"open.weights_fingerprint: got {request.weights_fingerprint.hex()}, this verifier's target "
            f"{target.name!r} has {target.weights_fingerprint.hex()}; connect to a verifier with the other weights, or "
            "do not insist on them"
        )
    _check_tokens("open.prompt", request.prompt, target)
    _check_tokens("open.output", request.output, target)
    _check_tokens("open.stop_tokens", request.stop_tokens, target)
    if len(request.prompt) >= limits.context_length:
        raise InvalidRequestError(
            f"open.prompt: got {len(request.prompt)} tokens, expected at most {limits.context_length - 1}, one less than "
            "the target's context; shorten the prompt"
        )
    most = min(request.max_tokens, limits.max_tokens, limits.context_length - len(request.prompt))
    if len(request.output) > most:
        raise InvalidRequestError(
            f"open.output: got {len(request.output)} tokens, expected at most {most}: max_tokens, or what is left of the "
            "context after the prompt"
        )


def _check_tokens(name: str, tokens: Sequence[TokenId], target: ModelIdentity) -> None:
    highest = max(tokens, default=TokenId(0))
    if highest >= target.vocabulary_size:
        raise InvalidRequestError(
            f"{name}: got token {highest}, expected ids below {target.vocabulary_size}, the target's vocabulary"
        )


def _within(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"{name}: got {value}, expected {low:g} to {high:g}")
