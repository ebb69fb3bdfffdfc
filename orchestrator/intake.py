"""What has come since the last fold: bounded, the newest telemetry of each edge, everything that says who is there. Pure.

Whoever floods pushes out only what they said before. Presence, status and policies are never shed: they are few, and when there is
no more room for them we stop reading, so that the link's own mailbox keeps the newest of each name.
"""

from dataclasses import dataclass

from orchestrator.fleet import (
    EdgeGone,
    EdgeSeen,
    Event,
    PolicySeen,
    Telemetry,
    VerifierGone,
    VerifierSeen,
)
from orchestrator.planner import REVISION_MOST
from paceline.control.messages import EdgePolicy, EdgeTelemetry, Presence, VerifierStatus
from paceline.topics import EDGE_POLICY, EDGE_PRESENCE, VERIFIER_STATUS, Received

MAX_EDGES = 20_000
MAX_CERTAIN = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeStatistics:
    """What came, since the start."""

    num_telemetry: int = 0
    num_status: int = 0
    num_presence: int = 0
    num_policies: int = 0
    """Ours, coming back from the broker."""
    num_shed: int = 0
    """Telemetry that a newer one of the same edge, or those of too many others, pushed out."""

    @property
    def num_received(self) -> int:
        """Messages that could be read."""
        return self.num_telemetry + self.num_status + self.num_presence + self.num_policies


class Intake:
    """Collects until it is emptied."""

    def __init__(self, *, max_edges: int = MAX_EDGES, max_certain: int = MAX_CERTAIN) -> None:
        self._max_edges = max_edges
        self._max_certain = max_certain
        self._telemetry: dict[str, Telemetry] = {}
        self._certain: list[Event] = []
        self._num_telemetry = self._num_status = self._num_presence = self._num_policies = 0
        self._num_shed = 0

    @property
    def is_full(self) -> bool:
        """There is no more room for what is never shed: stop reading until it is emptied."""
        return len(self._certain) >= self._max_certain

    @property
    def is_empty(self) -> bool:
        """Nothing has come."""
        return not self._certain and not self._telemetry

    @property
    def statistics(self) -> IntakeStatistics:
        """What came so far."""
        return IntakeStatistics(
            num_telemetry=self._num_telemetry,
            num_status=self._num_status,
            num_presence=self._num_presence,
            num_policies=self._num_policies,
            num_shed=self._num_shed,
        )

    def add(self, received: Received, *, at_s: float) -> None:
        """Take in a message that came at a moment of the fleet's clock."""
        member = received.member
        match received.value:
            case EdgeTelemetry() as telemetry:
                self._num_telemetry += 1
                self._add_telemetry(Telemetry(edge_id=member, telemetry=telemetry, at_s=at_s))
            case Presence() as presence if received.topic == EDGE_PRESENCE:
                self._num_presence += 1
                self._certain.append(EdgeSeen(edge_id=member, presence=presence, at_s=at_s))
            case VerifierStatus() as status:
                self._num_status += 1
                self._certain.append(VerifierSeen(verifier_id=member, status=status, at_s=at_s))
            case EdgePolicy() as policy:
                self._num_policies += 1
                if policy.revision < REVISION_MOST:
                    self._certain.append(PolicySeen(edge_id=member, policy=policy))
            case None if received.topic == EDGE_PRESENCE:
                self._num_presence += 1
                self._certain.append(EdgeGone(edge_id=member))
            case None if received.topic == VERIFIER_STATUS:
                self._num_status += 1
                self._certain.append(VerifierGone(verifier_id=member))
            case None if received.topic == EDGE_POLICY:
                # The edge tells that it has none, and gets one again: see the planner.
                self._num_policies += 1

    def take(self) -> tuple[Event, ...]:
        """Return everything in the order in which it should be folded, and be empty."""
        events = (*self._certain, *self._telemetry.values())
        self._certain.clear()
        self._telemetry.clear()
        return events

    def _add_telemetry(self, event: Telemetry) -> None:
        if self._telemetry.pop(event.edge_id, None) is not None:
            self._num_shed += 1
        elif len(self._telemetry) >= self._max_edges:
            del self._telemetry[next(iter(self._telemetry))]
            self._num_shed += 1
        self._telemetry[event.edge_id] = event
