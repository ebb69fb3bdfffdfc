"""A draft that is itself drafted for: a small drafter guesses what a larger one will guess, all at the edge.

The larger drafter's model looks at the small one's guesses in one pass and keeps them as far as it would have drawn
the same, with the same noise. So it guesses exactly what it would guess alone, in fewer passes.

Source: Globerson et al., "Fast Inference via Hierarchical Speculative Decoding", arXiv 2510.19705.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.drafters.model import ModelDraft, ModelDrafter
from paceline.drafter import Draft, Drafter, Guess, tokens_of
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

MOST_AT_ONCE = 8
"""Most guesses of the small drafter that the model looks at in one pass."""


class HierarchyDrafter:
    """Guesses with a model, in fewer passes.

    Args:
        small: guesses for the model.
        large: the model.
    """

    def __init__(self, small: Drafter, large: ModelDrafter) -> None:
        self._small = small
        self._large = large

    @property
    def name(self) -> str:
        """Both names, the smaller first."""
        return f"hierarchy:{self._small.name}+{self._large.name}"

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> HierarchyDraft:
        """See `Drafter`."""
        small = self._small.open(
            prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )
        large = self._large.open(
            prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )
        return HierarchyDraft(small, large)


class HierarchyDraft:
    """One generation. Made by `HierarchyDrafter.open`."""

    def __init__(self, small: Draft, large: ModelDraft) -> None:
        self._small = small
        self._large = large
        self._ahead: list[Guess] = []
        """What the model would guess after `_seen`, beyond what was asked for."""
        self._seen: tuple[TokenId, ...] = ()
        self.num_passes = 0
        """Of the model, for who measures it; a prompt does not count."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`."""
        return self._large.prepare(text) or self._small.prepare(text)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`: what the model guesses, and its chances."""
        guesses = self._remembered(text)
        while len(guesses) < limit:
            found = self._one_pass([*text, *tokens_of(guesses)], num_guessed + len(guesses))
            if not found:
                break
            guesses.extend(found)
        self._seen, self._ahead = tuple(text), guesses
        return tuple(guesses[:limit])

    def close(self) -> None:
        """Free both drafts."""
        self._small.close()
        self._large.close()

    def _remembered(self, text: Sequence[TokenId]) -> list[Guess]:
        """Return what the last passes say about this text."""
        length = len(self._seen)
        taken = len(text) - length
        if not 0 <= taken <= len(self._ahead) or tuple(text[:length]) != self._seen:
            return []
        if tokens_of(self._ahead[:taken]) != tuple(text[length:]):
            return []
        return self._ahead[taken:]

    def _one_pass(self, text: list[TokenId], num_guessed: int) -> list[Guess]:
        """Return the model's next guesses: at least one, if it has any."""
        room = self._large.room(text)
        if room < 1:
            return []
        offered: tuple[TokenId, ...] = ()
        if room > 1:
            offered = self._small.extend(text, min(MOST_AT_ONCE, room - 1), num_guessed=num_guessed)
        path = [*text, *offered]
        if not self._large.can_draft(path):
            path, offered = text, ()
        self.num_passes += 1
        guesses: list[Guess] = []
        for index, logits in enumerate(self._large.last_logits(path, 1 + len(offered))):
            guess = self._large.drawn(logits, path[: len(text) + index])
            guesses.append(guess)
            if index == len(offered) or offered[index] != guess.token:
                break
        return guesses
