"""The tree of guesses that hangs off the committed text: a trie, so equal siblings are one node by construction."""

from collections.abc import Iterator

from paceline.tokens import TokenId


class Node:
    """One drafted token.

    A name is the number a node has within one stream. On the cloud a node may have several names (the edge sent it
    twice) or none (its stream is gone, or nobody but the cloud drafted it). On the edge it has at most one.
    """

    __slots__ = ("children", "names", "parent", "token")

    def __init__(self, token: TokenId, parent: "Node | None") -> None:
        self.token = token
        self.parent = parent
        self.children: dict[TokenId, Node] = {}
        self.names: list[int] = []

    def grow(self, token: TokenId) -> "Node":
        """Return the child with this token, made if there is none: equal siblings merge."""
        child = self.children.get(token)
        if child is None:
            child = Node(token, self)
            self.children[token] = child
        return child

    def below(self) -> Iterator["Node"]:
        """All nodes under this one, a parent always before its children, older siblings first."""
        level = list(self.children.values())
        while level:
            yield from level
            level = [child for node in level for child in node.children.values()]

    def advance(self, token: TokenId) -> tuple["Node", list["Node"]]:
        """Commit `token` below this root: return the new root and the nodes that are now contradicted.

        The new root is the child that guessed right, with everything that hangs from it, or an empty one.
        """
        survivor = self.children.pop(token, None)
        dropped = list(self.below())
        if survivor is None:
            return Node(token, None), dropped
        survivor.parent = None
        return survivor, dropped


def root_after(text: tuple[TokenId, ...] | list[TokenId]) -> Node:
    """Return an empty tree that hangs off the end of `text`, which is not empty."""
    return Node(text[-1], None)
