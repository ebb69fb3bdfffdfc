"""What the control plane says, to protobuf and back.

Encoding checks what decoding checks, so a value out of its bounds fails where it was made, not at every reader.
"""

import math
import re
from dataclasses import asdict, fields
from typing import TypeVar, assert_never

from google.protobuf.message import DecodeError, Message

from paceline.codec.bounds import MAX_LABEL_BYTES, at_least, at_most, cut, exactly, short
from paceline.codec.model import decode_identity, encode_identity
from paceline.control.messages import (
    MAX_DRAFT_LENGTH,
    MAX_EXPLANATION_BYTES,
    MAX_POLICY_VERIFIERS,
    MAX_REVISION,
    MAX_TELEMETRY_VERIFIERS,
    MAX_VERSION_BYTES,
    MAX_WINDOW,
    EdgeCounters,
    EdgeGauges,
    EdgePolicy,
    EdgeTelemetry,
    Presence,
    VerifierCounters,
    VerifierDistance,
    VerifierStatus,
)
from paceline.errors import LocalProtocolError, RemoteProtocolError
from paceline.messages import FINGERPRINT_BYTES
from paceline.v1 import control_pb2 as pb

ControlValue = Presence | EdgeTelemetry | EdgePolicy | VerifierStatus

MAX_PAYLOAD_BYTES = 32 * 2**10
"""Largest payload that is looked at; the largest valid one, telemetry about 64 verifiers, has less than two thirds of that."""

PARTS_PER_BILLION = 10**9
_NS_PER_S = 10**9
_ADDRESS = re.compile(r"\S+:([0-9]{1,5})")

_Message = TypeVar("_Message", bound=Message)


def encode_control(value: ControlValue) -> bytes:
    """Return the payload that carries `value`. Names and sentences that are information only lose what is too long.

    Raises:
        LocalProtocolError: a field is out of its bounds; names it.
    """
    try:
        match value:
            case Presence():
                message = _presence(value)
                _read_presence(message)
                return message.SerializeToString()
            case EdgeTelemetry():
                telemetry = _telemetry(value)
                _read_telemetry(telemetry)
                return telemetry.SerializeToString()
            case EdgePolicy():
                policy = _policy(value)
                _read_policy(policy)
                return policy.SerializeToString()
            case VerifierStatus():
                status = _status(value)
                _read_status(status)
                return status.SerializeToString()
            case _:
                assert_never(value)
    except (RemoteProtocolError, ValueError, OverflowError) as error:
        # Protobuf raises ValueError for a number that its field cannot hold.
        raise LocalProtocolError(f"{type(value).__name__} to send: {error}") from error


def parse_presence(payload: bytes) -> Presence:
    """Return the presence of an edge or of the orchestrator.

    Raises:
        RemoteProtocolError: the payload is none, or a field is out of its bounds; names it.
    """
    return _read_presence(_parsed(pb.Presence, payload))


def parse_telemetry(payload: bytes) -> EdgeTelemetry:
    """Return what an edge measured.

    Raises:
        RemoteProtocolError: the payload is no telemetry, or a field is out of its bounds; names it.
    """
    return _read_telemetry(_parsed(pb.EdgeTelemetry, payload))


def parse_policy(payload: bytes) -> EdgePolicy:
    """Return what an edge should do.

    Raises:
        RemoteProtocolError: the payload is no policy, or a field is out of its bounds; names it.
    """
    return _read_policy(_parsed(pb.EdgePolicy, payload))


def parse_status(payload: bytes) -> VerifierStatus:
    """Return what a verifier offers. Of one that is offline nothing but the incarnation is read.

    Raises:
        RemoteProtocolError: the payload is no status, or a field is out of its bounds; names it.
    """
    return _read_status(_parsed(pb.VerifierStatus, payload))


def _parsed(kind: type[_Message], payload: bytes) -> _Message:
    if len(payload) > MAX_PAYLOAD_BYTES:
        raise RemoteProtocolError(
            f"payload: got {len(payload)} bytes, expected at most {MAX_PAYLOAD_BYTES}"
        )
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise RemoteProtocolError(
            f"payload: got {len(payload)} bytes that are no {kind.DESCRIPTOR.name}: {error}"
        ) from error


