"""Text that was seen, and what followed wherever it went on like another text ends. Bounded, oldest forgotten first."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from paceline.tokens import TokenId

KEY = 2
"""Fewest tokens that must match: after a single common one the guess is wrong more often than it is worth a row."""

LONGEST = 16
"""Most tokens compared."""

OCCURRENCES = 32
"""Most places compared, the latest ones."""

BREAK = TokenId(-1)
"""Stands between texts: equal to no token, so that no match runs over it."""


class History:
    """A ring of tokens with an index of all pairs.

    Args:
        most_tokens: how many are kept.
    """

    def __init__(self, most_tokens: int) -> None:
        self._most = most_tokens
        self._ring: list[TokenId] = []
        self._length = 0
        self._places: dict[tuple[TokenId, ...], list[int]] = {}
        """Where some pair ended: places of what followed it, ascending."""

    def __len__(self) -> int:
        """Tokens that are kept."""
        return len(self._ring)

    def append(self, token: TokenId) -> None:
        """Take the next token of the text; a BREAK ends a text."""
        place = self._length
        if place >= KEY:
            pair = self._pair(place - KEY)
            if token != BREAK and BREAK not in pair:
                places = self._places.setdefault(pair, [])
                places.append(place)
                del places[:-OCCURRENCES]
        if len(self._ring) < self._most:
            self._ring.append(token)
        else:
            self._forget(place - self._most)
            self._ring[place % self._most] = token
        self._length = place + 1

    def matches(self, end: Sequence[TokenId]) -> Iterator[tuple[int, TokenId]]:
        """Give for each place that is like the end of a text how many tokens match, at least KEY, and what followed.

        Args:
            end: the last tokens of the text; at most LONGEST are looked at. The latest places come first.
        """
        if len(end) < KEY:
            return
        like = list(end[-LONGEST:])
        oldest = max(0, self._length - self._most)
        for place in reversed(self._places.get(tuple(like[-KEY:]), ())):
            before = self._before(place, min(len(like), place - oldest))
            yield _num_equal(before, like), self._at(place)

    def _before(self, place: int, count: int) -> list[TokenId]:
        """Return the tokens before a place."""
        begin = (place - count) % self._most
        piece = self._ring[begin : begin + count]
        return piece if len(piece) == count else piece + self._ring[: count - len(piece)]

    def _pair(self, place: int) -> tuple[TokenId, ...]:
        """Return the KEY tokens from a place on."""
        return self._at(place), self._at(place + 1)

    def _at(self, place: int) -> TokenId:
        return self._ring[place % self._most]

    def _forget(self, place: int) -> None:
        """Drop what followed the pair that begins at a place, whose first token is about to be overwritten."""
        pair = self._pair(place)
        places = self._places.get(pair)
        if places and places[0] == place + KEY:
            del places[0]
            if not places:
                del self._places[pair]


def _num_equal(before: list[TokenId], like: list[TokenId]) -> int:
    """Return at how many tokens from their ends on two lists are equal, KEY of which are.

    A text that goes round and round is equal as far as anybody looks, at every place: that is found out at once.
    """
    if before == like:
        return len(like)
    most, size = len(before), KEY
    while size < most and before[-size - 1] == like[-size - 1]:
        size += 1
    return size
