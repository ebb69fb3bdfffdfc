"""Messages to protobuf and back. The only place, with the two ends of the stream, that meets protobuf types.

Decoding checks every bound the schema states, so that nothing behind this module meets a value out of range. What only
the state of a session can tell (is this id in the vocabulary, is this position in the log) the session checks.
"""

from collections.abc import Sequence
from math import isnan
from typing import assert_never

from google.protobuf.message import DecodeError

from paceline.errors import InvalidRequestError, RemoteProtocolError
from paceline.messages import (
    FINGERPRINT_BYTES,
    FLOOR_WINDOW,
    MAX_COMMIT_TOKENS,
    MAX_LOGPROBS,
    MAX_PROPOSAL_TOKENS,
    MAX_STOP_TOKENS,
    SESSION_ID_BYTES,
    Close,
    CloseReason,
    CloudMessage,
    Commit,
    Drain,
    EdgeMessage,
    Failure,
    FinishReason,
    Limits,
    ModelIdentity,
    Open,
    Opened,
    Proposal,
    Resume,
    TokenLogprobs,
)
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, SessionId, TokenId
from paceline.v1 import verification_pb2 as pb

MAX_LABEL_BYTES = 256
"""Names, arithmetic, quantisation and addresses."""
MAX_REASON_BYTES = 64
MAX_MESSAGE_BYTES = 1024
SMALLEST_FLOAT = 2.0**-149
"""The least float32 above 0: what is smaller would arrive as 0, which stands for the neutral value."""
BELOW_ONE = 1.0 - 2.0**-24
"""The greatest float32 below 1."""

_FINISH = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}
_CLOSE = {
    CloseReason.DONE: pb.CLOSE_REASON_DONE,
    CloseReason.CANCELLED: pb.CLOSE_REASON_CANCELLED,
}


_FINISH_BACK: dict[int, FinishReason | None] = {
    pb.FINISH_REASON_UNSPECIFIED: None,
    **{value: reason for reason, value in _FINISH.items()},
}


# --- edge to cloud


def parse_edge(payload: bytes) -> EdgeMessage:
    """Return what an edge sent, from its serialised bytes.

    Raises:
        RemoteProtocolError: the bytes are no `VerifyRequest`, or the message breaks the protocol.
        InvalidRequestError: it asks for something that can not be served; names the field.
    """
    try:
        request = pb.VerifyRequest.FromString(payload)
    except DecodeError as error:
        raise RemoteProtocolError(
            f"message: got {len(payload)} bytes that are no VerifyRequest: {error}"
        ) from error
    return decode_edge(request)


def encode_edge(message: EdgeMessage) -> pb.VerifyRequest:
    """Return the request that carries `message`."""
    match message:
        case Open():
            return pb.VerifyRequest(open=_encode_open(message))
        case Resume():
            return pb.VerifyRequest(
                resume=pb.Resume(
                    session_id=message.session_id,
                    length=message.length,
                    attempt=message.attempt,
                )
            )
        case Proposal():
            return pb.VerifyRequest(
                proposal=pb.Proposal(
                    base_position=message.base_position,
                    tokens=message.tokens,
                    parents=message.parents,
                    idle=message.idle,
                )
            )
        case Close():
            return pb.VerifyRequest(close=pb.Close(reason=_CLOSE[message.reason]))
        case _:
            assert_never(message)


def decode_edge(request: pb.VerifyRequest) -> EdgeMessage:
    """Return what an edge sent.

    Raises:
        RemoteProtocolError: the message breaks the protocol; names the field.
        InvalidRequestError: it asks for something that can not be served; names the field.
    """
    match request.WhichOneof("message"):
        case "open":
            return _decode_open(request.open)
        case "resume":
            resume = request.resume
            return Resume(
                session_id=SessionId(
                    _exactly("resume.session_id", resume.session_id, SESSION_ID_BYTES)
                ),
                length=Position(resume.length),
                attempt=resume.attempt,
            )
        case "proposal":
            proposal = request.proposal
            num_tokens = len(proposal.tokens)
            _at_most("proposal.tokens", num_tokens, MAX_PROPOSAL_TOKENS)
            _at_most("proposal.parents", len(proposal.parents), num_tokens)
            return Proposal(
                base_position=Position(proposal.base_position),
                tokens=_tokens(proposal.tokens),
                parents=tuple(proposal.parents),
                idle=proposal.idle,
            )
        case "close":
            cancelled = request.close.reason == pb.CLOSE_REASON_CANCELLED
            return Close(reason=CloseReason.CANCELLED if cancelled else CloseReason.DONE)
        case _:
            raise RemoteProtocolError(
                "message: got none that this version knows, expected open, resume, proposal or close"
            )


