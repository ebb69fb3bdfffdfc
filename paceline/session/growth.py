"""Growing a tree of guesses best first: which leaves to guess from next, and which guesses are worth sending.

A guess has a chance, that of being committed, given that what is committed now is. The likeliest leaves are grown first; a
guess below the floor waits, unsent, and is sent when commits have made it likely enough.

Where the verifier's pace is known, a guess that would arrive after the verifier has drawn the token there by itself counts for less:
of use are only those below it. It is sent when one of those is worth sending, and before it. `docs/tree-stream.md` derives it.

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
from paceline.session.pace import Pace, Walk
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
    pace: Pace | None = None
    """How far and how fast the verifier is; None: as if every guess arrived in time, and nothing is held back."""
    fan: tuple[int, ...] = ()
    """Most guesses for the first, second ... position along the likeliest path, the last for all beyond, and one for each other
    position; (): `width` everywhere."""

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


_Waiting = tuple[float, int, Node, TokenId]
"""Of a guess: minus the logarithm of its chance, a number for the order, its parent, its token."""


class Frontier:
    """The open leaves of a tree and the guesses that wait for a better chance.

    Args:
        root: the end of the committed text; nothing hangs from it.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self._walk = Walk(root)
        self._logs: dict[Node, float] = {root: 0.0}
        """Logarithm of the chance of each live node, given what was committed when its root was made."""
        self._open: dict[Node, None] = {root: None}
        self._waiting: list[_Waiting] = []
        """A heap of guesses, the likeliest first."""
        self._late: list[_Waiting] = []
        """Guesses that were taken from it and that only a commit can make worth anything."""
        self._held: dict[Node, None] = {}
        """Nodes that come late and have none below them that is worth sending yet."""
        self._numbers = count()

    @property
    def num_held(self) -> int:
        """Nodes that were not yielded yet: they are only of use for what may come to hang below them."""
        return len(self._held)

    def is_held(self, node: Node) -> bool:
        """Whether a node was not yielded yet."""
        return node in self._held

    def best(
        self, growth: Growth, *, deepest: int, stops: frozenset[TokenId], now_s: float = 0.0
    ) -> list[Node]:
        """Return the open leaves worth most, at most `growth.leaves`; a guess after one is at most `deepest` tokens deep."""
        ends = self._ends(deepest=deepest, stops=stops)
        pace = growth.pace
        if pace is None:
            return heapq.nlargest(growth.leaves, ends, key=self._logs.__getitem__)
        there_s = now_s + pace.forward_s
        # Even what would come late by now: with the next commit its guesses may be worth sending, and then they are there.
        return heapq.nlargest(
            growth.leaves,
            ends,
            key=lambda node: self._logs[node] + self._walk.loss(node, pace, at_s=there_s),
        )

    def has_any(self, *, deepest: int, stops: frozenset[TokenId]) -> bool:
        """Whether there is an open leaf; arguments as of `best`."""
        return any(True for _ in self._ends(deepest=deepest, stops=stops))

    def _ends(self, *, deepest: int, stops: frozenset[TokenId]) -> Iterator[Node]:
        return (
            node
            for node in self._open
            if (node is self._root or node.token not in stops) and depth_of(node) < deepest
        )

    def grown(self, leaf: Node, guesses: Iterable[Guess], *, most: int | None = None) -> bool:
        """Note at most `most` guesses after a leaf, which wait until `promoted`; return whether the leaf is known here."""
        above = self._logs.get(leaf)
        if above is None:
            return False
        self._open.pop(leaf, None)
        for rank, guess in enumerate(guesses):
            if rank == 0:
                self._walk.learn(guess.chance)
            if rank == most:
                break
            chance = above + log(max(LEAST_CHANCE, guess.chance))
            heapq.heappush(self._waiting, (-chance, next(self._numbers), leaf, guess.token))
        return True

    def promoted(self, most: int, growth: Growth, *, now_s: float = 0.0) -> Iterator[Node]:
        """Hang the likeliest waiting guesses into the tree, at most `most`, none below the floor; yield what may be sent."""
        least = self._logs[self._root] + log(growth.floor)
        pace = growth.pace
        while most > 0 and self._waiting and -self._waiting[0][0] >= least:
            entry = heapq.heappop(self._waiting)
            negative, _, parent, token = entry
            if parent not in self._logs or token in parent.children:
                continue  # contradicted meanwhile, or guessed twice
            loss = 0.0 if pace is None else self._walk.loss(parent, pace, at_s=now_s)
            if loss - negative < least:
                self._late.append(entry)
                continue
            node = parent.grow(token)
            self._logs[node] = -negative
            self._open[node] = None
            self._walk.add(node, pace, now_s=now_s)
            most -= 1
            if loss:
                self._held[node] = None
            else:
                yield from self.released(node)

    def until_s(self, node: Node, pace: Pace) -> float:
        """Return until when a node must be sent to be there in time; infinite if that is not known."""
        assert node.parent is not None
        return self._walk.until_s(node.parent, pace)

    def restart(self, *, now_s: float) -> None:
        """All that was yielded is sent again, now."""
        self._walk.restart(now_s=now_s)

    def advance(self, root: Node, dropped: Iterable[Node], *, now_s: float = 0.0) -> None:
        """The text went on to `root`, as is known now; these nodes are contradicted."""
        before, self._root = self._root, root
        gone = (before, *dropped)
        for node in gone:
            self._logs.pop(node, None)
            self._open.pop(node, None)
            self._held.pop(node, None)
        self._held.pop(root, None)
        if root not in self._logs:
            self._logs[root] = 0.0
            self._open[root] = None
        self._walk.advance(root, gone, now_s=now_s)
        for entry in self._late:
            heapq.heappush(self._waiting, entry)
        self._late.clear()
        if len(self._waiting) > 2 * len(self._logs) + 1024:  # those of nodes long gone
            self._waiting = [one for one in self._waiting if one[2] in self._logs]
            heapq.heapify(self._waiting)

    def released(self, node: Node) -> Iterator[Node]:
        """Yield a node that is to be sent, after those above it that were held."""
        chain = [node]
        while (parent := chain[-1].parent) is not None and parent in self._held:
            del self._held[parent]
            chain.append(parent)
        yield from reversed(chain)


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
