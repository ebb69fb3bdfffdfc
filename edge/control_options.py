"""The options with which an edge takes part in the control plane, and the settings they make."""

import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from paceline.errors import ConfigError
from paceline.mqtt.options import broker_options, broker_settings
from paceline.mqtt.settings import BrokerSettings
from paceline.settings import DURATION
from paceline.topics import check_id

EARLY_S = 1.0
"""Shortest time between two telemetry messages, in seconds."""

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--edge-id",
        metavar="NAME",
        help="What the control plane calls this edge; unlike any other's.  [default: host name]",
    ),
    click.option(
        "--telemetry-interval",
        type=DURATION,
        default="5s",
        help="Time between two reports to the orchestrator; it hears of changes within 1s.",
    ),
    click.option(
        "--follow-verifiers/--no-follow-verifiers",
        default=True,
        help="Use the verifiers that policies name: whoever may write policies decides where prompts go.",
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """Which control plane, and as whom.

    Raises:
        ConfigError: a field is out of its range.
    """

    broker: BrokerSettings
    edge_id: str
    """Unlike any other edge's at this broker: of two with one name, the newer one puts the other out."""

    telemetry_interval_s: float = 5.0
    """Time between two telemetry messages in seconds; at least EARLY_S."""

    follow_verifiers: bool = True
    """Use the verifiers that policies name. Whoever may write policies then decides where prompts go."""

    def __post_init__(self) -> None:
        """Check every field."""
        try:
            check_id(self.edge_id)
        except ConfigError as error:
            raise ConfigError(f"--edge-id: {error}") from error
        if not EARLY_S <= self.telemetry_interval_s <= 3600.0:
            raise ConfigError(
                f"--telemetry-interval: got {self.telemetry_interval_s:g} s, expected {EARLY_S:g} s to 1 h"
            )


def control_options(command: _Command) -> _Command:
    """Add the options of `ControlSettings` to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return broker_options(command)


def control_settings(values: Mapping[str, Any]) -> ControlSettings | None:
    """Return the settings of a command's values; None if no broker is named.

    Raises:
        ConfigError: they contradict each other, or a file cannot be read.
    """
    broker = broker_settings(values)
    if broker is None:
        if values["edge_id"] is not None:
            raise ConfigError("--edge-id: got it without --broker, expected both or none")
        return None
    return ControlSettings(
        broker=broker,
        edge_id=values["edge_id"] or host_id(socket.gethostname()),
        telemetry_interval_s=values["telemetry_interval"],
        follow_verifiers=values["follow_verifiers"],
    )


def passing_control_settings(values: Mapping[str, Any]) -> ControlSettings | None:
    """Return the same for an edge that is there for a moment only.

    Raises:
        ConfigError: as above, or the edge has no name of its own.
    """
    settings = control_settings(values)
    if settings is not None and values["edge_id"] is None:
        # The host's name is the lasting edge's: one in passing would put it out of the fleet.
        raise ConfigError("--edge-id: got none with --broker, expected a name for this edge")
    return settings


def host_id(name: str) -> str:
    """Return a host name as an id, with hyphens for what cannot stand in one."""
    return re.sub(r"[^A-Za-z0-9._-]", "-", name)[:64] or "edge"
