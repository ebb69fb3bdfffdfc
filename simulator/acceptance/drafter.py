"""A drafter for simulations: knows the target's token, and says it where a real draft would have had it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.acceptance.replay import Acceptance

Oracle = Callable[[Sequence[TokenId]], TokenId]
"""The token that the simulated target draws after a text."""
Chooser = Callable[[SamplingSettings], Acceptance]
"""Makes the guesses of one generation, from its seed for example."""


class SimulatedDrafter:
    """A chain whose guesses are right where an `Acceptance` says so. See `paceline.drafter.Drafter`.

    Args:
        name: what it stands for.
        oracle: the simulated target.
        choose: whose guesses a generation gets.
        vocabulary_size: of the target, at least 2; a wrong guess is another token of it.
    """

    def __init__(self, name: str, *, oracle: Oracle, choose: Chooser, vocabulary_size: int) -> None:
        assert vocabulary_size >= 2, vocabulary_size
        self.name = name
        self._oracle = oracle
        self._choose = choose
        self._vocabulary_size = vocabulary_size

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> SimulatedDraft:
        """See the Protocol."""
        del max_tokens
        return SimulatedDraft(
            self._choose(sampling),
            oracle=self._oracle,
            prompt_length=prompt_length,
            vocabulary_size=self._vocabulary_size,
        )


class SimulatedDraft:
    """The guesses of one generation."""

    def __init__(
        self,
        acceptance: Acceptance,
        *,
        oracle: Oracle,
        prompt_length: int,
        vocabulary_size: int,
    ) -> None:
        self._acceptance = acceptance
        self._oracle = oracle
        self._prompt_length = prompt_length
        self._vocabulary_size = vocabulary_size

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """Nothing takes long here; what it costs is the simulation's business."""
        del text
        return False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`.

        Behind a wrong guess the guesses stay as they are for these positions. That makes no difference: whatever hangs
        on a wrong guess is never judged.
        """
        known = list(text)
        first = len(known) - self._prompt_length
        committed = self._acceptance.at(max(0, first - num_guessed))
        for position in range(first, first + min(limit, committed.reach - num_guessed)):
            guess = self._acceptance.at(position)
            if not guess.num_candidates:
                break
            token = self._oracle(known)
            if not guess.matches(1):
                token = TokenId((token + 1) % self._vocabulary_size)
            known.append(token)
        return tuple(known[len(text) :])

    def close(self) -> None:
        """Nothing is held."""
