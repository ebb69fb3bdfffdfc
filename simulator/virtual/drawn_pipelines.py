"""Pipelines for the edges of a fault schedule."""

from collections.abc import Iterable
from dataclasses import replace

from numpy.random import Generator

from paceline.session.pipeline import PipelineName, PipelineSettings
from simulator.virtual.edge import EdgeSettings

SHARE = 0.4
"""Part of the edges that do not stream."""


def with_pipelines(dice: Generator, edges: Iterable[EdgeSettings]) -> tuple[EdgeSettings, ...]:
    """Return the edges, some with a pipeline that waits for answers or that the verifier waits for."""
    names = [name for name in PipelineName if not name.sends_trees]
    found = []
    for edge in edges:
        pipeline = PipelineSettings(
            name=names[int(dice.integers(len(names)))],
            patience_s=(0.0, 0.1, None)[int(dice.integers(3))],
            pre_verify=bool(dice.random() < 0.5),
        )
        is_other = dice.random() < SHARE
        drafting = replace(edge.drafting, pipeline=pipeline) if is_other else edge.drafting
        found.append(replace(edge, drafting=drafting))
    return tuple(found)