def _encode_open(message: Open) -> pb.Open:
    sampling = message.sampling
    return pb.Open(
        protocol_version=message.protocol_version,
        tokenizer_fingerprint=message.tokenizer_fingerprint,
        weights_fingerprint=message.weights_fingerprint,
        prompt=message.prompt,
        output=message.output,
        sampling=pb.Sampling(
            temperature=sampling.temperature,
            top_k=sampling.top_k,
            top_p=max(sampling.top_p, SMALLEST_FLOAT),
            min_p=min(sampling.min_p, BELOW_ONE),
            repetition_penalty=max(sampling.repetition_penalty, SMALLEST_FLOAT),
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            logit_bias={int(token): bias for token, bias in sampling.logit_bias},
            seed=sampling.seed,
        ),
        max_tokens=message.max_tokens,
        stop_tokens=message.stop_tokens,
        num_logprobs=message.num_logprobs,
    )


def _decode_open(message: pb.Open) -> Open:
    if not message.prompt:
        raise InvalidRequestError("open.prompt: got no tokens, expected at least one")
    if message.max_tokens < 1:
        raise InvalidRequestError("open.max_tokens: got 0, expected at least 1")
    _at_most("open.stop_tokens", len(message.stop_tokens), MAX_STOP_TOKENS)
    _at_most("open.num_logprobs", message.num_logprobs, MAX_LOGPROBS)
    weights = message.weights_fingerprint
    return Open(
        protocol_version=message.protocol_version,
        tokenizer_fingerprint=_exactly(
            "open.tokenizer_fingerprint", message.tokenizer_fingerprint, FINGERPRINT_BYTES
        ),
        weights_fingerprint=_exactly("open.weights_fingerprint", weights, FINGERPRINT_BYTES)
        if weights
        else b"",
        prompt=_tokens(message.prompt),
        output=_tokens(message.output),
        sampling=_decode_sampling(message.sampling),
        max_tokens=message.max_tokens,
        stop_tokens=_tokens(message.stop_tokens),
        num_logprobs=message.num_logprobs,
    )


def _decode_sampling(message: pb.Sampling) -> SamplingSettings:
    try:
        return SamplingSettings(
            temperature=message.temperature,
            top_k=message.top_k,
            top_p=message.top_p or 1.0,
            min_p=message.min_p,
            repetition_penalty=message.repetition_penalty or 1.0,
            presence_penalty=message.presence_penalty,
            frequency_penalty=message.frequency_penalty,
            logit_bias=tuple(
                (TokenId(token), message.logit_bias[token]) for token in sorted(message.logit_bias)
            ),
            seed=message.seed,
        )
    except InvalidRequestError as error:
        raise InvalidRequestError(f"open.sampling.{error}") from error


# --- cloud to edge


def parse_cloud(payload: bytes) -> CloudMessage:
    """Return what a verifier sent, from its serialised bytes.

    Raises:
        RemoteProtocolError: the bytes are no `VerifyResponse`, or the message breaks the protocol.
    """
    try:
        response = pb.VerifyResponse.FromString(payload)
    except DecodeError as error:
        raise RemoteProtocolError(
            f"message: got {len(payload)} bytes that are no VerifyResponse: {error}"
        ) from error
    return decode_cloud(response)


def encode_cloud(message: CloudMessage) -> pb.VerifyResponse:
    """Return the response that carries `message`."""
    match message:
        case Opened():
            return pb.VerifyResponse(
                opened=pb.Opened(
                    session_id=message.session_id,
                    limits=encode_limits(message.limits),
                    target=encode_identity(message.target),
                    length=message.length,
                    step_ns=message.step_ns,
                    address=message.address,
                )
            )
        case Commit():
            return pb.VerifyResponse(commit=_encode_commit(message))
        case Drain():
            return pb.VerifyResponse(drain=pb.Drain(deadline_ms=message.deadline_ms))
        case Failure():
            return pb.VerifyResponse(
                failure=pb.Failure(
                    reason=_cut(message.reason, MAX_REASON_BYTES),
                    message=_cut(message.message, MAX_MESSAGE_BYTES),
                    retryable=message.retryable,
                    retry_after_ms=message.retry_after_ms,
                    length=message.length,
                )
            )
        case _:
            assert_never(message)


