"""The edge's guesses: the tree, which of it was sent under which number, and where it may grow."""

from collections.abc import Iterable, Sequence
from math import inf

from paceline.drafter import Guess
from paceline.errors import LocalProtocolError
from paceline.session.growth import Frontier, Growth, GrowthRequest, depth_of, path_to
from paceline.session.outbox import Outbox
from paceline.session.tree import Node, root_after
from paceline.tokens import Position, TokenId


class Guesses:
    """What hangs off the committed text.

    Args:
        log: the committed text.
        stops: no guess comes after one of these tokens: the text would end there.
        growth: how a tree grows; None for a chain.
    """

    def __init__(
        self, log: list[TokenId], *, stops: frozenset[TokenId], growth: Growth | None
    ) -> None:
        self.growth = growth
        self.now_s = 0.0
        """The time of what happens now, by the edge's clock; 0 where nobody keeps it."""
        self._stops = stops
        self._root = root_after(log)
        self._outbox = Outbox()
        self._frontier = Frontier(self._root) if growth is not None else None
        self._is_growing = True

    @property
    def used(self) -> int:
        """Names in flight."""
        return self._outbox.used

    @property
    def num_live(self) -> int:
        """Nodes below the committed text, sent or waiting to be."""
        held = self._frontier.num_held if self._frontier is not None else 0
        return self._outbox.num_live + held

    @property
    def num_waiting(self) -> int:
        """Nodes to be sent now: none while there is time to send them together with others."""
        return 0 if self._may_wait else self._outbox.num_waiting

    @property
    def has_any(self) -> bool:
        """Something hangs off the committed text."""
        return bool(self._root.children)

    @property
    def is_closed(self) -> bool:
        """Nothing hangs off the committed text, and nothing will before the next commit."""
        return self._frontier is not None and not self._is_growing and self._outbox.num_live == 0

    @property
    def _may_wait(self) -> bool:
        """More is being drafted, and all that waits will be in time with the next of it."""
        if self._frontier is None or self.growth is None or not self._is_growing:
            return False
        pace = self.growth.pace
        if pace is None:
            return False
        untils_s = (self._frontier.until_s(node, pace) for node in self._outbox.waiting)
        # What is late already is there for what hangs below it, and goes with that.
        in_time_s = [until_s for until_s in untils_s if until_s >= self.now_s]
        next_s = self.now_s + pace.margin_s
        return bool(in_time_s) and all(next_s < until_s < inf for until_s in in_time_s)

    def steer(self, growth: Growth | None) -> None:
        """Grow like this from now on; None: as before. A chain stays one."""
        if growth is not None and self.growth is not None:
            self.growth = growth

    def newest_path(self) -> tuple[TokenId, ...]:
        """Return the guesses down to the newest one."""
        path: list[TokenId] = []
        node = self._root
        while node.children:
            node = next(reversed(node.children.values()))
            path.append(node.token)
        return tuple(path)

    def request(self, *, position: Position, deepest: int) -> GrowthRequest | None:
        """Return from which leaves to go on, None if there are none.

        Args:
            position: length of the committed text.
            deepest: no guess is wanted further below it.
        """
        if self._frontier is None or self.growth is None:
            return None
        nodes = self._frontier.best(
            self.growth, deepest=deepest, stops=self._stops, now_s=self.now_s
        )
        paths = tuple(path_to(node) for node in nodes)
        self._is_growing = bool(paths)
        if not paths:
            return None
        return GrowthRequest(position=position, paths=paths, width=self.growth.width)

    def look(self, *, deepest: int) -> None:
        """Note whether more is drafted; as `request`, without choosing."""
        assert self._frontier is not None, "of a tree"
        self._is_growing = self._frontier.has_any(deepest=deepest, stops=self._stops)

    def pause(self) -> None:
        """Nothing more is drafted before the next commit: what there is must not wait for it."""
        self._is_growing = False

    def hang(self, tokens: Iterable[TokenId]) -> None:
        """Add a chain below the committed text; what is there already merges."""
        node = self._root
        for token in tokens:
            is_new = token not in node.children
            node = node.grow(token)
            if is_new:
                for one in (node,) if self._frontier is None else self._frontier.released(node):
                    self._outbox.add(one)
            if token in self._stops:
                break

    def grow(self, path: Sequence[TokenId], guesses: Iterable[Guess]) -> bool:
        """Note the guesses after a leaf; return whether it is still there."""
        node: Node | None = self._root
        for token in path:
            node = node.children.get(token) if node is not None else None
        if node is None or self._frontier is None or self.growth is None:
            return False
        return self._frontier.grown(node, guesses, most=self._most_after(node, self.growth.fan))

    def promote(self, most: int) -> None:
        """Take the likeliest guesses that wait into the tree, at most `most`, as far as they are likely enough."""
        assert self._frontier is not None, "of a tree"
        assert self.growth is not None, "of a tree"
        for node in self._frontier.promoted(most, self.growth, now_s=self.now_s):
            self._outbox.add(node)

    def commit(self, token: TokenId) -> int:
        """The text goes on with `token`; return how many guesses were contradicted before they were sent."""
        self._root, dropped = self._root.advance(token)
        if self._frontier is not None:
            self._frontier.advance(self._root, dropped, now_s=self.now_s)
        self._is_growing = True
        # Every message from here on acknowledges this, so its name is free as well.
        self._outbox.settle(self._root)
        return sum(1 for node in dropped if not self._outbox.settle(node))

    def restart(self) -> None:
        """Everything is to be sent again, on another stream."""
        held = self._frontier.is_held if self._frontier is not None else None
        self._outbox.restart(self._root, without=held)
        if self._frontier is not None:
            self._frontier.restart(now_s=self.now_s)

    def take(self, most: int) -> tuple[tuple[TokenId, ...], tuple[int, ...]]:
        """Number at most `most` guesses that were not sent; return the tokens and parents of their proposal."""
        return self._outbox.take(most, self._root)

    def _most_after(self, node: Node, fan: Sequence[int]) -> int | None:
        """Return how many guesses are wanted after a node; None: all there are."""
        if not fan:
            return None
        end = node
        while end.parent is not None:
            if next(iter(end.parent.children.values())) is not end:
                return 1
            end = end.parent
        return fan[min(depth_of(node), len(fan) - 1)]


def after_commits(
    log: Sequence[TokenId], position: Position, tokens: tuple[TokenId, ...]
) -> tuple[TokenId, ...] | None:
    """Return what is still a guess of `tokens` from `position` on, or None if the text went on otherwise.

    Raises:
        LocalProtocolError: they begin beyond the text.
    """
    if position > len(log):
        raise LocalProtocolError(
            f"drafted.position: got {position}, the committed text has {len(log)}"
        )
    skip = len(log) - position
    committed = tuple(log[position : position + len(tokens)])
    return tokens[skip:] if committed == tokens[:skip] else None
