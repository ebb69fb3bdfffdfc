"""What guesses: the one Protocol that every drafter implements, and the thread rule it lives by.

A drafter is loaded once per program; a `Draft` is its memory of one generation. Both are used from one dedicated
drafting thread, never from an event loop, and know nothing of sessions, streams or acceptance. A draft is told the
whole text each time and finds out by itself what is new: so a rollback, a resume or a commit that overtook it are all
the same to it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId


class Draft(Protocol):
    """A drafter's memory of one generation."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """Do a bounded part of what `extend` needs done first; return whether some of it is left.

        A long prompt is prefilled so, in pieces between which the thread serves others and a commit or a cancel is
        noticed. `extend` does not need it: it does what is left by itself.

        Raises:
            ModelError: as in `extend`.
        """
        ...

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """Return at most `limit` tokens that the target may draw after `text`; none if there is no guess.

        Args:
            text: prompt, committed output and the guesses to go on from. It may differ from the last call's in its
                end; the common beginning need not be computed again.
            limit: at least 1.
            num_guessed: how many of the last tokens of `text` are guesses, not committed yet.

        Raises:
            ModelError: the model failed; the generation goes on without drafts.
        """
        ...

    def close(self) -> None:
        """Free what this generation holds."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A drafted token, and how far to trust it."""

    token: TokenId
    chance: float
    """Chance from 0 to 1 that the target draws this token if it drew all those before it."""


class ScoringDraft(Draft, Protocol):
    """A draft that says how sure it is. What it says may be calibrated or not; more is always surer."""

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """Return what `extend` returns, and the chance of each token.

        Args:
            text: as in `extend`.
            limit: as in `extend`.
            num_guessed: as in `extend`.

        Raises:
            ModelError: as in `extend`.
        """
        ...


@runtime_checkable
class TreeDraft(Draft, Protocol):
    """A draft that has several guesses for one position, at several places of a tree at once."""

    def branch(
        self, text: Sequence[TokenId], paths: Sequence[Sequence[TokenId]], *, width: int
    ) -> tuple[tuple[Guess, ...], ...]:
        """Return for each path at most `width` guesses after it, the likeliest first; they exclude each other.

        Args:
            text: the committed text. It may differ from the last call's in its end.
            paths: guesses that hang off it, each down to a leaf; () is the end of the text itself.
            width: at least 1.

        Raises:
            ModelError: as in `extend`.
        """
        ...


def tokens_of(guesses: Iterable[Guess]) -> tuple[TokenId, ...]:
    """Return the tokens without their chances."""
    return tuple(guess.token for guess in guesses)


class Drafter(Protocol):
    """Makes drafts."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    def open(self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings) -> Draft:
        """Return a new draft for a generation of at most `max_tokens` after a prompt of `prompt_length`."""
        ...


class ScoringDrafter(Protocol):
    """Makes drafts that say how sure they are."""

    @property
    def name(self) -> str:
        """What users call it."""
        ...

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> ScoringDraft:
        """See `Drafter`."""
        ...