def decode_cloud(response: pb.VerifyResponse) -> CloudMessage:
    """Return what a verifier sent.

    Raises:
        RemoteProtocolError: the message breaks the protocol; names the field.
    """
    match response.WhichOneof("message"):
        case "opened":
            opened = response.opened
            session_id = _exactly("opened.session_id", opened.session_id, SESSION_ID_BYTES)
            return Opened(
                session_id=SessionId(session_id),
                limits=decode_limits(opened.limits, field="opened.limits"),
                target=decode_identity(opened.target, field="opened.target"),
                length=Position(opened.length),
                step_ns=opened.step_ns,
                address=_short("opened.address", opened.address, MAX_LABEL_BYTES),
            )
        case "commit":
            return _decode_commit(response.commit)
        case "drain":
            return Drain(deadline_ms=response.drain.deadline_ms)
        case "failure":
            failure = response.failure
            return Failure(
                reason=_short("failure.reason", failure.reason, MAX_REASON_BYTES),
                message=_short("failure.message", failure.message, MAX_MESSAGE_BYTES),
                retryable=failure.retryable,
                retry_after_ms=failure.retry_after_ms,
                length=failure.length,
            )
        case _:
            raise RemoteProtocolError(
                "message: got none that this version knows, expected opened, commit, drain or failure"
            )


def _encode_commit(message: Commit) -> pb.Commit:
    return pb.Commit(
        position=message.position,
        tokens=message.tokens,
        num_judged=message.num_judged,
        num_accepted=message.num_accepted,
        num_late=message.num_late,
        num_stale=message.num_stale,
        queue_ns=message.queue_ns,
        verify_ns=message.verify_ns,
        num_rows=message.num_rows,
        logprobs=[
            pb.TokenLogprobs(
                logprob=entry.logprob, top_tokens=entry.top_tokens, top_logprobs=entry.top_logprobs
            )
            for entry in message.logprobs
        ],
        finish=_FINISH[message.finish] if message.finish else pb.FINISH_REASON_UNSPECIFIED,
        row_price_ns=message.row_price_ns,
        accepted_mask=_pack(message.accepted),
        num_steps=message.num_steps,
    )


def _decode_commit(message: pb.Commit) -> Commit:
    count = len(message.tokens)
    _at_most("commit.tokens", count, MAX_COMMIT_TOKENS)
    if message.logprobs and len(message.logprobs) != count:
        raise RemoteProtocolError(
            f"commit.logprobs: got {len(message.logprobs)}, expected one for each of {count} tokens"
        )
    if message.finish not in _FINISH_BACK:
        raise RemoteProtocolError(
            f"commit.finish: got {message.finish}, expected one of {sorted(_FINISH_BACK)}"
        )
    return Commit(
        position=Position(message.position),
        tokens=_tokens(message.tokens),
        accepted=_unpack(message.accepted_mask, count),
        num_judged=message.num_judged,
        num_accepted=message.num_accepted,
        num_late=message.num_late,
        num_stale=message.num_stale,
        queue_ns=message.queue_ns,
        verify_ns=message.verify_ns,
        num_rows=message.num_rows,
        logprobs=tuple(_decode_logprobs(entry) for entry in message.logprobs),
        finish=_FINISH_BACK[message.finish],
        row_price_ns=message.row_price_ns,
        num_steps=message.num_steps,
    )


def _decode_logprobs(message: pb.TokenLogprobs) -> TokenLogprobs:
    num_top = len(message.top_tokens)
    _at_most("commit.logprobs.top_tokens", num_top, MAX_LOGPROBS)
    if len(message.top_logprobs) != num_top:
        raise RemoteProtocolError(
            f"commit.logprobs.top_logprobs: got {len(message.top_logprobs)}, expected one for each of {num_top} tokens"
        )
    if any(isnan(value) for value in (message.logprob, *message.top_logprobs)):
        raise RemoteProtocolError("commit.logprobs: got NaN, expected a number")
    return TokenLogprobs(
        logprob=message.logprob,
        top_tokens=_tokens(message.top_tokens),
        top_logprobs=tuple(message.top_logprobs),
    )


