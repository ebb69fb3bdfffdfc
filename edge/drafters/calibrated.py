"""Chances that hold: a drafter's confidence, corrected by what became of its guesses.

A draft is told the whole text each time, so it sees by itself what was committed where it had guessed: no more is needed
to learn. A guess counts as judged once the text before it is committed just as it was when it was made.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.drafters.prefix import common_length
from paceline.control.node_scores import NodeScores
from paceline.drafter import Guess, ScoringDraft, ScoringDrafter, tokens_of
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId


class CalibratedDrafter:
    """Another drafter's guesses with chances that hold. What is learned serves all its drafts.

    Args:
        drafter: whose guesses.
    """

    def __init__(self, drafter: ScoringDrafter) -> None:
        self._drafter = drafter
        # Draws have noise that a margin of logits does not know of.
        self._scores = {is_greedy: NodeScores() for is_greedy in (True, False)}

    @property
    def name(self) -> str:
        """The drafter's own."""
        return self._drafter.name

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> CalibratedDraft:
        """See `Drafter`."""
        draft = self._drafter.open(
            prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )
        return CalibratedDraft(draft, scores=self._scores[sampling.is_greedy])


class CalibratedDraft:
    """One generation. Made by `CalibratedDrafter.open`.

    Args:
        draft: whose guesses.
        scores: what is known of them; learns here.
    """

    def __init__(self, draft: ScoringDraft, *, scores: NodeScores) -> None:
        self._draft = draft
        self._scores = scores
        self._seen: list[TokenId] = []
        """The text of the last call and its guesses."""
        self._open: dict[int, Guess] = {}
        """Guesses that are not judged, by position, with the draft's own confidence."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`."""
        return self._draft.prepare(text)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`."""
        self.judge(text, num_guessed=num_guessed)
        guesses = self._draft.guess(text, limit, num_guessed=num_guessed)
        for position, guess in enumerate(guesses, start=len(text)):
            self._open[position] = guess
        self._seen = [*text, *tokens_of(guesses)]
        return tuple(
            Guess(token=guess.token, chance=self._scores.chance(guess.chance)) for guess in guesses
        )

    def judge(self, text: Sequence[TokenId], *, num_guessed: int) -> None:
        """Learn from the guesses that the committed part of a text decides."""
        common = common_length(self._seen, text)
        num_committed = len(text) - num_guessed
        for position, guess in sorted(self._open.items()):
            if position > common:
                del self._open[position]  # it was made after another text
            elif position < num_committed:
                del self._open[position]
                self._scores.observe(guess.chance, accepted=guess.token == text[position])
        self._seen = list(text)

    def close(self) -> None:
        """Free the draft; what was learned stays."""
        self._draft.close()
