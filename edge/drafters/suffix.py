"""Suffix n-gram: what followed where the text ended like this, counted over all such places, is guessed to follow again.

Longer matches say more than shorter ones, and many places more than one: `paceline.ngram.rules` says how much.
Besides its own text a draft looks into the answers given before, in a memory that all drafts of the drafter share.
Committed text is learned at once, guesses never. No weights.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.drafters.prefix import common_length
from paceline.drafter import Guess, tokens_of
from paceline.ngram.history import BREAK, KEY, LONGEST, History
from paceline.ngram.rules import counted
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

LEAST_REACH = 0.25
"""Least chance that a guess and all guesses before it hold: every wrong guess is a row of the target."""

MEMORY_TOKENS = 65_536
"""Tokens of answers that are remembered, for all drafts together: about 10 MB."""

LEARN_TOKENS = 4096
"""Tokens learned in one piece of a long text."""


class SuffixDrafter:
    """Guesses from the text itself and from the answers before it.

    Args:
        memory_tokens: how many tokens of answers it remembers; 0: none.
    """

    name = "suffix"

    def __init__(self, *, memory_tokens: int = MEMORY_TOKENS) -> None:
        self._memory = History(memory_tokens) if memory_tokens > 0 else None

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> SuffixDraft:
        """Return a new draft; how tokens are drawn makes no difference to it."""
        del sampling
        most_tokens = max(prompt_length + max_tokens, 1)
        return SuffixDraft(prompt_length, most_tokens=most_tokens, memory=self._memory)


class SuffixDraft:
    """What one text has taught. Made by `SuffixDrafter.open`."""

    def __init__(self, prompt_length: int, *, most_tokens: int, memory: History | None) -> None:
        self._prompt_length = prompt_length
        self._most_tokens = min(most_tokens, MEMORY_TOKENS)
        self._memory = memory
        self._history = History(self._most_tokens)
        self._learned: list[TokenId] = []
        self._guessed: dict[int, Guess] = {}
        """Own guesses by position, as far as they are not committed yet."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: learn a piece of the prompt."""
        prompt = text[: self._prompt_length]
        return self._learn(prompt) if len(self._learned) < len(prompt) else False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`: guesses as long as all of them together are likely enough."""
        committed = text[: len(text) - num_guessed]
        while self._learn(committed):
            pass
        reach = self._reach(text, since=len(committed))
        end = list(text[-LONGEST:])
        guesses: list[Guess] = []
        while len(guesses) < limit:
            best = self._best(end)
            reach *= best.chance if best is not None else 0.0
            if best is None or reach < LEAST_REACH:
                break
            self._guessed[len(text) + len(guesses)] = best
            guesses.append(best)
            end = [*end, best.token][-LONGEST:]
        return tuple(guesses)

    def close(self) -> None:
        """Leave the answer in the drafter's memory and forget the text."""
        if self._memory is not None and len(self._learned) > self._prompt_length:
            self._memory.append(BREAK)
            for token in self._learned[max(0, self._prompt_length - KEY) :]:
                self._memory.append(token)
        self._learned.clear()
        self._guessed.clear()
        self._history = History(self._most_tokens)

    def _learn(self, text: Sequence[TokenId]) -> bool:
        """Learn at most LEARN_TOKENS of a text; return whether some are left."""
        if common_length(self._learned, text) < len(self._learned):
            # Committed text does not change; if it does, this is another one.
            self._learned.clear()
            self._history = History(self._most_tokens)
        piece = text[len(self._learned) : len(self._learned) + LEARN_TOKENS]
        for token in piece:
            self._history.append(token)
        self._learned.extend(piece)
        return len(self._learned) < len(text)

    def _reach(self, text: Sequence[TokenId], *, since: int) -> float:
        """Return the chance that the guesses at the end of the text hold; others' guesses are taken as certain."""
        for position in [place for place in self._guessed if not since <= place < len(text)]:
            del self._guessed[position]
        reach = 1.0
        for position, guess in self._guessed.items():
            if guess.token == text[position]:
                reach *= guess.chance
        return reach

    def _best(self, end: Sequence[TokenId]) -> Guess | None:
        """Return the likeliest token after a text's end, or None if nothing matches."""
        found = list(self._history.matches(end))
        if self._memory is not None:
            found.extend(self._memory.matches(end))
        return counted(found)
