"""Several drafters as one: at each position the cheapest one that is sure enough guesses, the last one else.

A look into a table costs microseconds, a model milliseconds; but where the text repeats itself the table is right more
often than the model. So each drafter but the last is taken where its calibrated chance is at least `SHARE` of what the
ones after it have reached of late. Drafts find out by themselves what others have guessed, so a model computes keys and
values of a token it did not guess with the next one that it does, several at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

from edge.drafters.calibrated import CalibratedDraft, CalibratedDrafter
from paceline.drafter import Guess, ScoringDrafter, tokens_of
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

SHARE = 0.8
"""A cheap guess may be so much less likely than a dear one usually is: it leaves time for more."""

FOLLOWED = 0.05
"""How fast the usual chance follows the latest one."""


class CombinedDrafter:
    """Guesses with the first of several drafters that is sure enough.

    Args:
        drafters: cheapest first; at least two.
    """

    def __init__(self, drafters: Sequence[ScoringDrafter]) -> None:
        self._drafters = [CalibratedDrafter(drafter) for drafter in drafters]
        self._usual = [0.5] * len(drafters)
        """How likely the guesses of each were of late, from what was judged."""

    @property
    def name(self) -> str:
        """The names of all."""
        return "+".join(drafter.name for drafter in self._drafters)

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> CombinedDraft:
        """See `Drafter`."""
        drafts = [
            drafter.open(prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling)
            for drafter in self._drafters
        ]
        return CombinedDraft(drafts, usual=self._usual)


class CombinedDraft:
    """One generation. Made by `CombinedDrafter.open`."""

    def __init__(self, drafts: Sequence[CalibratedDraft], *, usual: list[float]) -> None:
        self._drafts = drafts
        self._usual = usual
        self._has_begun = False
        self.num_guesses = [0] * len(drafts)
        """How many guesses each has given, for who measures it."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: the prompt is for all of them; later on a drafter works when it is asked."""
        return not self._has_begun and any(draft.prepare(text) for draft in self._drafts)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`."""
        self._has_begun = True
        tokens, guesses = list(text), list[Guess]()
        while len(guesses) < limit:
            guess = self._guess_one(tokens, num_guessed + len(guesses))
            if guess is None:
                break
            tokens.append(guess.token)
            guesses.append(guess)
        return tuple(guesses)

    def close(self) -> None:
        """Free all drafts."""
        for draft in self._drafts:
            draft.close()

    def _guess_one(self, text: Sequence[TokenId], num_guessed: int) -> Guess | None:
        for index, draft in enumerate(self._drafts):
            found = draft.guess(text, 1, num_guessed=num_guessed)
            if not found:
                continue
            is_last = index == len(self._drafts) - 1
            if is_last or found[0].chance >= SHARE * max(self._usual[index + 1 :]):
                self._usual[index] += FOLLOWED * (found[0].chance - self._usual[index])
                self.num_guesses[index] += 1
                return found[0]
        return None
