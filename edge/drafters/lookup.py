"""Prompt lookup: what followed the last time the text ended like this is guessed to follow again. Needs no weights.

An index knows, for the last few tokens before every place, where the same tokens stood before. Longest match first, the
most recent occurrence of it. Appending or taking back a token costs O(longest), whatever the length of the text.
Sources: Saxena, "Prompt Lookup Decoding" (2023); He et al., "REST", arXiv 2311.08252.
"""

from collections.abc import Sequence

from edge.drafters.prefix import common_length
from paceline.drafter import Guess, tokens_of
from paceline.ngram.rules import lookup_chance
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

LONGEST = 6
"""Most tokens compared. A longer match predicts better, but that the last ones match decides nearly all."""

SHORTEST = 2
"""Fewest tokens that must match: after a single common token the guess is wrong more often than it is worth a row."""

GUESSES_PER_MATCHED = 2
"""Most guesses for each committed token that matches: two common words in a row say little about the next eight, and
every wrong guess is a row of the target."""


class LookupDrafter:
    """Guesses from the text itself."""

    name = "lookup"

    def __init__(self, *, longest: int = LONGEST, shortest: int = SHORTEST) -> None:
        self._longest = longest
        self._shortest = shortest

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> "LookupDraft":
        """Return a new draft; what is generated and how makes no difference to it."""
        del prompt_length, max_tokens, sampling
        return LookupDraft(longest=self._longest, shortest=self._shortest)


class LookupDraft:
    """The index of one text."""

    def __init__(self, *, longest: int, shortest: int) -> None:
        self._sizes = range(longest, shortest - 1, -1)
        self._text: list[TokenId] = []
        self._ends: dict[tuple[TokenId, ...], int] = {}
        """Where the last occurrence of some tokens ends."""
        self._before: list[list[int | None]] = []
        """By place, longest first: where the occurrence before that one ends."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """Nothing here takes long."""
        del text
        return False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`: guesses until there is no match any more. Own guesses count as text, but not for trust."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`: the longer the match of committed tokens, the surer."""
        self._truncate(common_length(self._text, text))
        for token in text[len(self._text) :]:
            self._append(token)
        matched = self._matched(len(text) - num_guessed)
        guesses: list[Guess] = []
        for _ in range(min(limit, GUESSES_PER_MATCHED * matched - num_guessed)):
            end = self._match()
            if end is None:
                break
            size = min(matched, self._matched(len(self._text)))
            self._append(self._text[end])
            guesses.append(Guess(token=self._text[-1], chance=lookup_chance(size)))
        return tuple(guesses)

    def close(self) -> None:
        """Forget the text."""
        self._text.clear()
        self._ends.clear()
        self._before.clear()

    def _matched(self, length: int) -> int:
        """Return how many of the first `length` tokens' last ones stood somewhere before; 0 if too few did."""
        if length == 0:
            return 0
        before = zip(self._sizes, self._before[length - 1], strict=True)
        return next((size for size, end in before if end is not None), 0)

    def _match(self) -> int | None:
        """Return where an earlier occurrence of the text's end ends, or None."""
        if not self._before:
            return None
        return next((end for end in self._before[-1] if end is not None), None)

    def _append(self, token: TokenId) -> None:
        self._text.append(token)
        length = len(self._text)
        before: list[int | None] = []
        for size in self._sizes:
            if size > length:
                before.append(None)
                continue
            key = tuple(self._text[length - size :])
            before.append(self._ends.get(key))
            self._ends[key] = length
        self._before.append(before)

    def _truncate(self, length: int) -> None:
        while len(self._text) > length:
            end = len(self._text)
            for size, before in zip(self._sizes, self._before.pop(), strict=True):
                if size > end:
                    continue
                key = tuple(self._text[end - size :])
                if before is None:
                    del self._ends[key]
                else:
                    self._ends[key] = before
            self._text.pop()
