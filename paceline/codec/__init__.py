"""Messages to protobuf and back. The only place, with the two ends of the stream, that meets protobuf types.

Decoding checks every bound the schema states, so that nothing behind this module meets a value out of range. What only
the state of a session can tell (is this id in the vocabulary, is this position in the log) the session checks.
"""

from paceline.codec.cloud import decode_cloud, encode_cloud, parse_cloud, read_description
from paceline.codec.control import (
    ControlValue,
    encode_control,
    parse_policy,
    parse_presence,
    parse_status,
    parse_telemetry,
)
from paceline.codec.edge import decode_edge, encode_edge, parse_edge, read_edge
from paceline.codec.model import decode_identity, decode_limits, encode_identity, encode_limits

__all__ = [
    "ControlValue",
    "decode_cloud",
    "decode_edge",
    "decode_identity",
    "decode_limits",
    "encode_cloud",
    "encode_control",
    "encode_edge",
    "encode_identity",
    "encode_limits",
    "parse_cloud",
    "parse_edge",
    "parse_policy",
    "parse_presence",
    "parse_status",
    "parse_telemetry",
    "read_description",
    "read_edge",
]
