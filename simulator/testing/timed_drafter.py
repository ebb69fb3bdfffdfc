"""A drafter of the user's own on a simulated machine: it guesses as it does, and takes the time that it is said to take."""

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.drafter import Draft, Drafter
from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.virtual.machine import Occupation
from simulator.virtual.parts import AnyTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class TimedDrafter:
    """A drafter, and what it takes.

    Raises:
        ConfigError: the time is negative, or the drafter is none.
    """

    drafter: Drafter
    token_s: float = 0.004
    """Virtual seconds for each guess; a call without a guess takes as long as one guess."""

    def __post_init__(self) -> None:
        """Check what would only be noticed when an edge starts."""
        if isinstance(self.drafter, type) or not hasattr(self.drafter, "open"):
            raise ConfigError(
                f"draft: got {self.drafter!r}, expected what --draft takes, DraftSettings(acceptance=0.7), None, or an "
                "object as paceline/drafter.py describes it"
            )
        if not self.token_s >= 0.0:
            raise ConfigError(f"token_s: got {self.token_s}, expected at least 0")

    def on(self, target: AnyTarget, occupation: Occupation) -> Drafter:
        """Return it as the drafter of one machine."""
        del target
        return _Running(self, occupation)


class _Running:
    """A `Drafter` on one machine."""

    def __init__(self, timed: TimedDrafter, occupation: Occupation) -> None:
        self._timed = timed
        self._occupation = occupation

    @property
    def name(self) -> str:
        """See `Drafter`."""
        return self._timed.drafter.name

    def open(self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings) -> Draft:
        """See `Drafter`."""
        draft = self._timed.drafter.open(
            prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )
        return _RunningDraft(draft, token_s=self._timed.token_s, occupation=self._occupation)


class _RunningDraft:
    """A `Draft` on one machine."""

    def __init__(self, draft: Draft, *, token_s: float, occupation: Occupation) -> None:
        self._draft = draft
        self._token_s = token_s
        self._occupation = occupation

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`."""
        return self._draft.prepare(text)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        tokens = self._draft.extend(text, limit, num_guessed=num_guessed)
        self._occupation.spend(self._token_s * max(1, len(tokens)))
        return tokens

    def close(self) -> None:
        """See `Draft`."""
        self._draft.close()
