"""How many answers to prepare for at each position of a proposal.

The answer to a proposal of K tokens is (k, t): k of them accepted, then the target's own token t. Kumar et al., "Speculative
Speculative Decoding" (arXiv 2603.03251, Saguaro), section 4.1: if the chance that t is none of the F likeliest candidates falls
like F^-r, and each token is accepted with chance a, the fewest answers are missed under sum_k F_k <= B by

    F_k = F_0 a^(k / (1 + r))  for k < K,        F_K = F_0 a^(K / (1 + r)) (1 - a)^(-1 / (1 + r)).

AceSpec (arXiv 2609.02514) has F_k ~ eta^k, the same with another name for the ratio.
"""

from functools import lru_cache

MISS_EXPONENT = 1.0
"""The r above. Over the first eight ranks of the recorded guesses it is 1.2 and 1.9 with low-bit copies of the target, 0.3 with small
trained drafts; the fan-out depends on its root only."""

MOST_AT_ONE = 8
"""Most answers prepared for at one position: a drafter tells no more guesses than this and one."""

LEAST_REJECTED = 1e-3
"""No draft is so good that its tokens are rejected less often than this, for the formula's sake."""


@lru_cache(maxsize=1024)
def geometric(budget: int, *, length: int, acceptance: float) -> tuple[int, ...]:
    """Return how many answers to prepare for after 0, 1 ... `length` accepted tokens.

    Args:
        budget: sum of them, unless `MOST_AT_ONE` is in the way everywhere; at least 0.
        length: tokens of the proposal.
        acceptance: chance of each to be accepted, if those before it are; 0 to 1.
    """
    accepted = min(max(acceptance, LEAST_REJECTED), 1.0 - LEAST_REJECTED)
    ratio = accepted ** (1.0 / (1.0 + MISS_EXPONENT))
    weights = [ratio**k for k in range(length + 1)]
    weights[-1] *= (1.0 - accepted) ** (-1.0 / (1.0 + MISS_EXPONENT))
    return _shared(budget, weights)


@lru_cache(maxsize=1024)
def even(budget: int, *, length: int) -> tuple[int, ...]:
    """Return as many for each position, one more for the first ones if it does not come out even."""
    return _shared(budget, [1.0] * (length + 1))


def _shared(budget: int, weights: list[float]) -> tuple[int, ...]:
    """Give one after the other to whoever has least for its weight."""
    given = [0 for _ in weights]
    for _ in range(min(budget, MOST_AT_ONE * len(weights))):
        open_ones = [k for k, count in enumerate(given) if count < MOST_AT_ONE]
        neediest = min(open_ones, key=lambda k: ((given[k] + 0.5) / weights[k], k))
        given[neediest] += 1
    return tuple(given)