def _presence(value: Presence) -> pb.Presence:
    return pb.Presence(
        online=value.online,
        incarnation=value.incarnation,
        version=cut(value.version, MAX_VERSION_BYTES),
    )


def _read_presence(message: pb.Presence) -> Presence:
    at_least("incarnation", message.incarnation, 1)
    return Presence(
        online=message.online,
        incarnation=message.incarnation,
        version=_words("version", message.version, MAX_VERSION_BYTES),
    )


def _telemetry(value: EdgeTelemetry) -> pb.EdgeTelemetry:
    gauges = value.gauges
    return pb.EdgeTelemetry(
        incarnation=value.incarnation,
        sequence=value.sequence,
        counters=pb.EdgeCounters(**asdict(value.counters)),
        gauges=pb.EdgeGauges(
            num_generations=gauges.num_generations,
            rtt_ns=_ns("gauges.rtt_s", gauges.rtt_s),
            rtt_jitter_ns=_ns("gauges.rtt_jitter_s", gauges.rtt_jitter_s),
            draft_ns=_ns("gauges.draft_s", gauges.draft_s),
            step_ns=_ns("gauges.step_s", gauges.step_s),
            acceptance_ppb=_ppb("gauges.acceptance_probability", gauges.acceptance_probability),
            num_judged=gauges.num_judged,
            draft_length=gauges.draft_length,
            window=gauges.window,
            policy_revision=gauges.policy_revision,
            verifier=gauges.verifier,
        ),
        verifiers=[
            pb.VerifierDistance(
                address=one.address, rtt_ns=_ns(f"verifiers[{index}].rtt_s", one.rtt_s)
            )
            for index, one in enumerate(value.verifiers)
        ],
        tokenizer_fingerprint=value.tokenizer_fingerprint,
        drafter=cut(value.drafter, MAX_LABEL_BYTES),
    )


def _read_telemetry(message: pb.EdgeTelemetry) -> EdgeTelemetry:
    at_least("incarnation", message.incarnation, 1)
    at_least("sequence", message.sequence, 1)
    at_most("verifiers", len(message.verifiers), MAX_TELEMETRY_VERIFIERS)
    return EdgeTelemetry(
        incarnation=message.incarnation,
        sequence=message.sequence,
        tokenizer_fingerprint=exactly(
            "tokenizer_fingerprint", message.tokenizer_fingerprint, FINGERPRINT_BYTES
        ),
        counters=EdgeCounters(
            **{item.name: getattr(message.counters, item.name) for item in fields(EdgeCounters)}
        ),
        gauges=_read_gauges(message.gauges),
        verifiers=tuple(
            VerifierDistance(
                address=_address(f"verifiers[{index}].address", one.address),
                rtt_s=one.rtt_ns / _NS_PER_S,
            )
            for index, one in enumerate(message.verifiers)
        ),
        drafter=_words("drafter", message.drafter, MAX_LABEL_BYTES),
    )


def _read_gauges(message: pb.EdgeGauges) -> EdgeGauges:
    at_most("gauges.acceptance_ppb", message.acceptance_ppb, PARTS_PER_BILLION)
    return EdgeGauges(
        num_generations=message.num_generations,
        rtt_s=message.rtt_ns / _NS_PER_S,
        rtt_jitter_s=message.rtt_jitter_ns / _NS_PER_S,
        draft_s=message.draft_ns / _NS_PER_S,
        step_s=message.step_ns / _NS_PER_S,
        acceptance_probability=message.acceptance_ppb / PARTS_PER_BILLION,
        num_judged=message.num_judged,
        draft_length=message.draft_length,
        window=message.window,
        policy_revision=message.policy_revision,
        verifier=_address("gauges.verifier", message.verifier) if message.verifier else "",
    )


def _policy(value: EdgePolicy) -> pb.EdgePolicy:
    return pb.EdgePolicy(
        revision=value.revision,
        draft_length=value.draft_length,
        window=value.window,
        verifiers=value.verifiers,
        explanation=cut(value.explanation, MAX_EXPLANATION_BYTES),
    )


