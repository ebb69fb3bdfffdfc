"""The verifier's register of names: which node each number of a stream means by now, and how full the window is."""

from collections.abc import Iterable

from paceline.session.tree import Node
from paceline.tokens import Position

Place = Node | Position
"""Where a name stands: at a live node, or at the committed text of this length, whose last token it is."""


class Names:
    """Names of one stream at a time.

    A name counts from its arrival until it is committed and acknowledged, or contradicted. A name that was stale when
    it came never counts. Every operation costs in proportion to the names it changes, not to those it keeps.
    """

    def __init__(self) -> None:
        self._places: dict[int, Place] = {}
        self._committed: dict[Position, list[int]] = {}
        self._next = 1
        self._first_unacknowledged = 1

    @property
    def used(self) -> int:
        """Names in flight."""
        return len(self._places)

    @property
    def next(self) -> int:
        """The number that the next node gets."""
        return self._next

    @property
    def num_since_acknowledgement(self) -> int:
        """Names given since the edge last acknowledged something, stale or not."""
        return self._next - self._first_unacknowledged

    def place_of(self, name: int) -> Place | None:
        """Return where `name` stands, or None if it is stale or forgotten."""
        return self._places.get(name)

    def give(self, place: Place | None) -> None:
        """Give the next name to `place`; None if it contradicts the committed text, which uses a name up as well."""
        name = self._next
        self._next += 1
        if place is None:
            return
        self._places[name] = place
        if isinstance(place, Node):
            place.names.append(name)
        else:
            self._committed.setdefault(place, []).append(name)

    def commit(self, node: Node, length: Position) -> None:
        """The token of `node` ends the committed text of `length`: its names stand there until acknowledged."""
        if node.names:
            for name in node.names:
                self._places[name] = length
            self._committed[length] = node.names
            node.names = []

    def drop(self, nodes: Iterable[Node]) -> None:
        """Forget the names of `nodes`, which are contradicted."""
        for node in nodes:
            for name in node.names:
                del self._places[name]
            node.names = []

    def acknowledge(self, known: Position, length: Position) -> None:
        """Forget the names that stand at committed text above `known` and up to `length`."""
        if length > known:
            self._first_unacknowledged = self._next
        for end in range(known + 1, length + 1):
            for name in self._committed.pop(Position(end), ()):
                del self._places[name]

    def clear(self) -> None:
        """Start again with 1, for another stream. Nodes are the caller's to rename."""
        self._places.clear()
        self._committed.clear()
        self._next = self._first_unacknowledged = 1
