"""Gives the machines of a world the costs that `paceline calibrate` measured on real ones."""

from dataclasses import replace
from pathlib import Path

from simulator.acceptance.recordings import recorded_costs
from simulator.calibration.cost_file import Calibration, read_costs
from simulator.cost import FittedCost
from simulator.virtual.edge import EdgeSettings
from simulator.virtual.verifier import VerifierSettings
from simulator.virtual.world import WorldSettings


def with_costs(
    settings: WorldSettings, costs: Calibration | Path | str, *, draft: str | None = None
) -> WorldSettings:
    """Return the same world on the machines that were measured: every verifier's steps and every edge's drafter.

    Args:
        settings: the world.
        costs: measured ones, the file they are in, or the name of what ships with Paceline ("xeon-1-core").
        draft: whose costs the edges' drafters have; None leaves them as they are.

    Raises:
        ConfigError: there is no such file, recording or drafter.
    """
    match costs:
        case Calibration():
            calibration = costs
        case Path():
            calibration = read_costs(costs)
        case str():
            calibration = recorded_costs(costs)
    verifiers = tuple(_verifier(one, calibration.target) for one in settings.verifiers)
    edges = settings.edges
    if draft is not None:
        fitted = calibration.draft(draft)
        edges = tuple(_edge(one, fitted) for one in edges)
    return replace(settings, verifiers=verifiers, edges=edges)


def _verifier(settings: VerifierSettings, fitted: FittedCost) -> VerifierSettings:
    model = replace(
        settings.model,
        cost=fitted.cost,
        spread=fitted.spread,
        between_s=fitted.between_s,
        rested_s=fitted.rested_s,
    )
    return replace(settings, model=model)


def _edge(settings: EdgeSettings, fitted: FittedCost) -> EdgeSettings:
    if settings.draft is None:
        return settings
    return replace(settings, draft=replace(settings.draft, cost=fitted.cost, spread=fitted.spread))
