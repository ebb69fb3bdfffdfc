"""Growing a tree of guesses best first: which leaves to guess from next, and which guesses are worth sending.

A guess has a chance, that of being committed, given that what is committed now is. The likeliest leaves are grown first; a
guess below the floor waits, unsent, and is sent when commits have made it likely enough.

Best-first trees: Li et al., "EAGLE-2" (arXiv 2406.16858), section 4; Svirschevski et al., "SpecExec" (arXiv 2406.02532),
section 3.
"""

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from math import log

from paceline.drafter import Guess
from paceline.errors import ConfigError
from paceline.session.tree import Node
from paceline.tokens import Position, TokenId

LEAST_CHANCE = 1e-9
"""Nothing is impossible: a chance of 0 counts as this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """How a tree grows.

    Raises:
        ConfigError: a field is out of its range.
    """

    width: int = 4
    """Most guesses for one position."""
    leaves: int = 8
    """Most leaves in one forward pass of the draft."""
    floor: float = 0.02
    """A guess less likely to be committed than this is not sent, and nothing is guessed after it."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("width", "leaves"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected at least 1")
        if not 0.0 < self.floor <= 1.0:
            raise ConfigError(f"floor: got {self.floor}, expected more than 0 and at most 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class GrowthRequest:
    """What the drafter may go on from: the committed text, and from there to each of some leaves."""

    position: Position
    """Length of the committed text."""
    paths: tuple[tuple[TokenId, ...], ...]
    """The live guesses down to each leaf, the likeliest leaf first; () is the committed text itself."""
    width: int
    """Most guesses wanted after each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrownLeaf:
    """What the drafter guesses after one leaf."""

    path: tuple[TokenId, ...]
    """As in the request."""
    guesses: tuple[Guess, ...]
    """The likeliest first; they exclude each other. None: nothing comes after it."""


class Frontier:
    """The open leaves of a tree and the guesses that wait for a better chance.

    Args:
        root: the end of the committed text; nothing hangs from it.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self._logs: dict[Node, float] = {root: 0.0}
        """Logarithm of the chance of each live node, given what was committed when its root was made."""
        self._open: dict[Node, None] = {root: None}
        self._waiting: list[tuple[float, int, Node, TokenId]] = []
        """A heap of guesses: minus the logarithm of the chance, a number for the order, the parent, the token."""
        self._numbers = count()

    @property
    def is_closed(self) -> bool:
        """There is no leaf to go on from."""
        return not self._open

    def best(self, most: int, *, deepest: int, stops: frozenset[TokenId]) -> list[Node]:
        """Return the likeliest open leaves, at most `most`; a guess after one is at most `deepest` tokens deep."""
        ends = (
            node
            for node in self._open
            if (node is self._root or node.token not in stops) and depth_of(node) < deepest
        )
        return heapq.nlargest(most, ends, key=self._logs.__getitem__)

    def grown(self, leaf: Node, guesses: Iterable[Guess]) -> bool:
        """Note the guesses after a leaf, which wait until `promoted`; return whether the leaf is known here."""
        above = self._logs.get(leaf)
        if above is None:
            return False
        self._open.pop(leaf, None)
        for guess in guesses:
            chance = above + log(max(LEAST_CHANCE, guess.chance))
            heapq.heappush(self._waiting, (-chance, next(self._numbers), leaf, guess.token))
        return True

    def promoted(self, most: int, *, floor: float) -> Iterator[Node]:
        """Hang the likeliest waiting guesses into the tree, at most `most`, none below the floor; yield the new nodes."""
        least = self._logs[self._root] + log(floor)
        while most > 0 and self._waiting and -self._waiting[0][0] >= least:
            negative, _, parent, token = heapq.heappop(self._waiting)
            if parent not in self._logs or token in parent.children:
                continue  # contradicted meanwhile, or guessed twice
            node = parent.grow(token)
            self._logs[node] = -negative
            self._open[node] = None
            most -= 1
            yield node

    def advance(self, root: Node, dropped: Iterable[Node]) -> None:
        """The text went on to `root`; these nodes are contradicted."""
        before, self._root = self._root, root
        for node in (before, *dropped):
            self._logs.pop(node, None)
            self._open.pop(node, None)
        if root not in self._logs:
            self._logs[root] = 0.0
            self._open[root] = None
        if len(self._waiting) > 2 * len(self._logs) + 1024:  # those of nodes long gone
            self._waiting = [one for one in self._waiting if one[2] in self._logs]
            heapq.heapify(self._waiting)


def depth_of(node: Node) -> int:
    """Return how many tokens a node stands below the committed text."""
    depth = 0
    while node.parent is not None:
        node = node.parent
        depth += 1
    return depth


def path_to(node: Node) -> tuple[TokenId, ...]:
    """Return the tokens from below the committed text down to a node."""
    path: list[TokenId] = []
    while node.parent is not None:
        path.append(node.token)
        node = node.parent
    return tuple(reversed(path))