def encode_identity(identity: ModelIdentity) -> pb.ModelIdentity:
    """Return the wire form of a model's identity. A long name loses its end: it is information only."""
    return pb.ModelIdentity(
        name=_cut(identity.name, MAX_LABEL_BYTES),
        weights_fingerprint=identity.weights_fingerprint,
        dtype=identity.dtype,
        quantisation=identity.quantisation,
        tokenizer_fingerprint=identity.tokenizer_fingerprint,
        vocabulary_size=identity.vocabulary_size,
        context_length=identity.context_length,
    )


def decode_identity(message: pb.ModelIdentity, *, field: str = "target") -> ModelIdentity:
    """Return a model's identity from its wire form.

    Args:
        message: the wire form.
        field: where it stood, for the error.

    Raises:
        RemoteProtocolError: a field is out of its bounds.
    """
    weights, tokenizer = message.weights_fingerprint, message.tokenizer_fingerprint
    if weights:
        _exactly(f"{field}.weights_fingerprint", weights, FINGERPRINT_BYTES)
    _at_least(f"{field}.vocabulary_size", message.vocabulary_size, 1)
    _at_least(f"{field}.context_length", message.context_length, 1)
    return ModelIdentity(
        name=_short(f"{field}.name", message.name, MAX_LABEL_BYTES),
        weights_fingerprint=weights,
        dtype=_short(f"{field}.dtype", message.dtype, MAX_LABEL_BYTES),
        quantisation=_short(f"{field}.quantisation", message.quantisation, MAX_LABEL_BYTES),
        tokenizer_fingerprint=_exactly(
            f"{field}.tokenizer_fingerprint", tokenizer, FINGERPRINT_BYTES
        ),
        vocabulary_size=message.vocabulary_size,
        context_length=message.context_length,
    )


def encode_limits(limits: Limits) -> pb.Limits:
    """Return the wire form of a session's limits."""
    return pb.Limits(
        window=limits.window,
        max_lead=limits.max_lead,
        context_length=limits.context_length,
        max_tokens=limits.max_tokens,
        lease_ms=limits.lease_ms,
    )


def decode_limits(message: pb.Limits, *, field: str = "limits") -> Limits:
    """Return a session's limits from their wire form.

    Args:
        message: the wire form.
        field: where it stood, for the error.

    Raises:
        RemoteProtocolError: a bound is too low to work with.
    """
    _at_least(f"{field}.window", message.window, FLOOR_WINDOW)
    _at_least(f"{field}.max_lead", message.max_lead, 1)
    _at_least(f"{field}.context_length", message.context_length, 1)
    _at_least(f"{field}.max_tokens", message.max_tokens, 1)
    return Limits(
        window=message.window,
        max_lead=message.max_lead,
        context_length=message.context_length,
        max_tokens=message.max_tokens,
        lease_ms=message.lease_ms,
    )


# --- small pieces


def _tokens(ids: Sequence[int]) -> tuple[TokenId, ...]:
    return tuple(TokenId(token) for token in ids)


def _exactly(field: str, value: bytes, size: int) -> bytes:
    if len(value) != size:
        raise RemoteProtocolError(f"{field}: got {len(value)} bytes, expected {size}")
    return value


def _at_most(field: str, value: int, bound: int) -> None:
    if value > bound:
        raise RemoteProtocolError(f"{field}: got {value}, expected at most {bound}")


def _at_least(field: str, value: int, bound: int) -> None:
    if value < bound:
        raise RemoteProtocolError(f"{field}: got {value}, expected at least {bound}")


def _short(field: str, text: str, bound: int) -> str:
    size = len(text.encode())
    if size > bound:
        raise RemoteProtocolError(f"{field}: got {size} bytes, expected at most {bound}")
    return text


def _cut(text: str, bound: int) -> str:
    """Return `text` without what goes beyond `bound` bytes of UTF-8, and without half a character."""
    return text.encode(errors="replace")[:bound].decode(errors="ignore")


def _pack(flags: tuple[bool, ...]) -> bytes:
    """Return flag i as bit (i % 8) of byte (i / 8), without trailing zero bytes."""
    mask = bytearray((len(flags) + 7) // 8)
    for i, flag in enumerate(flags):
        mask[i // 8] |= flag << (i % 8)
    return bytes(mask).rstrip(b"\0")


def _unpack(mask: bytes, count: int) -> tuple[bool, ...]:
    bits = int.from_bytes(mask, "little")
    if bits >> count:
        raise RemoteProtocolError(
            f"commit.accepted_mask: got a bit for token {bits.bit_length() - 1}, but there are {count} tokens"
        )
    return tuple(bool(bits >> i & 1) for i in range(count)) if bits else ()
