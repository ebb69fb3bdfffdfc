"""Prefixes computed once and seen by many sequences: a tree of segments.

A segment holds the keys and values of a run of tokens. It hangs off a place inside another segment (`parent`,
`offset`) or off the root of its namespace, and is never split: whoever needs only its beginning uses only that.
Tokens below one place differ in their first token, and from the token with which the segment itself goes on there,
so that a text has one path.

Segments are in the tree before they are filled, so that sequences which open at the same time compute a common
prefix once. `writer` fills; users that need more than is filled wait for it. A writer that leaves hands over to a
user that waits, and the segment is cut to what is filled if none does. Therefore:

- a segment that somebody waits for has a writer, which itself needs more of it;
- whatever hangs off the unfilled part of a segment belongs to users that wait.

Only the model thread may touch any of this.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from torch import Tensor

from paceline.tokens import TokenId

if TYPE_CHECKING:
    from paceline.engine.sequence import CacheSequence


@dataclass(slots=True, kw_only=True, eq=False)
class Segment:
    """Keys and values of a run of tokens."""

    tokens: list[TokenId]
    storage: Tensor
    """[layers, 2, kv heads, rows, head dim]; at least len(tokens) rows."""
    num_bytes: int
    """Memory that goes when this segment goes; 0 while `owner` accounts for it."""
    parent: Segment | None
    offset: int
    """Tokens of the parent that come before this segment."""
    filled: int = 0
    """Leading tokens whose rows are computed."""
    writer: CacheSequence | None = None
    owner: CacheSequence | None = None
    """The open sequence in whose buffer the storage lies."""
    users: dict[CacheSequence, int] = field(default_factory=dict)
    """Open sequences other than the owner, and how many leading tokens each uses."""
    children: dict[tuple[int, TokenId], Segment] = field(default_factory=dict)
    last_used: int = 0

    @property
    def is_evictable(self) -> bool:
        """Nobody uses it and nothing hangs off it."""
        return self.owner is None and not self.users and not self.children

    @property
    def waiting(self) -> list[CacheSequence]:
        """Users that need more than is filled, in order of their opening."""
        return [user for user, used in self.users.items() if used > self.filled]

    @property
    def needed(self) -> int:
        """Leading tokens that are filled or that somebody waits for."""
        return max(self.filled, max(self.users.values(), default=0))


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The longest path that a text has in the tree."""

    path: tuple[tuple[Segment, int], ...]
    """Segments from the root down and how many leading tokens of each agree."""

    @property
    def length(self) -> int:
        """Tokens of the text that are in the tree."""
        return sum(used for _, used in self.path)

    @property
    def is_filled(self) -> bool:
        """All of them are computed already."""
        return all(segment.filled >= used for segment, used in self.path)


class PrefixTree:
    """Finds, adds and drops segments; does not count memory."""

    def __init__(self) -> None:
        self._roots: dict[tuple[str, TokenId], Segment] = {}
        self._namespaces: dict[Segment, str] = {}
        self._tick = 0

    def __iter__(self) -> Iterator[Segment]:
        return iter(self._namespaces)

    def __len__(self) -> int:
        return len(self._namespaces)

    def match(self, namespace: str, tokens: Sequence[TokenId]) -> Match:
        """The longest path of `tokens`, filled or not; marks it as used just now."""
        self._tick += 1
        path: list[tuple[Segment, int]] = []
        done = 0
        segment = self._roots.get((namespace, tokens[0])) if tokens else None
        while segment is not None:
            used = _common_prefix(segment.tokens, tokens[done : done + len(segment.tokens)])
            segment.last_used = self._tick
            path.append((segment, used))
            done += used
            segment = segment.children.get((used, tokens[done])) if done < len(tokens) else None
        return Match(path=tuple(path))

    def add(self, namespace: str, below: Match, segment: Segment) -> None:
        """Hang a segment off the end of a match."""
        key = segment.tokens[0]
        if below.path:
            parent, offset = below.path[-1]
            assert (segment.parent, segment.offset) == (parent, offset)
            assert (offset, key) not in parent.children
            assert offset == len(parent.tokens) or parent.tokens[offset] != key
            parent.children[offset, key] = segment
        else:
            assert (namespace, key) not in self._roots
            self._roots[namespace, key] = segment
        self._tick += 1
        segment.last_used = self._tick
        self._namespaces[segment] = namespace

    def remove(self, segment: Segment) -> None:
        """Take a segment without children out of the tree."""
        assert not segment.children
        namespace = self._namespaces.pop(segment)
        if segment.parent is None:
            del self._roots[namespace, segment.tokens[0]]
        else:
            del segment.parent.children[segment.offset, segment.tokens[0]]

    def oldest_evictable(self) -> Segment | None:
        """The leaf that went unused for longest."""
        leaves = [segment for segment in self._namespaces if segment.is_evictable]
        return min(leaves, key=lambda segment: segment.last_used, default=None)


def _common_prefix(left: Sequence[TokenId], right: Sequence[TokenId]) -> int:
    """How many leading tokens agree."""
    if len(left) == len(right) and list(left) == list(right):
        return len(left)
    for index, (one, other) in enumerate(zip(left, right, strict=False)):
        if one != other:
            return index
    return min(len(left), len(right))
