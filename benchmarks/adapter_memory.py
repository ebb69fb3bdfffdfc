"""N-gram with its memory of earlier answers, in front of guesses that were made before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.drafters.combination import CombinedDrafter
from edge.drafters.suffix import SuffixDrafter
from paceline.drafter import Guess, tokens_of
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

GREEDY = SamplingSettings(temperature=0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What the target wrote."""

    prompt: tuple[TokenId, ...]
    output: tuple[TokenId, ...]


class Replayed:
    """A drafter that guesses what was guessed before, one position at a time."""

    name = "replayed"

    def __init__(self) -> None:
        self.guesses: Sequence[Guess] = ()
        self._start = 0

    def open(self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings) -> Replayed:
        """See `Drafter`."""
        del max_tokens, sampling
        self._start = prompt_length
        return self

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`."""
        del text
        return False

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`."""
        del limit, num_guessed
        return (self.guesses[len(text) - self._start],)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def close(self) -> None:
        """See `Draft`."""


class WithMemory:
    """Guesses of n-gram with its memory first, others where that is not sure enough."""

    def __init__(self) -> None:
        self._replayed = Replayed()
        self._drafter = CombinedDrafter([SuffixDrafter(), self._replayed])

    def hits(self, answer: Answer, guesses: Sequence[Guess]) -> list[bool]:
        """Whether its guess at each position is the target's token."""
        self._replayed.guesses = guesses
        draft = self._drafter.open(
            prompt_length=len(answer.prompt), max_tokens=len(answer.output), sampling=GREEDY
        )
        text, hits = list(answer.prompt), []
        for token in answer.output:
            found = draft.guess(text, 1)
            hits.append(bool(found) and found[0].token == token)
            text.append(token)
        draft.close()
        return hits
