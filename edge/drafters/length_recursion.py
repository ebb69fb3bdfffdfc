"""Which drafters of a list draft for which, and how many tokens ahead: the chain with the least expected time per token.

A drafter alone emits a token per pass: T = c. One that looks at g tokens of another one, each of which it would have drawn
itself with chance a if it drew those before, emits 1 + a + .. + a^g tokens per pass on average, so

    T' = (g * T + c) * (1 - a) / (1 - a^(g + 1))

Time and gain multiply along a chain, and the best chain is a shortest path whose edges add a cost and multiply by a
gain. T' grows with T, and is below neither T nor c, whichever is smaller: so the search may settle the fastest drafter first,
as Dijkstra's does.

Source: Globerson et al., "Fast Inference via Hierarchical Speculative Decoding", arXiv 2510.19705 (the latency of a chain and its
reduction to a generalised shortest path); the tokens of a pass: Leviathan et al. 2023, equation 1. Two things are ours: a
pass costs more the more rows it has, and a drafter may have nothing to offer, as one that quotes; to find that out costs
what a token costs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PassCost:
    """What a pass of a drafter takes, in seconds."""

    base_s: float
    """One that looks at nobody's tokens: one token comes out of it."""
    per_token_s: float = 0.0
    """More for each token that it looks at; at least 0."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Handover:
    """What one drafter is worth to another."""

    acceptance: float
    """Chance from 0 to 1 that a token which is offered is the one that the other draws, if those before it were."""
    share: float = 1.0
    """Passes of the other for which it has something to offer, over all passes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rung:
    """One drafter of a chain."""

    drafter: int
    """Its index."""
    length: int
    """Tokens of the rung below that it looks at in one pass; 0 for the lowest rung."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chain:
    """Drafters that draft for each other, the one that drafts for all others first."""

    rungs: tuple[Rung, ...]
    token_s: float
    """Expected seconds for each token that the last one emits."""


def best_chain(
    costs: Sequence[PassCost],
    handovers: Mapping[tuple[int, int], Handover],
    *,
    last: int,
    most: int,
) -> Chain:
    """Return the chain that ends with a drafter and has the least expected time per token; of equals the longest.

    Args:
        costs: of each drafter. The last one may be the target, with the way there and back in its cost.
        handovers: who may draft for whom (below, above), and what it is worth.
        last: whose tokens are wanted.
        most: longest length, at least 1.
    """
    token_s = [cost.base_s for cost in costs]
    below: list[tuple[int, int] | None] = [None] * len(costs)
    left = set(range(len(costs)))
    while last in left:
        fastest = min(left, key=lambda drafter: (token_s[drafter], drafter))
        left.remove(fastest)
        for drafter in left:
            handover = handovers.get((fastest, drafter))
            if handover is None:
                continue
            length, found_s = best_length(
                costs[drafter], handover, below_s=token_s[fastest], most=most
            )
            if found_s <= token_s[drafter]:
                token_s[drafter], below[drafter] = found_s, (fastest, length)
    rungs, at = list[Rung](), last
    while (step := below[at]) is not None:
        rungs.append(Rung(drafter=at, length=step[1]))
        at = step[0]
    rungs.append(Rung(drafter=at, length=0))
    return Chain(rungs=tuple(reversed(rungs)), token_s=token_s[last])


def best_length(
    cost: PassCost, handover: Handover, *, below_s: float, most: int
) -> tuple[int, float]:
    """Return how many tokens to look at in a pass, from 1 to `most`, and the expected time per token, in seconds.

    Of equals the longest.

    Args:
        cost: of who looks.
        handover: what the tokens are worth.
        below_s: time per token that is looked at.
        most: longest length.
    """
    candidates = (
        (length, token_time_s(cost, handover, below_s=below_s, length=length))
        for length in range(most, 0, -1)
    )
    return min(candidates, key=lambda candidate: candidate[1])


def token_time_s(cost: PassCost, handover: Handover, *, below_s: float, length: int) -> float:
    """Return the expected time per token of a drafter that looks at `length` tokens in a pass, in seconds."""
    emitted = sum(handover.acceptance**kept for kept in range(length + 1))
    pass_s = cost.base_s + (below_s + cost.per_token_s) * length
    in_vain = 1.0 - handover.share
    in_vain_s = cost.base_s + below_s
    return (handover.share * pass_s + in_vain * in_vain_s) / (handover.share * emitted + in_vain)
