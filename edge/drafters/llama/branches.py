"""Which guesses of a tree have keys and values, and in which of llama.cpp's sequences. Pure: its caller shares and removes cells.

A sequence is one way from the root of the tree down; the first guess after a node goes on in the node's own sequence, each
further one begins a new sequence that shares the cells above it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from edge.drafters.llama.cells import Row
from paceline.tokens import TokenId

ROOT = 0
"""The sequence of the committed text."""


@dataclass(slots=True, eq=False)
class Node:
    """A guess that is computed, or the end of the text."""

    position: int
    sequence: int
    children: dict[TokenId, Node] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Cells of one sequence become another one's as well: from `first` to before `end`."""

    source: int
    target: int
    first: int = 0
    end: int


@dataclass(slots=True)
class Wave:
    """What one call computes."""

    shares: list[Share] = field(default_factory=list)
    """To be done before it."""
    rows: list[Row] = field(default_factory=list)
    leaves: dict[tuple[TokenId, ...], int] = field(default_factory=dict)
    """The row after which each path's guesses come."""
    passing: list[int] = field(default_factory=list)
    """Sequences to be given back by `Branches.end` when the logits are read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settled:
    """What a commit changes."""

    num_tokens: int
    """Committed tokens that were computed as guesses."""
    share: Share | None
    """To be done first."""
    removed: tuple[int, ...]
    """Sequences that are over."""


class NoRoomError(Exception):
    """There are too many branches; drop them all and plan again."""


class Branches:
    """The guesses below a text.

    Args:
        num_tokens: of the text whose keys and values are there.
        num_sequences: for the text and all branches.
        most_rows: guesses that may be there at once.
    """

    def __init__(self, num_tokens: int, *, num_sequences: int, most_rows: int) -> None:
        self._root = Node(num_tokens - 1, ROOT)
        self._free = list(range(num_sequences - 1, ROOT, -1))
        self._tips: dict[int, Node] = {}
        """The last node of each sequence in use."""
        self._most_rows = most_rows
        self._num_rows = 0

    @property
    def is_empty(self) -> bool:
        """No guess is computed."""
        return not self._tips

    def plan(self, paths: Sequence[tuple[TokenId, ...]], *, most_rows: int) -> Wave:
        """Return what to compute for as many of the paths as one call can; the others come after it.

        A path whose missing part begins with what the call itself computes must wait for it.

        Args:
            paths: below the text, different ones, none empty.
            most_rows: of the call.

        Raises:
            NoRoomError: see there.
        """
        wave, planned = Wave(), set[Node]()
        for path in paths:
            node, depth = self._known(path)
            if node in planned or (len(wave.rows) + len(path) - depth > most_rows and wave.rows):
                continue
            if not self._has_room(path, node, depth):
                if wave.rows:
                    continue
                raise NoRoomError
            self._add(wave, path, node, depth)
            planned.update(self._below(node, path[depth:]))
        return wave

    def end(self, wave: Wave) -> None:
        """Take back the sequences that were for one call only; their cells are removed by then."""
        self._free.extend(wave.passing)
        self._num_rows -= len(wave.passing)

    def commit(self, tail: Sequence[TokenId]) -> Settled:
        """Let the text go on by the guesses among `tail` that are computed, but never by its last token.

        What hangs below the last token stays if all of `tail` was guessed; nothing else does.

        Args:
            tail: tokens after the text, at least one.
        """
        node, depth = self._known(tail)
        first = self._root.position + 1
        share = Share(source=node.sequence, target=ROOT, first=first, end=node.position + 1)
        below = node.children.get(tail[-1]) if depth == len(tail) - 1 else None
        self._root = Node(node.position, ROOT)
        if below is not None:
            self._root.children[tail[-1]] = below
        alive = list(_all(below))
        self._num_rows = len(alive)
        used = {each.sequence for each in alive}
        removed = tuple(sequence for sequence in self._tips if sequence not in used)
        for sequence in removed:
            del self._tips[sequence]
        self._free.extend(removed)
        return Settled(num_tokens=depth, share=share if depth else None, removed=removed)

    def drop(self) -> tuple[int, ...]:
        """Forget all guesses; return the sequences that are over."""
        removed = tuple(self._tips)
        self._root.children.clear()
        self._tips.clear()
        self._free.extend(removed)
        self._num_rows = 0
        return removed

    def _known(self, path: Sequence[TokenId]) -> tuple[Node, int]:
        """Return the deepest node above the last token of a path, and how deep it is."""
        node = self._root
        for depth, token in enumerate(path[:-1]):
            child = node.children.get(token)
            if child is None:
                return node, depth
            node = child
        return node, len(path) - 1

    def _has_room(self, path: Sequence[TokenId], node: Node, depth: int) -> bool:
        if self._begins_one(node, path[depth:]) and not self._free:
            return False
        return self.is_empty or self._num_rows + len(path) - depth <= self._most_rows

    def _begins_one(self, node: Node, rest: Sequence[TokenId]) -> bool:
        """Return whether what is missing after a node needs a sequence of its own."""
        return self._tips.get(node.sequence) is not node or rest[0] in node.children

    def _add(self, wave: Wave, path: tuple[TokenId, ...], node: Node, depth: int) -> None:
        rest = path[depth:]
        # Its keys and values are there, but its logits are not: it is computed again beside itself.
        is_again = rest[0] in node.children
        sequence = node.sequence
        if self._begins_one(node, rest):
            sequence = self._free.pop()
            wave.shares.append(Share(source=node.sequence, target=sequence, end=node.position + 1))
        self._num_rows += len(rest)
        for place, token in enumerate(rest, start=1):
            is_leaf = place == len(rest)
            row = Row(
                token=token,
                position=node.position + place,
                sequence=sequence,
                wants_logits=is_leaf,
            )
            wave.rows.append(row)
        wave.leaves[path] = len(wave.rows) - 1
        if is_again:
            wave.passing.append(sequence)
            return
        for token in rest:
            child = Node(node.position + 1, sequence)
            node.children[token] = child
            node = child
        self._tips[sequence] = node

    @staticmethod
    def _below(node: Node, tokens: Sequence[TokenId]) -> Iterator[Node]:
        for token in tokens:
            node = node.children[token]
            yield node


def _all(node: Node | None) -> Iterator[Node]:
    """Give a node and all below it."""
    waiting = [] if node is None else [node]
    while waiting:
        each = waiting.pop()
        yield each
        waiting.extend(each.children.values())
