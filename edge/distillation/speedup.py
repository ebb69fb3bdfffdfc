"""What a draft is worth: expected tokens per round and per second. Pure arithmetic.

A round is what one message up and one down decide. With acceptance a at each position and k drafted tokens, a chain
yields 1 + a + ... + a^k tokens (Leviathan et al., arXiv 2211.17192, equation 1). A tree that holds the w likeliest tokens at every
place yields the same with the coverage of w ranks in place of a, for as many rows as its places.
"""

from __future__ import annotations

from dataclasses import dataclass

LONGEST = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """The best length of a chain and what it yields."""

    length: int
    tokens_per_round: float
    tokens_per_s: float


def tokens_per_round(acceptance: float, length: int) -> float:
    """Return expected tokens of a round, the target's own one included."""
    return sum(acceptance**depth for depth in range(length + 1))


def best_rate(acceptance: float, *, draft_s: float, target_s: float, rtt_s: float) -> Rate:
    """Return the best chain in rounds that wait for their answer: drafting, a round trip, a step of the target.

    A stream of drafts hides part of the round trip; this is the bound for one that hides none.
    """
    rates = []
    for length in range(LONGEST + 1):
        tokens = tokens_per_round(acceptance, length)
        round_s = length * draft_s + target_s + rtt_s
        rates.append(Rate(length=length, tokens_per_round=tokens, tokens_per_s=tokens / round_s))
    return max(rates, key=lambda rate: rate.tokens_per_s)
