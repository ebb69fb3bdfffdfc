"""What a verifier sends, to protobuf and back."""

from math import isnan
from typing import assert_never

from google.protobuf.message import DecodeError

from paceline.codec.bounds import (
    MAX_LABEL_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_REASON_BYTES,
    at_most,
    cut,
    exactly,
    short,
    token_ids,
)
from paceline.codec.model import decode_identity, decode_limits, encode_identity, encode_limits
from paceline.errors import RemoteProtocolError
from paceline.messages import (
    MAX_COMMIT_TOKENS,
    MAX_LOGPROBS,
    SESSION_ID_BYTES,
    CloudMessage,
    Commit,
    Drain,
    Failure,
    FinishReason,
    Opened,
    TokenLogprobs,
)
from paceline.tokens import Position, SessionId
from paceline.v1 import verification_pb2 as pb

_FINISH = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
}

_FINISH_BACK: dict[int, FinishReason | None] = {
    pb.FINISH_REASON_UNSPECIFIED: None,
    **{value: reason for reason, value in _FINISH.items()},
}


def read_description(payload: bytes) -> pb.DescribeResponse:
    """Return the answer to `Describe` in serialised bytes, as gRPC hands it to the edge.

    Raises:
        google.protobuf.message.DecodeError: the bytes are none.
    """
    return pb.DescribeResponse.FromString(payload)


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
                    reason=cut(message.reason, MAX_REASON_BYTES),
                    message=cut(message.message, MAX_MESSAGE_BYTES),
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
            session_id = exactly("opened.session_id", opened.session_id, SESSION_ID_BYTES)
            return Opened(
                session_id=SessionId(session_id),
                limits=decode_limits(opened.limits, field="opened.limits"),
                target=decode_identity(opened.target, field="opened.target"),
                length=Position(opened.length),
                step_ns=opened.step_ns,
                address=short("opened.address", opened.address, MAX_LABEL_BYTES),
            )
        case "commit":
            return _decode_commit(response.commit)
        case "drain":
            return Drain(deadline_ms=response.drain.deadline_ms)
        case "failure":
            failure = response.failure
            return Failure(
                reason=short("failure.reason", failure.reason, MAX_REASON_BYTES),
                message=short("failure.message", failure.message, MAX_MESSAGE_BYTES),
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
    at_most("commit.tokens", count, MAX_COMMIT_TOKENS)
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
        tokens=token_ids(message.tokens),
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
    at_most("commit.logprobs.top_tokens", num_top, MAX_LOGPROBS)
    if len(message.top_logprobs) != num_top:
        raise RemoteProtocolError(
            f"commit.logprobs.top_logprobs: got {len(message.top_logprobs)}, expected one for each of {num_top} tokens"
        )
    if any(isnan(value) for value in (message.logprob, *message.top_logprobs)):
        raise RemoteProtocolError("commit.logprobs: got NaN, expected a number")
    return TokenLogprobs(
        logprob=message.logprob,
        top_tokens=token_ids(message.top_tokens),
        top_logprobs=tuple(message.top_logprobs),
    )


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
