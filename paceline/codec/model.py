"""A model's identity and the limits of a session, to protobuf and back."""

from paceline.codec.bounds import MAX_LABEL_BYTES, at_least, cut, exactly, short
from paceline.messages import FINGERPRINT_BYTES, FLOOR_WINDOW, Limits, ModelIdentity
from paceline.v1 import verification_pb2 as pb


def encode_identity(identity: ModelIdentity) -> pb.ModelIdentity:
    """Return the wire form of a model's identity. A long name loses its end: it is information only."""
    return pb.ModelIdentity(
        name=cut(identity.name, MAX_LABEL_BYTES),
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
        exactly(f"{field}.weights_fingerprint", weights, FINGERPRINT_BYTES)
    at_least(f"{field}.vocabulary_size", message.vocabulary_size, 1)
    at_least(f"{field}.context_length", message.context_length, 1)
    return ModelIdentity(
        name=short(f"{field}.name", message.name, MAX_LABEL_BYTES),
        weights_fingerprint=weights,
        dtype=short(f"{field}.dtype", message.dtype, MAX_LABEL_BYTES),
        quantisation=short(f"{field}.quantisation", message.quantisation, MAX_LABEL_BYTES),
        tokenizer_fingerprint=exactly(
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
    at_least(f"{field}.window", message.window, FLOOR_WINDOW)
    at_least(f"{field}.max_lead", message.max_lead, 1)
    at_least(f"{field}.context_length", message.context_length, 1)
    at_least(f"{field}.max_tokens", message.max_tokens, 1)
    return Limits(
        window=message.window,
        max_lead=message.max_lead,
        context_length=message.context_length,
        max_tokens=message.max_tokens,
        lease_ms=message.lease_ms,
    )
