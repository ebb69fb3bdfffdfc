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
        most = min(len(end), LONGEST)
        for place in reversed(self._places.get(tuple(end[-KEY:]), ())):
            size = KEY
            while size < most and self._holds(place - size - 1, end[-size - 1]):
                size += 1
            yield size, self._at(place)

    def _pair(self, place: int) -> tuple[TokenId, ...]:
        """Return the KEY tokens from a place on."""
        return self._at(place), self._at(place + 1)

    def _at(self, place: int) -> TokenId:
        return self._ring[place % self._most]

    def _holds(self, place: int, token: TokenId) -> bool:
        return place >= max(0, self._length - self._most) and self._at(place) == token

    def _forget(self, place: int) -> None:
        """Drop what followed the pair that begins at a place, whose first token is about to be overwritten."""
        pair = self._pair(place)
        places = self._places.get(pair)
        if places and places[0] == place + KEY:
            del places[0]
            if not places:
                del self._places[pair]
