"""The pipeline that holds nothing back: what is likely enough is sent as it is drafted, a tree or a chain."""

from collections.abc import Iterable, Sequence

from paceline.drafter import Guess
from paceline.session.drafting import DraftRequest
from paceline.session.growth import GrowthRequest
from paceline.session.guesses import Guesses
from paceline.session.pipeline import Place
from paceline.tokens import TokenId


class TreeStream:
    """A `Pipeline`.

    Args:
        guesses: the session's.
        stops: nothing is drafted after these.
    """

    def __init__(self, guesses: Guesses, *, stops: frozenset[TokenId]) -> None:
        self._guesses = guesses
        self._stops = stops

    @property
    def has_growth(self) -> bool:
        """See `Pipeline`."""
        return self._guesses.growth is not None

    @property
    def is_closed(self) -> bool:
        """See `Pipeline`."""
        return self._guesses.is_closed

    def draft_request(self, place: Place) -> DraftRequest | None:
        """See `Pipeline`."""
        if place.no_guess or min(place.space, place.depth) < 1:
            return None
        path = self._guesses.newest_path()
        limit = min(place.depth - len(path), place.space)
        if limit < 1 or (path and path[-1] in self._stops):
            return None
        return DraftRequest(position=place.position, path=path, limit=limit)

    def growth_request(self, place: Place) -> GrowthRequest | None:
        """See `Pipeline`."""
        if place.no_guess or place.space < 1:
            self._guesses.pause()
            return None
        return self._guesses.request(position=place.position, deepest=place.depth)

    def drafted(self, tokens: Sequence[TokenId]) -> None:
        """See `Pipeline`."""
        self._guesses.hang(tokens)

    def grown(self, path: Sequence[TokenId], guesses: Iterable[Guess]) -> bool:
        """See `Pipeline`."""
        return self._guesses.grow(path, guesses)

    def committed(self, token: TokenId) -> int:
        """See `Pipeline`: all is in the session's tree."""
        del token
        return 0

    def release(self, place: Place) -> None:
        """See `Pipeline`."""
        if not self.has_growth:
            return  # a chain is in the tree as soon as it is drafted
        num_live = self._guesses.num_live
        self._guesses.promote(place.space)
        # Whether more will come decides whether what there is may wait for it.
        if place.no_guess or place.space <= self._guesses.num_live - num_live:
            self._guesses.pause()
        else:
            self._guesses.look(deepest=place.depth)
