"""Says for each position of a simulated answer which of the draft's candidates is the target's token.

Pure: the same seed gives the same answers in any process, in any order of asking, as often as one asks.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Protocol

from paceline.errors import ConfigError
from simulator.acceptance.guess_trace import MOST_RANKS, GuessedText, GuessTrace

ENDLESS = 1 << 30
"""As a reach: the draft never stops by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """What a draft has for one position, given that the text before it is the target's own."""

    rank: int
    """Which candidate is the target's token: 1 is the first. 0: none of them."""
    num_candidates: int
    """How many the draft could name; 0: it has no guess here."""
    confidence: float
    """In the unit of the trace; how sure the draft is of its first candidate."""
    reach: int = ENDLESS
    """How many tokens in a row the draft would guess from here without hearing of a commit."""

    def matches(self, candidate: int) -> bool:
        """Return whether a candidate, counted from 1, is the target's token."""
        return self.rank == candidate


class Acceptance(Protocol):
    """The guesses of one answer."""

    def at(self, position: int) -> Guess:
        """Return the guess for a position of the output, counted from 0."""
        ...


class ReplayedAcceptance:
    """Guesses as they were recorded, so that right ones come in bursts as they do in real text.

    The seed chooses a recorded answer, and the guesses are its guesses from the first on. An answer that lasts longer
    goes on with others of the same category, each once before any is used again; where two meet, and only there, what
    was guessed before says nothing of what comes.

    Args:
        trace: of the pair of models.
        seed: of this answer.
        category: only such answers; None: any.
        temperature: only such answers; None: any.
        offset: begin this many tokens into the recorded answer.

    Raises:
        ConfigError: the trace has no such answer, or the offset is negative.
    """

    def __init__(
        self,
        trace: GuessTrace,
        *,
        seed: int,
        category: str | None = None,
        temperature: float | None = None,
        offset: int = 0,
    ) -> None:
        if offset < 0:
            raise ConfigError(f"offset: got {offset}, expected at least 0")
        texts = trace.chosen(category=category, temperature=temperature)
        first = min(texts, key=lambda text: _number(seed, _label(text)))
        alike = trace.chosen(category=first.category, temperature=first.temperature)
        self._texts = sorted(
            alike, key=lambda text: (text is not first, _number(seed, _label(text)))
        )
        self._ends = list(accumulate(len(text.ranks) for text in self._texts))
        self._trace = trace
        self._offset = offset

    @property
    def prompt_tokens(self) -> int:
        """Length of the recorded answer's prompt."""
        return self._texts[0].prompt_tokens

    @property
    def category(self) -> str:
        """Of the recorded answers."""
        return self._texts[0].category

    def at(self, position: int) -> Guess:
        """See the Protocol."""
        place = (position + self._offset) % self._ends[-1]
        index = bisect_right(self._ends, place)
        text = self._texts[index]
        place -= self._ends[index] - len(text.ranks)
        sure = text.confidence[place]
        reach = ENDLESS
        if self._trace.abstains:
            reach = round(sure * self._trace.confidence.step)
        return Guess(
            rank=text.ranks[place],
            num_candidates=self._trace.width if reach else 0,
            confidence=sure * self._trace.confidence.step,
            reach=reach,
        )


class IndependentAcceptance:
    """Guesses drawn anew for each position, as the formulas of papers have it; real ones come in bursts.

    Args:
        rates: chance that the first candidate is right, that the second is ...; their sum is at most 1.
        seed: of this answer.

    Raises:
        ConfigError: rates are no chances.
    """

    def __init__(self, rates: Sequence[float], *, seed: int) -> None:
        # What adds up to 1 may do so with a rounding error.
        if not 1 <= len(rates) <= MOST_RANKS or min(rates) < 0.0 or sum(rates) > 1.0 + 1e-9:
            raise ConfigError(
                f"rates: got {tuple(rates)}, expected 1 to {MOST_RANKS} numbers of at least 0 with a sum of at most 1"
            )
        self._limits = list(accumulate(rates))
        self._seed = seed

    def at(self, position: int) -> Guess:
        """See the Protocol."""
        drawn = _number(self._seed, f"position {position}") / 2**64
        rank = bisect_right(self._limits, drawn) + 1
        width = len(self._limits)
        return Guess(rank=rank if rank <= width else 0, num_candidates=width, confidence=0.0)


def _label(text: GuessedText) -> str:
    return f"{text.category} {text.prompt} {text.temperature} {text.seed}"


def _number(seed: int, label: str) -> int:
    """Return 64 bits that look random."""
    digest = hashlib.blake2b(f"{seed} {label}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big")
