"""Rules that make a guess of the places where a text ended like this before.

A place is told by how many tokens before it match, and what followed it; the latest places come first, as
`History.matches` gives them.

Sources: Saxena, "Prompt Lookup Decoding" (2023); Cleary and Witten, "Data Compression Using Adaptive Coding and Partial
String Matching" (1984); Oliaro et al., "SuffixDecoding", arXiv 2411.04975.
"""

from __future__ import annotations

from collections.abc import Iterable
from operator import itemgetter

from paceline.drafter import Guess
from paceline.ngram.history import KEY
from paceline.tokens import TokenId

LOOKUP_DOUBT = 2 / 3
"""Each token that matches multiplies the chance to be wrong by this: the odds before calibration."""

DOUBT = 2.0
"""So many places stand for what the shorter matches say: one place of one length more takes a third of the doubt away."""


def lookup_chance(size: float) -> float:
    """Return the chance that what followed a match of so many tokens, on average, follows again."""
    return 1.0 - float(LOOKUP_DOUBT**size)


def looked_up(matches: Iterable[tuple[int, TokenId]]) -> Guess | None:
    """Return what followed the longest match, the latest of them; None if there is no place."""
    found = max(matches, key=itemgetter(0), default=None)  # of equal ones the first
    return None if found is None else Guess(token=found[1], chance=lookup_chance(found[0]))


def counted(matches: Iterable[tuple[int, TokenId]]) -> Guess | None:
    """Return the likeliest token by all places together, see `blended`; None if there is no place."""
    chances = blended(matches)
    if not chances:
        return None
    # Of equal ones the one that was seen last, which comes first.
    token = max(chances, key=chances.__getitem__)
    return Guess(token=token, chance=chances[token])


def blended(matches: Iterable[tuple[int, TokenId]]) -> dict[TokenId, float]:
    """Return the chances of the tokens that followed some places, from how many tokens match at each.

    What is missing to 1 is the chance of tokens that followed none of them.
    """
    found = list(matches)
    chances = dict.fromkeys((token for _, token in found), 0.0)
    below = KEY - 1
    for size in sorted({size for size, _ in found}):
        followers = [token for matched, token in found if matched >= size]
        total = len(followers)
        # At every length up to this one they are the same: each moves the chances to their shares by as much again.
        kept = (DOUBT / (total + DOUBT)) ** (size - below)
        below = size
        for token, chance in chances.items():
            share = followers.count(token) / total
            chances[token] = share + (chance - share) * kept
    return chances
