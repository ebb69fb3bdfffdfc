"""How likely guesses are, as a verifier can know it: by their order among their siblings, and by what became of earlier ones.

An edge sends the guess it thinks likeliest first, so a node's rank among its siblings says much; its chance of being committed is the
product of the rates of its rank and of all above it. No score crosses the wire.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from paceline.session.tree import Node
from paceline.tokens import TokenId

PRIOR = (0.6, 0.15, 0.06, 0.03)
"""Rates before anything is known; later ranks count as the last."""

TRUST = 8.0
"""What was known before counts as much as so many judged positions."""

FADE = 0.98
"""What a judged position counts less with each newer one: a text changes its subject."""

FADE_OF_ALL = 0.998
"""The same for many texts together."""


@dataclass(slots=True, kw_only=True)
class RankRates:
    """How often the target drew the first, second ... of the guesses for a position."""

    above: "RankRates | None" = None
    """Of other texts of the same drafts, this one included: what is believed before this one tells. None: PRIOR."""
    fade: float = FADE
    _tried: list[float] = field(default_factory=lambda: [0.0 for _ in PRIOR])
    _right: list[float] = field(default_factory=lambda: [0.0 for _ in PRIOR])

    def rate(self, rank: int) -> float:
        """Return the chance of a guess of a rank, 0 for the first, if all above it are right."""
        rank = min(rank, len(PRIOR) - 1)
        before = PRIOR[rank] if self.above is None else self.above.rate(rank)
        return (self._right[rank] + TRUST * before) / (self._tried[rank] + TRUST)

    def judge(self, siblings: list[TokenId], drawn: TokenId) -> None:
        """Learn what the target drew where there were guesses, in their order."""
        for rank, token in enumerate(siblings[: len(PRIOR)]):
            self._tried[rank] = self._tried[rank] * self.fade + 1.0
            self._right[rank] = self._right[rank] * self.fade + float(token == drawn)
        if self.above is not None:
            self.above.judge(siblings, drawn)


def likeliest(root: Node, rates: RankRates) -> Iterator[tuple[Node, int, float]]:
    """Yield the nodes below `root` with their depths from 1 on and their chances of being committed.

    The likeliest comes first, so a parent before its children. A chance is the product of the rates of the node's rank
    and of all above it.
    """
    numbers = count()
    each = [rates.rate(rank) for rank in range(len(PRIOR))]
    heap = [(-1.0, next(numbers), 0, root)]
    while heap:
        negative, _, depth, node = heapq.heappop(heap)
        if depth:
            yield node, depth, -negative
        for rank, child in enumerate(node.children.values()):
            chance = negative * each[min(rank, len(each) - 1)]
            heapq.heappush(heap, (chance, next(numbers), depth + 1, child))