def _read_policy(message: pb.EdgePolicy) -> EdgePolicy:
    at_least("revision", message.revision, 1)
    at_most("revision", message.revision, MAX_REVISION)
    at_most("draft_length", message.draft_length, MAX_DRAFT_LENGTH)
    at_least("window", message.window, 1)
    at_most("window", message.window, MAX_WINDOW)
    at_most("verifiers", len(message.verifiers), MAX_POLICY_VERIFIERS)
    return EdgePolicy(
        revision=message.revision,
        draft_length=message.draft_length,
        window=message.window,
        verifiers=tuple(
            _address(f"verifiers[{index}]", one) for index, one in enumerate(message.verifiers)
        ),
        explanation=_words("explanation", message.explanation, MAX_EXPLANATION_BYTES),
    )


def _status(value: VerifierStatus) -> pb.VerifierStatus:
    if not value.online:
        return pb.VerifierStatus(incarnation=value.incarnation)
    return pb.VerifierStatus(
        online=True,
        incarnation=value.incarnation,
        sequence=value.sequence,
        address=value.address,
        target=None if value.target is None else encode_identity(value.target),
        draining=value.draining,
        max_sessions=value.max_sessions,
        num_sessions=value.num_sessions,
        row_budget=value.row_budget,
        step_ns=_ns("step_s", value.step_s),
        queue_ns=_ns("queue_s", value.queue_s),
        busy_ppb=_ppb("busy", value.busy),
        row_price_ns=_ns("row_price_s", value.row_price_s),
        counters=pb.VerifierCounters(**asdict(value.counters)),
        version=cut(value.version, MAX_VERSION_BYTES),
    )


def _read_status(message: pb.VerifierStatus) -> VerifierStatus:
    at_least("incarnation", message.incarnation, 1)
    if not message.online:
        return VerifierStatus(online=False, incarnation=message.incarnation)
    at_least("sequence", message.sequence, 1)
    if not message.HasField("target"):
        raise RemoteProtocolError("target: got none, expected one as the verifier is online")
    at_least("max_sessions", message.max_sessions, 1)
    at_most("busy_ppb", message.busy_ppb, PARTS_PER_BILLION)
    return VerifierStatus(
        online=True,
        incarnation=message.incarnation,
        sequence=message.sequence,
        address=_address("address", message.address),
        target=decode_identity(message.target),
        draining=message.draining,
        max_sessions=message.max_sessions,
        num_sessions=message.num_sessions,
        row_budget=message.row_budget,
        step_s=message.step_ns / _NS_PER_S,
        queue_s=message.queue_ns / _NS_PER_S,
        busy=message.busy_ppb / PARTS_PER_BILLION,
        row_price_s=message.row_price_ns / _NS_PER_S,
        counters=VerifierCounters(
            **{item.name: getattr(message.counters, item.name) for item in fields(VerifierCounters)}
        ),
        version=_words("version", message.version, MAX_VERSION_BYTES),
    )


def _ns(field: str, seconds: float) -> int:
    if not math.isfinite(seconds):
        raise ValueError(f"{field}: got {seconds}, expected a finite number of seconds")
    return round(seconds * _NS_PER_S)


def _ppb(field: str, part: float) -> int:
    # Written so that it refuses what is not a number as well.
    if not 0.0 <= part <= 1.0:
        raise ValueError(f"{field}: got {part}, expected 0 to 1")
    return round(part * PARTS_PER_BILLION)


def _address(field: str, text: str) -> str:
    # Checked here, so that nothing behind meets a text that cannot be connected to. The text itself is not told:
    # it would stand in the reader's log.
    match = _ADDRESS.fullmatch(short(field, text, MAX_LABEL_BYTES))
    if match is None or not text.isprintable() or not 1 <= int(match[1]) <= 65535:
        raise RemoteProtocolError(f"{field}: got no HOST:PORT, expected one with port 1 to 65535")
    return text


def _words(field: str, text: str, bound: int) -> str:
    """Return a text for people without what would steer the terminal that shows it."""
    short(field, text, bound)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else "?" for c in text)
