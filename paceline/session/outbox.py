"""The edge's register of guesses: which were sent under which number, and which still wait for the window."""

from collections.abc import Callable, Iterable

from paceline.session.tree import Node
from paceline.tokens import TokenId


class Outbox:
    """Numbers of one stream at a time. Every live node is either sent, with one name, or waits, in order of drafting.

    Every operation but `restart` costs in proportion to the nodes it changes, not to those it keeps.
    """

    def __init__(self) -> None:
        self._waiting: dict[Node, None] = {}
        self._used = 0
        self._next_name = 1

    @property
    def used(self) -> int:
        """Names in flight."""
        return self._used

    @property
    def num_live(self) -> int:
        """Nodes below the committed text, sent or waiting."""
        return self._used + len(self._waiting)

    @property
    def num_waiting(self) -> int:
        """Nodes that were not sent on this stream."""
        return len(self._waiting)

    @property
    def waiting(self) -> Iterable[Node]:
        """Nodes that were not sent on this stream, a parent before its children."""
        return self._waiting

    def add(self, node: Node) -> None:
        """A new guess; its parent was added before."""
        self._waiting[node] = None

    def settle(self, node: Node) -> bool:
        """Forget `node`, which is committed or contradicted; return whether it had been sent."""
        if not node.names:
            self._waiting.pop(node, None)  # the root is in neither
            return False
        self._used -= 1
        node.names = []
        return True

    def restart(self, root: Node, *, without: Callable[[Node], bool] | None = None) -> None:
        """Start again with 1, for another stream: everything below `root` waits, but what is not to be sent."""
        self._next_name = 1
        self._used = 0
        live = root.below() if without is None else (n for n in root.below() if not without(n))
        self._waiting = dict.fromkeys(live)
        for node in self._waiting:
            node.names = []

    def take(self, most: int, root: Node) -> tuple[tuple[TokenId, ...], tuple[int, ...]]:
        """Number at most `most` waiting nodes; return the tokens and parents of the proposal that offers them.

        Parents are distances in numbers, 0 for nodes right below `root`; what is missing at the end is 1.
        """
        nodes = [node for node, _ in zip(self._waiting, range(most), strict=False)]
        parents: list[int] = []
        for node in nodes:
            del self._waiting[node]
            assert node.parent is not None
            parent = node.parent
            parents.append(0 if parent is root else self._next_name - parent.names[0])
            node.names = [self._next_name]
            self._next_name += 1
        self._used += len(nodes)
        while parents and parents[-1] == 1:
            parents.pop()  # the rest is a chain, which goes without saying
        return tuple(node.token for node in nodes), tuple(parents)
