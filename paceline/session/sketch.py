"""What an edge has drafted and does not send yet, or not at all: a tree below the committed text, and a chain in it.

The chain is what the drafter thinks most of: the first child of the end of the text, its first child, and so on. Some of its
beginning is sent; the rest of the tree is held back.
"""

from collections.abc import Iterable, Sequence

from paceline.drafter import Guess
from paceline.session.tree import Node, root_after
from paceline.tokens import TokenId


class Sketch:
    """See the module.

    Args:
        log: the committed text.
        stops: nothing is drafted after one of these tokens: the text would end there.
    """

    def __init__(self, log: Sequence[TokenId], *, stops: frozenset[TokenId]) -> None:
        self.root = root_after(tuple(log))
        self.num_sent = 0
        """So many nodes of the chain, from its beginning, are sent."""
        self._stops = stops
        self._guessed: dict[Node, tuple[Guess, ...]] = {}
        """What the drafter said comes after a node, the likeliest first."""

    @property
    def chain(self) -> list[Node]:
        """The nodes of the chain, those that are sent first."""
        nodes: list[Node] = []
        node = self.root
        while node.children:
            node = next(iter(node.children.values()))
            nodes.append(node)
        return nodes

    def guessed(self, node: Node) -> tuple[Guess, ...] | None:
        """Return what the drafter said comes after a node, None if it was not asked for several guesses there."""
        return self._guessed.get(node)

    def is_end(self, node: Node) -> bool:
        """Nothing comes after a node."""
        is_stop = node is not self.root and node.token in self._stops
        return is_stop or self._guessed.get(node) == ()

    def hang(self, tokens: Iterable[TokenId]) -> None:
        """Add a path below the committed text; what is there already merges."""
        node = self.root
        for token in tokens:
            node = node.grow(token)
            if self.is_end(node):
                break

    def grown(self, path: Sequence[TokenId], guesses: Iterable[Guess]) -> bool:
        """Note the guesses after a leaf, and add the first; return whether the leaf is still there."""
        node: Node | None = self.root
        for token in path:
            node = node.children.get(token) if node is not None else None
        if node is None:
            return False
        by_token: dict[TokenId, Guess] = {}
        for guess in guesses:
            by_token.setdefault(guess.token, guess)
        found = self._guessed[node] = tuple(by_token.values())
        if found and not self.is_end(node):
            node.grow(found[0].token)
        return True

    def commit(self, token: TokenId) -> int:
        """The text goes on with `token`; return how many nodes are contradicted that were not sent."""
        before, num_sent = self.root, self.num_sent
        is_on_chain = next(iter(before.children), None) == token
        self.root, dropped = before.advance(token)
        for node in (before, *dropped):
            self._guessed.pop(node, None)
        self.num_sent = max(0, num_sent - 1) if is_on_chain else 0
        return len(dropped) - (0 if is_on_chain else num_sent)
