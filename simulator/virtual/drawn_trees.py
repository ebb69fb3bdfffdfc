"""Trees for the edges of a fault schedule."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeVar

from numpy.random import Generator

from edge.steering import LengthPolicy
from paceline.control.marginal import BYTE_S
from paceline.session.growth import Growth
from paceline.session.pace import Pace
from simulator.cost import StepCost
from simulator.virtual.edge import EdgeSettings
from simulator.virtual.ranked_draft import RankedDraft

SHARE = 0.55
"""Part of the edges that draft and stream whose drafts are trees."""

CACHE_SHARE = 0.06
"""The same of those that cache outcomes, which send chains all the same. Of all edges together a third."""

FAN_OUT = 3
"""Answers that these prepare for: each costs the processor more than a tree does."""

DEEPEST = 64
"""How deep an edge may go that decides by itself, or an orchestrator for it: the longest that one says."""

_DEPTHS = (2, 4, 12)
_WINDOWS = (4, 16, 64)
_WIDTHS = (2, 3, 4)
_LEAVES = (1, 2, 4)
_FLOORS = (0.01, 0.03, 0.1)
_PATIENCES_S = (0.0,) * 9 + (0.1,)
"""How long the verifier is asked to wait for a tree: usually not at all."""

_BYTES_S = (0.0, BYTE_S)
_PACES = (None, None, Pace(rtt_s=0.05, step_s=0.02, forward_s=0.004, slack_s=0.002))
"""Where nobody measures it: none is known, or one that is wrong as often as not."""

_FANS: tuple[tuple[int, ...], ...] = ((), (), (4, 2, 1), (1, 3))
_RATES = (
    (0.25, 0.25, 0.25, 0.25),
    (0.6, 0.15, 0.08, 0.04),
    (0.85, 0.09, 0.04, 0.02),
    (0.9, 0.1, 0.0, 0.0),
)
_TOLD: tuple[tuple[float, ...], ...] = ((), (), (0.97, 0.01, 0.01, 0.01), (0.4, 0.3, 0.2, 0.1))
_SILENCES = (0.0, 0.0, 0.15)
_FORWARDS_S = (0.002, 0.01)

T = TypeVar("T")


def with_trees(dice: Generator, edges: Sequence[EdgeSettings]) -> tuple[EdgeSettings, ...]:
    """Return the edges, some with a drafter of trees; those that stream send trees then, those that cache outcomes keep them."""
    # What is drawn for one edge changes nothing for the next.
    return tuple(
        _growing(own, edge) if own.random() < _share(edge) else edge
        for own, edge in zip(dice.spawn(len(edges)), edges, strict=True)
    )


def _share(edge: EdgeSettings) -> float:
    """Return the part of the edges like this one whose drafts are trees."""
    if edge.draft is None:
        return 0.0
    name = edge.drafting.pipeline.name
    return SHARE if name.sends_trees else CACHE_SHARE if name.caches_outcomes else 0.0


def _growing(dice: Generator, edge: EdgeSettings) -> EdgeSettings:
    """Return the edge with a drafter of trees, and with what its pipeline makes of them."""
    depth, window = _one(dice, _DEPTHS), _one(dice, _WINDOWS)
    patience_s, byte_s = _one(dice, _PATIENCES_S), _one(dice, _BYTES_S)
    growth, pace, draft = _growth(dice), _one(dice, _PACES), _draft(dice)
    drafting = edge.drafting
    if not drafting.pipeline.name.sends_trees:
        pipeline = replace(drafting.pipeline, fan_out=FAN_OUT)
        drafting = replace(drafting, draft_length=depth, growth=growth, pipeline=pipeline)
        return replace(
            edge,
            draft=None,
            make_drafter=draft,
            drafting=drafting,
            length_policy=LengthPolicy.FIXED,
        )
    is_steered = edge.length_policy is not LengthPolicy.FIXED
    pipeline = replace(drafting.pipeline, patience_s=patience_s)
    return replace(
        edge,
        draft=None,
        make_drafter=draft,
        drafting=replace(
            drafting,
            draft_length=DEEPEST if is_steered else depth,
            window=window,
            growth=replace(growth, pace=None if is_steered or patience_s else pace),
            pipeline=pipeline,
        ),
        length_policy=LengthPolicy.MARGINAL if is_steered else LengthPolicy.FIXED,
        byte_s=byte_s,
    )


def _draft(dice: Generator) -> RankedDraft:
    return RankedDraft(
        rates=_one(dice, _RATES),
        told=_one(dice, _TOLD),
        silence=_one(dice, _SILENCES),
        cost=StepCost(fixed_s=_one(dice, _FORWARDS_S), per_row_s=0.0),
    )


def _growth(dice: Generator) -> Growth:
    return Growth(
        width=_one(dice, _WIDTHS),
        leaves=_one(dice, _LEAVES),
        floor=_one(dice, _FLOORS),
        fan=_one(dice, _FANS),
    )


def _one(dice: Generator, values: Sequence[T]) -> T:
    return values[int(dice.integers(len(values)))]
