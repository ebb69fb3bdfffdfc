"""Drafters for tests: always right, always wrong, sometimes right, broken."""

from collections.abc import Callable, Sequence

from harness.toy import ToyDrafter, ToyTarget

from paceline.errors import ModelError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

Guess = Callable[[Sequence[TokenId]], TokenId]
"""The guess for the token after a text."""


class GuessingDraft:
    """Extends a text by one guess after the other."""

    def __init__(self, guess: Guess, calls: list[tuple[int, int]]) -> None:
        self._guess = guess
        self._calls = calls
        self.is_closed = False

    def prepare(self, text: Sequence[TokenId]) -> bool:
        return False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        assert not self.is_closed
        self._calls.append((len(text), limit))
        grown = list(text)
        for _ in range(limit):
            grown.append(self._guess(grown))
        return tuple(grown[len(text) :])

    def close(self) -> None:
        self.is_closed = True


class GuessingDrafter:
    """A drafter from a function. `calls` tells the length of text and the limit of every `extend`."""

    name = "guessing"

    def __init__(self, guess: Guess) -> None:
        self._guess = guess
        self.calls: list[tuple[int, int]] = []
        self.drafts: list[GuessingDraft] = []

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> GuessingDraft:
        draft = GuessingDraft(self._guess, self.calls)
        self.drafts.append(draft)
        return draft


def toy_drafter(target: ToyTarget, *, accuracy: float) -> GuessingDrafter:
    """Return a drafter that is right with this probability, by a hash of the text."""
    return GuessingDrafter(ToyDrafter(target=target, accuracy=accuracy).guess)


class AlwaysWrong:
    """An adversary for a target that is known: never guesses what it draws.

    Args:
        target_output: what the target will draw after the prompt, all of it.
        vocabulary_size: of the target.
    """

    name = "always wrong"

    def __init__(self, target_output: Sequence[TokenId], *, vocabulary_size: int) -> None:
        self._output = tuple(target_output)
        self._vocabulary_size = vocabulary_size

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> GuessingDraft:
        def guess(text: Sequence[TokenId]) -> TokenId:
            at = len(text) - prompt_length
            right = self._output[at] if at < len(self._output) else TokenId(0)
            return TokenId((right + 1) % self._vocabulary_size)

        return GuessingDraft(guess, [])


class Broken:
    """Fails at its `fails_at`-th call of `extend`."""

    name = "broken"

    def __init__(self, *, fails_at: int = 1) -> None:
        self._left = fails_at

    def open(self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings) -> "Broken":
        return self

    def prepare(self, text: Sequence[TokenId]) -> bool:
        return False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        self._left -= 1
        if self._left <= 0:
            raise ModelError("broken: it is broken")
        return (TokenId(0),)

    def close(self) -> None:
        return None
