"""What a session has to verify now."""

from dataclasses import dataclass

from paceline.session.ranks import RankRates, likeliest
from paceline.session.tree import Node
from paceline.tokens import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Live nodes below the committed text, a parent before its children, ready to be rows of a forward."""

    tokens: tuple[TokenId, ...]
    parents: tuple[int, ...]
    """Index into `tokens`, or -1 for the committed end."""
    chances: tuple[float, ...]
    """Of each node, that it is committed if it is verified now; never rising."""


NOTHING = Offer(tokens=(), parents=(), chances=())


def offered(root: Node, rates: RankRates, *, most: int, deepest: int) -> Offer:
    """Return the likeliest nodes below `root`, at most `most`, none more than `deepest` tokens deep."""
    if not root.children or most < 1 or deepest < 1:
        return NOTHING
    index: dict[int, int] = {id(root): -1}
    tokens: list[TokenId] = []
    parents: list[int] = []
    chances: list[float] = []
    for node, depth, chance in likeliest(root, rates):
        if len(tokens) >= most:
            break
        if depth <= deepest:
            assert node.parent is not None
            index[id(node)] = len(tokens)
            parents.append(index[id(node.parent)])
            tokens.append(node.token)
            chances.append(chance)
    return Offer(tokens=tuple(tokens), parents=tuple(parents), chances=tuple(chances))
