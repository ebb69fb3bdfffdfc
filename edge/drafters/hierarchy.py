"""A draft that is itself drafted for: cheap drafters guess what a larger one will guess, all at the edge.

The larger drafter's model looks at their guesses in one pass and keeps them as far as it would have drawn the same, with
the same noise. So it guesses exactly what it would guess alone, in fewer passes. Who drafts for whom, and how many tokens
ahead, follows from what passes take and how often guesses are right (`chain_learning`, `length_recursion`): that
changes from pass to pass, and never changes a guess.

Source: Globerson et al., "Fast Inference via Hierarchical Speculative Decoding", arXiv 2510.19705.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.drafters.chain_learning import ChainBook
from edge.drafters.model import ModelDraft, ModelDrafter
from paceline.clock import Clock, MonotonicClock
from paceline.drafter import Draft, Drafter, Guess, tokens_of
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId


class HierarchyDrafter:
    """Guesses with a model, in fewer passes. What is learned serves all its drafts.

    Args:
        helpers: who may guess for the model and, if they are models themselves, for each other; cheapest first.
        large: the model.
        clock: by which passes are timed.
    """

    def __init__(
        self, helpers: Sequence[Drafter], large: ModelDrafter, *, clock: Clock | None = None
    ) -> None:
        self._drafters: tuple[Drafter, ...] = (*helpers, large)
        self._clock = clock or MonotonicClock()
        looks = tuple(isinstance(drafter, ModelDrafter) for drafter in self._drafters)
        # A draw has noise that a guess of the likeliest token does not meet.
        self._books = {is_greedy: ChainBook(looks) for is_greedy in (True, False)}

    @property
    def name(self) -> str:
        """All names, the cheapest first."""
        return "hierarchy:" + "+".join(drafter.name for drafter in self._drafters)

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> HierarchyDraft:
        """See `Drafter`."""
        drafts = [
            drafter.open(prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling)
            for drafter in self._drafters
        ]
        return HierarchyDraft(drafts, book=self._books[sampling.is_greedy], clock=self._clock)


class HierarchyDraft:
    """One generation. Made by `HierarchyDrafter.open`."""

    def __init__(self, drafts: Sequence[Draft], *, book: ChainBook, clock: Clock) -> None:
        self._drafts = drafts
        self._has_begun = False
        stages: list[_Helper | _Looking] = []
        for index, draft in enumerate(drafts):
            if isinstance(draft, ModelDraft):
                stages.append(_Looking(draft, index, below=tuple(stages), book=book, clock=clock))
            else:
                stages.append(_Helper(draft, index, book=book, clock=clock))
        last = stages[-1]
        assert isinstance(last, _Looking)
        self._last = last

    @property
    def num_passes(self) -> int:
        """Of the model, for who measures it; a prompt does not count."""
        return self._last.num_passes

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: the prompt is for all; later on a drafter works when it is asked."""
        drafts = self._drafts[-1:] if self._has_begun else self._drafts
        return any(draft.prepare(text) for draft in drafts)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`: what the model guesses, and its chances."""
        self._has_begun = True
        return self._last.guess(text, limit, num_guessed=num_guessed)

    def close(self) -> None:
        """Free all drafts."""
        for draft in self._drafts:
            draft.close()


class _Helper:
    """A drafter that looks at nobody's tokens."""

    def __init__(self, draft: Draft, index: int, *, book: ChainBook, clock: Clock) -> None:
        self._draft = draft
        self._index = index
        self._book = book
        self._clock = clock

    def reads(self, text: list[TokenId]) -> bool:
        """Read a piece of what was committed while it was not asked; return whether some of that is left."""
        return self._draft.prepare(text)

    def offer(self, text: list[TokenId], limit: int, *, num_guessed: int) -> tuple[TokenId, ...]:
        """Return at most `limit` tokens after a text."""
        started_s = self._clock.now_s()
        found = self._draft.extend(text, limit, num_guessed=num_guessed)
        took_s = self._clock.now_s() - started_s
        self._book.saw_call(self._index, num_tokens=len(found), took_s=took_s)
        return found


class _Looking:
    """A model that looks at the tokens of one of those below it, as the book plans it."""

    def __init__(
        self,
        draft: ModelDraft,
        index: int,
        *,
        below: tuple[_Helper | _Looking, ...],
        book: ChainBook,
        clock: Clock,
    ) -> None:
        self._draft = draft
        self._index = index
        self._below = below
        self._book = book
        self._clock = clock
        self._ahead: list[Guess] = []
        """What the model would guess after `_seen`, beyond what was asked for."""
        self._seen: tuple[TokenId, ...] = ()
        self._waits = False
        """Some helper has not caught up in this call."""
        self.num_passes = 0

    def reads(self, text: list[TokenId]) -> bool:
        """See `_Helper`."""
        return self._draft.prepare(text)

    def offer(self, text: list[TokenId], limit: int, *, num_guessed: int) -> tuple[TokenId, ...]:
        """See `_Helper`."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(self, text: Sequence[TokenId], limit: int, *, num_guessed: int) -> tuple[Guess, ...]:
        """Return what the model guesses after a text."""
        guesses, self._waits = self._remembered(text), False
        while len(guesses) < limit:
            found = self._one_pass([*text, *tokens_of(guesses)], num_guessed + len(guesses))
            if not found:
                break
            guesses.extend(found)
        self._seen, self._ahead = tuple(text), guesses
        return tuple(guesses[:limit])

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
        room = self._draft.room(text)
        if room < 1:
            return []
        rung = self._book.plan(self._index) if room > 1 else None
        if rung is not None and (self._waits or self._below[rung.drafter].reads(text)):
            # A long way behind: it reads a piece with each call until it has caught up, and passes do without it. Reading
            # says nothing of what its guesses take.
            rung, self._waits = None, True
        offered: tuple[TokenId, ...] = ()
        if rung is not None:
            helper, length = self._below[rung.drafter], min(rung.length, room - 1)
            offered = helper.offer(text, length, num_guessed=num_guessed)
            if not self._draft.can_draft([*text, *offered]):
                offered = ()
        while self._draft.prepare(text):
            pass
        started_s = self._clock.now_s()
        guesses = self._looked_at(text, offered, num_guessed=num_guessed)
        took_s = self._clock.now_s() - started_s
        self.num_passes += 1
        if rung is not None:
            kept = sum(map(_same, guesses, offered))
            self._book.saw_offer(rung.drafter, self._index, offered=len(offered), kept=kept)
        self._book.saw_pass(self._index, looked_at=len(offered), took_s=took_s)
        return guesses

    def _looked_at(
        self, text: list[TokenId], offered: tuple[TokenId, ...], *, num_guessed: int
    ) -> list[Guess]:
        """Return what the model guesses where it agrees with what is offered, and one guess more."""
        if not offered:
            return list(self._draft.guess(text, 1, num_guessed=num_guessed))
        path = [*text, *offered]
        guesses: list[Guess] = []
        for index, logits in enumerate(self._draft.last_logits(path, 1 + len(offered))):
            guess = self._draft.drawn(logits, path[: len(text) + index])
            guesses.append(guess)
            if index == len(offered) or not _same(guess, offered[index]):
                break
        return guesses


def _same(guess: Guess, token: TokenId) -> bool:
    return guess.token == token
