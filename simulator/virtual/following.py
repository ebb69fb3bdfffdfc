"""Whether edges do what the orchestrator says: what a control plane that has healed must come back to."""

from collections.abc import Sequence

from edge.steering import LengthPolicy
from orchestrator.fleet import Fleet
from orchestrator.members import MemberState
from simulator.virtual.edge import SimulatedEdge
from simulator.virtual.orchestrator import SimulatedOrchestrator
from simulator.virtual.verifier import SimulatedVerifier


def astray(
    orchestrator: SimulatedOrchestrator,
    *,
    edges: Sequence[SimulatedEdge],
    verifiers: Sequence[SimulatedVerifier],
) -> list[str]:
    """Return who is not where the orchestrator wants it, or not known to it; empty if all is well."""
    if orchestrator.service is None:
        return ["the orchestrator does not run"]
    fleet = orchestrator.service.fleet
    told = [_verifier(fleet, one) for one in verifiers] + [_edge(fleet, one) for one in edges]
    return [text for text in told if text]


def _verifier(fleet: Fleet, verifier: SimulatedVerifier) -> str:
    known = fleet.verifiers.get(verifier.name)
    if known is None or known.state is not MemberState.ONLINE:
        return f"{verifier.name} is not known to be online"
    if verifier.station is None or known.status.incarnation != verifier.station.incarnation:
        return f"{verifier.name} is known by a program that is over"
    return ""


def _edge(fleet: Fleet, edge: SimulatedEdge) -> str:
    known, pilot = fleet.edges.get(edge.name), edge.pilot
    if known is None or known.state is not MemberState.ONLINE or known.policy is None:
        return f"{edge.name} is not known to be online, or has no policy"
    if pilot is None or not pilot.steering.is_led:
        return f"{edge.name} hears of no orchestrator"
    if pilot.steering.policy != known.policy:
        held = pilot.steering.policy.revision if pilot.steering.policy else "none"
        return f"{edge.name} holds policy {held}, expected {known.policy.revision}"
    drafting, first = pilot.client.drafting, pilot.client.verifiers[0]
    is_free = edge.settings.length_policy is not LengthPolicy.FIXED
    expected = known.policy.draft_length
    if drafting.growth is not None:  # a tree's depth is the edge's own, up to what it is told
        expected = min(expected, edge.settings.drafting.draft_length)
    if is_free and drafting.draft_length != expected:
        return f"{edge.name} drafts {drafting.draft_length} ahead, expected {expected}"
    if known.policy.verifiers and str(first) != known.policy.verifiers[0]:
        return f"{edge.name} uses {first}, expected {known.policy.verifiers[0]}"
    return ""
