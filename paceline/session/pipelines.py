"""Pipelines by their names."""

from collections.abc import Sequence
from typing import assert_never

from paceline.session.drafting import EdgeCounts
from paceline.session.growth import Growth
from paceline.session.guesses import Guesses
from paceline.session.outcomes import OutcomeCache, OutcomeCacheAhead
from paceline.session.pipeline import Pipeline, PipelineName, PipelineSettings
from paceline.session.rounds import RunAhead, StopAndWait
from paceline.session.sketch import Sketch
from paceline.session.tree_stream import TreeStream
from paceline.tokens import TokenId


def make_pipeline(
    settings: PipelineSettings,
    *,
    log: Sequence[TokenId],
    stops: frozenset[TokenId],
    growth: Growth | None,
    counts: EdgeCounts,
) -> tuple[Guesses, Pipeline]:
    """Return the register of what is sent, and what fills it.

    Args:
        settings: which pipeline, and its own figures.
        log: the committed text.
        stops: nothing is drafted after one of these tokens.
        growth: how a tree grows; None for a chain. A pipeline that caches outcomes takes the number of leaves from it.
        counts: the session's.
    """
    grows = growth if settings.name.sends_trees else None
    guesses = Guesses(list(log), stops=stops, growth=grows)
    sketch = Sketch(log, stops=stops)
    leaves = (growth or Growth()).leaves
    match settings.name:
        case PipelineName.TREE_STREAM:
            return guesses, TreeStream(guesses, stops=stops)
        case PipelineName.STOP_AND_WAIT:
            return guesses, StopAndWait(guesses, sketch=sketch, settings=settings, counts=counts)
        case PipelineName.RUN_AHEAD:
            return guesses, RunAhead(guesses, sketch=sketch, settings=settings, counts=counts)
        case PipelineName.OUTCOME_CACHE:
            cache = OutcomeCache(
                guesses, sketch=sketch, settings=settings, counts=counts, leaves=leaves
            )
            return guesses, cache
        case PipelineName.OUTCOME_CACHE_AHEAD:
            ahead = OutcomeCacheAhead(
                guesses, sketch=sketch, settings=settings, counts=counts, leaves=leaves
            )
            return guesses, ahead
        case _:
            assert_never(settings.name)
