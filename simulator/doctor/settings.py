"""What to look at."""

from dataclasses import dataclass, field

from edge.control_options import ControlSettings
from edge.options import AgentSettings
from paceline.settings import Address

USUAL_PORTS = tuple(Address(host="127.0.0.1", port=port) for port in (50051, 8080, 8090, 1883))
"""Verifier, edge, orchestrator, broker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DoctorSettings:
    """What an edge or a verifier would be told, and how thoroughly to look."""

    agent: AgentSettings = field(default_factory=AgentSettings)
    control: ControlSettings | None = None
    """None: the edge goes by itself."""
    listen: tuple[Address, ...] = ()
    """Empty: the usual ports."""
    load: bool = False
    """Load the weights as well."""
    deadline_s: float = 10.0
    """Longest wait for each answer of the network, in seconds."""
    model_deadline_s: float = 120.0
    """The same for reading a model; a hub name may come from the network first. Loading weights may take ten times
    as long."""
