"""What an edge sends, to protobuf and back."""

from typing import assert_never

from google.protobuf.message import DecodeError

from paceline.codec.bounds import BELOW_ONE, SMALLEST_FLOAT, at_most, exactly, token_ids
from paceline.errors import InvalidRequestError, RemoteProtocolError
from paceline.messages import (
    FINGERPRINT_BYTES,
    MAX_LOGPROBS,
    MAX_PROPOSAL_TOKENS,
    MAX_STOP_TOKENS,
    SESSION_ID_BYTES,
    Close,
    CloseReason,
    EdgeMessage,
    Open,
    Proposal,
    Resume,
)
from paceline.sampling.settings import MAX_LOGIT_BIASES, SamplingSettings
from paceline.tokens import Position, SessionId, TokenId
from paceline.v1 import verification_pb2 as pb

_CLOSE = {
    CloseReason.DONE: pb.CLOSE_REASON_DONE,
    CloseReason.CANCELLED: pb.CLOSE_REASON_CANCELLED,
}


def read_edge(payload: bytes) -> pb.VerifyRequest:
    """Return the request in serialised bytes, as gRPC hands it to the verifier.

    Raises:
        google.protobuf.message.DecodeError: the bytes are none.
    """
    return pb.VerifyRequest.FromString(payload)


def parse_edge(payload: bytes) -> EdgeMessage:
    """Return what an edge sent, from its serialised bytes.

    Raises:
        RemoteProtocolError: the bytes are no `VerifyRequest`, or the message breaks the protocol.
        InvalidRequestError: it asks for something that can not be served; names the field.
    """
    try:
        request = read_edge(payload)
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
                    exactly("resume.session_id", resume.session_id, SESSION_ID_BYTES)
                ),
                length=Position(resume.length),
                attempt=resume.attempt,
            )
        case "proposal":
            proposal = request.proposal
            num_tokens = len(proposal.tokens)
            at_most("proposal.tokens", num_tokens, MAX_PROPOSAL_TOKENS)
            at_most("proposal.parents", len(proposal.parents), num_tokens)
            return Proposal(
                base_position=Position(proposal.base_position),
                tokens=token_ids(proposal.tokens),
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
        patience_ms=message.patience_ms,
    )


def _decode_open(message: pb.Open) -> Open:
    if not message.prompt:
        raise InvalidRequestError("open.prompt: got no tokens, expected at least one")
    if message.max_tokens < 1:
        raise InvalidRequestError("open.max_tokens: got 0, expected at least 1")
    at_most("open.stop_tokens", len(message.stop_tokens), MAX_STOP_TOKENS)
    at_most("open.num_logprobs", message.num_logprobs, MAX_LOGPROBS)
    weights = message.weights_fingerprint
    return Open(
        protocol_version=message.protocol_version,
        tokenizer_fingerprint=exactly(
            "open.tokenizer_fingerprint", message.tokenizer_fingerprint, FINGERPRINT_BYTES
        ),
        weights_fingerprint=exactly("open.weights_fingerprint", weights, FINGERPRINT_BYTES)
        if weights
        else b"",
        prompt=token_ids(message.prompt),
        output=token_ids(message.output),
        sampling=_decode_sampling(message.sampling),
        max_tokens=message.max_tokens,
        stop_tokens=token_ids(message.stop_tokens),
        num_logprobs=message.num_logprobs,
        patience_ms=message.patience_ms,
    )


def _decode_sampling(message: pb.Sampling) -> SamplingSettings:
    if len(message.logit_bias) > MAX_LOGIT_BIASES:  # before they are sorted
        raise InvalidRequestError(
            f"open.sampling.logit_bias: got {len(message.logit_bias)} entries, at most {MAX_LOGIT_BIASES} are allowed"
        )
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
