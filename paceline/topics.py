"""The topics of the control plane, each with what is said under it.

    paceline/v1/edges/<edge_id>/presence            Presence         retained, will
    paceline/v1/edges/<edge_id>/telemetry           EdgeTelemetry
    paceline/v1/edges/<edge_id>/policy              EdgePolicy       retained
    paceline/v1/verifiers/<verifier_id>/status      VerifierStatus   retained, will
    paceline/v1/orchestrator/presence               Presence         retained, will

A retained topic is cleared by an empty payload, as MQTT has it; whoever reads that learns that the member is gone. No value has
an empty payload.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from paceline.codec.control import (
    ControlValue,
    encode_control,
    parse_policy,
    parse_presence,
    parse_status,
    parse_telemetry,
)
from paceline.control.messages import EdgePolicy, EdgeTelemetry, Presence, VerifierStatus
from paceline.errors import ConfigError, LocalProtocolError, RemoteProtocolError

PREFIX = "paceline/v1"
ANY = "+"
"""Stands for every member in a filter."""

_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Topic:
    """What is said under one name for each member, or under one name if it has no members."""

    pattern: str
    """Name with `+` in the place of the member's id, which makes it the filter too."""

    kind: type[ControlValue]
    """What is said."""

    parse: Callable[[bytes], ControlValue] = field(repr=False)
    """Returns the value of a payload or raises RemoteProtocolError."""

    retain: bool
    """The broker keeps the newest value for those who come later."""

    qos: int = 1
    """At least once: the acknowledgement is what tells that a broker takes no more."""

    @property
    def filter(self) -> str:
        """What to subscribe to for all members."""
        return self.pattern

    @property
    def has_members(self) -> bool:
        """There is a name for each member."""
        return ANY in self.pattern

    def name(self, member: str = "") -> str:
        """Return the name of one member's topic; of the only one if there are no members.

        Raises:
            ConfigError: no member's id can look like that.
        """
        if not self.has_members:
            if member:
                raise ConfigError(f"member: got {member!r}, expected none for {self.pattern}")
            return self.pattern
        return self.pattern.replace(ANY, check_id(member))

    def of(self, member: str) -> "Topic":
        """Return the topic of one member alone, for a subscription to nothing else.

        Raises:
            ConfigError: no member's id can look like that.
        """
        return replace(self, pattern=self.name(member))

    def encode(self, value: ControlValue | None) -> bytes:
        """Return the payload of a value; None clears what is retained.

        Raises:
            LocalProtocolError: it is no value of this topic, or a field is out of its bounds.
        """
        if value is None and self.retain:
            return b""
        if not isinstance(value, self.kind):
            raise LocalProtocolError(
                f"{self.pattern}: got {type(value).__name__}, expected {self.kind.__name__}"
            )
        return encode_control(value)

    def decode(self, payload: bytes) -> ControlValue | None:
        """Return the value of a payload; None if what was retained is cleared.

        Raises:
            RemoteProtocolError: the payload breaks the schema; names the field.
        """
        return None if self.retain and not payload else self.parse(payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """What came under a topic."""

    topic: Topic
    member: str
    """Id of the edge or verifier; empty for the orchestrator."""

    value: ControlValue | None
    """None: it was cleared, the member is gone."""


EDGE_PRESENCE = Topic(
    pattern=f"{PREFIX}/edges/+/presence", kind=Presence, parse=parse_presence, retain=True
)
EDGE_TELEMETRY = Topic(
    pattern=f"{PREFIX}/edges/+/telemetry", kind=EdgeTelemetry, parse=parse_telemetry, retain=False
)
EDGE_POLICY = Topic(
    pattern=f"{PREFIX}/edges/+/policy", kind=EdgePolicy, parse=parse_policy, retain=True
)
VERIFIER_STATUS = Topic(
    pattern=f"{PREFIX}/verifiers/+/status", kind=VerifierStatus, parse=parse_status, retain=True
)
ORCHESTRATOR_PRESENCE = Topic(
    pattern=f"{PREFIX}/orchestrator/presence", kind=Presence, parse=parse_presence, retain=True
)

TOPICS = (EDGE_PRESENCE, EDGE_TELEMETRY, EDGE_POLICY, VERIFIER_STATUS, ORCHESTRATOR_PRESENCE)


def check_id(text: str) -> str:
    """Return the id of an edge or verifier as it is.

    Raises:
        ConfigError: it has characters that mean something in a topic, or too many.
    """
    if _ID.fullmatch(text) is None:
        raise ConfigError(
            f"id: got {text!r}, expected 1 to 64 letters, digits, dots, hyphens and underscores"
        )
    return text


def locate(name: str) -> tuple[Topic, str]:
    """Return the topic that a name belongs to, and the member.

    Raises:
        RemoteProtocolError: the name belongs to none.
    """
    parts = name.split("/")
    for topic in TOPICS:
        pattern = topic.pattern.split("/")
        if len(parts) != len(pattern):
            continue
        named = [part for part, expected in zip(parts, pattern, strict=True) if expected == ANY]
        if topic.pattern.replace(ANY, "".join(named)) == name and all(map(_ID.fullmatch, named)):
            return topic, "".join(named)
    # At most so much of it: a name may have 64 KiB, and this sentence goes to the log.
    raise RemoteProtocolError(f"topic: got {name[:100]!r}, which is none of this version's")


def read(name: str, payload: bytes) -> Received:
    """Return what came under a name.

    Raises:
        RemoteProtocolError: the name belongs to no topic, or the payload breaks the schema; names the field.
    """
    topic, member = locate(name)
    return Received(topic=topic, member=member, value=topic.decode(payload))
