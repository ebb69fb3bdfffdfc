"""Walk the offered trees along the target's draws: what the target drew is the text, a draft counts iff it is equal.

Pure. All sessions of a step walk together, one depth at a time, so that drawing, which is the expensive part, is one
call per depth with all sessions that still go on. A row whose draft was not reached is never drawn, so noise is
computed once per position reached and never per row.

    offered: root -> a -> b, root -> c
    drawn:   at root: a, which is a child: accepted; at a: d, which is not: recovered, the walk ends
    result:  tokens (a, d); rows drawn at (root, a)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from paceline.errors import ModelError
from paceline.tokens import TokenId

ROOT = -1
"""The row of the last committed token, as an index among offered rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The offered rows of one session, a parent before its children; its root is there in any case."""

    tokens: tuple[TokenId, ...] = ()
    parents: tuple[int, ...] = ()
    """Index into `tokens`, or ROOT. Siblings differ in their token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """Asks for the draw at one row."""

    tree: int
    """Index of the tree."""
    row: int
    """Index of the row in its tree, or ROOT."""
    path: tuple[TokenId, ...]
    """Draft tokens from below the root down to this row; its length is the depth."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What the target drew in one session."""

    tokens: tuple[TokenId, ...]
    """At least one. All but the last are accepted drafts; the last has no row yet and is the next root."""
    rows: tuple[int, ...]
    """Row that each token was drawn at: ROOT, then the accepted rows."""


NO_DRAFTS = Tree()
"""The root alone."""

Draw = Callable[[Sequence[Ask]], Sequence[TokenId | ModelError]]
"""Returns the target's draw at every row asked for, or that row's error in its place."""


def walk(trees: Sequence[Tree], draw: Draw) -> list[Walk | ModelError]:
    """Return the walk of every tree, or the error at which it stopped."""
    children = [
        {(parent, token): row for row, (parent, token) in enumerate(pairs)}
        for pairs in (zip(tree.parents, tree.tokens, strict=True) for tree in trees)
    ]
    tokens: list[list[TokenId]] = [[] for _ in trees]
    rows: list[list[int]] = [[] for _ in trees]
    errors: dict[int, ModelError] = {}
    going = [Ask(tree=index, row=ROOT, path=()) for index in range(len(trees))]
    while going:
        following: list[Ask] = []
        for ask, token in zip(going, draw(going), strict=True):
            if isinstance(token, ModelError):
                errors[ask.tree] = token
                continue
            tokens[ask.tree].append(token)
            rows[ask.tree].append(ask.row)
            child = children[ask.tree].get((ask.row, token))
            if child is not None:
                following.append(Ask(tree=ask.tree, row=child, path=(*ask.path, token)))
        going = following
    return [
        errors.get(index) or Walk(tokens=tuple(tokens[index]), rows=tuple(rows[index]))
        for index in range(len(trees))
    ]
