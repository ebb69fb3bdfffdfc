"""Which draft rows a step should have, so that it commits the most tokens for its time. Pure.

The rule
--------
A step with a root for each session commits at least as many tokens as it has roots. A draft row adds its chance of being
committed, and costs what the step gets longer by it. Rows are taken in the order of chance per cost, over all sessions
together, for as long as one brings more tokens per second than the step has so far:

    chance / cost > (roots + chances of the rows taken) / (time of the step with them)

Every row that passes raises the right side, every row after it has a smaller left side: where one fails all later ones
fail, and no other choice of rows has a larger ratio (Dinkelbach's rule for ratios of sums). A session's chances fall along
its offer, parents first, so what is taken of it is the beginning of its offer, and a tree.

With few sessions the fixed time of a step is most of it, and nearly every row pays. With many, each row has to be about as
sure as the roots are: drafts shrink to nothing before they slow anybody down on average.

That is about all sessions together. One whose own drafts are never right waits for those of the others, and is no better
off for them. So a step with drafts may take no longer than whoever calls allows.

Rows that are worth the same go first to whom drafts have been given least recently, so that nobody is left out for ever.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRows:
    """What a session with a root in the step offers."""

    chances: tuple[float, ...]
    """Of each node, that it is committed if it is a row of this step; never rising."""
    row_s: float
    """What one of them costs, in seconds; at least 0."""
    drafted_at_s: float = 0.0
    """When it last had draft rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which draft rows pay."""

    counts: tuple[int, ...]
    """How many of each session, from the beginning of its offer."""
    num_tokens: float
    """Committed tokens to be expected of the step, one for each root included."""
    seconds: float
    """What the step will take."""


def choose(
    offers: Sequence[DraftRows], *, budget: int, base_s: float, longest_s: float = float("inf")
) -> Chosen:
    """Return the rows with which the step commits the most tokens per second.

    Args:
        offers: of every session with a root in the step.
        budget: most draft rows of all together.
        base_s: what the step takes without any, in seconds.
        longest_s: what it may take with them.
    """
    counts = [0] * len(offers)
    tokens, seconds = float(len(offers)), base_s
    heap: list[tuple[float, float, int]] = []

    def line_up(index: int) -> None:
        offer, place = offers[index], counts[index]
        if place < len(offer.chances) and offer.chances[place] > 0.0:
            price = offer.row_s / offer.chances[place]
            heapq.heappush(heap, (price, offer.drafted_at_s, index))

    for index in range(len(offers)):
        line_up(index)
    left = budget
    while heap and left > 0:
        price_s, _, index = heapq.heappop(heap)
        if price_s * tokens >= seconds or seconds + offers[index].row_s > longest_s:
            break
        tokens += offers[index].chances[counts[index]]
        seconds += offers[index].row_s
        counts[index] += 1
        left -= 1
        line_up(index)
    return Chosen(counts=tuple(counts), num_tokens=tokens, seconds=seconds)
