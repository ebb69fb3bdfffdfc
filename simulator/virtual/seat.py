"""An edge's seat in a simulated control plane: the real `edge.control`, over the edge's station."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from edge.control import ControlPlane, Pilot, control_plane
from edge.control_options import ControlSettings
from paceline.clock import Clock
from simulator.virtual.mqtt.station import Station
from simulator.virtual.orchestrator import OrchestratorSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """Where an edge takes part, and as whom."""

    station: Station
    settings: OrchestratorSettings
    name: str


@asynccontextmanager
async def taking_part(seat: Seat, *, pilot: Pilot, clock: Clock) -> AsyncIterator[ControlPlane]:
    """Take part while the body runs, as one life of the edge's program.

    Args:
        seat: where.
        pilot: what the control plane acts on.
        clock: of the edge.
    """
    station = seat.station
    transport = station.begin()
    settings = ControlSettings(
        broker=station.broker,
        edge_id=seat.name,
        telemetry_interval_s=seat.settings.telemetry_interval_s,
        follow_verifiers=seat.settings.follow_verifiers,
    )
    async with control_plane(
        settings,
        pilot=pilot,
        clock=clock,
        incarnation=station.incarnation,
        generator=station.chance,
        transport=transport,
    ) as plane:
        yield plane
