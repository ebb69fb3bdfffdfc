"""What a verifier, an edge and its drafter are in the fleet's model. Pure values.

The fields are those of the programs' own settings, so that the same ones make a detailed world.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from cloud.scheduler import SchedulerSettings
from edge.steering import LengthPolicy
from paceline.client.settings import DraftingSettings
from paceline.errors import ConfigError
from simulator.acceptance.guess_trace import GuessTrace
from simulator.acceptance.replay import Acceptance, IndependentAcceptance, ReplayedAcceptance
from simulator.cost import Spread, StepCost


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierModel:
    """A verifier and its machine.

    Raises:
        ConfigError: a field is out of its range.
    """

    cost: StepCost
    """Of a step."""
    spread: Spread = Spread()  # noqa: RUF009 - frozen
    scheduler: SchedulerSettings = SchedulerSettings()  # noqa: RUF009 - frozen
    max_sessions: int = 64
    """Seats; who finds none asks again after `retry_after_s`."""
    max_draft_rows: int = 63
    """Most draft rows of one session in a step."""
    retry_after_s: float = 1.0

    def __post_init__(self) -> None:
        """Check the fields."""
        if self.max_sessions < 1:
            raise ConfigError(f"max_sessions: got {self.max_sessions}, expected at least 1")
        if self.max_draft_rows < 0:
            raise ConfigError(f"max_draft_rows: got {self.max_draft_rows}, expected at least 0")
        if not 0.0 < self.retry_after_s < math.inf:
            raise ConfigError(f"retry_after_s: got {self.retry_after_s}, expected more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterModel:
    """A drafter, its machine, and how far ahead it drafts.

    Raises:
        ConfigError: the acceptance is no chance.
    """

    cost: StepCost
    """Of a forward pass; one for each token."""
    spread: Spread = Spread()  # noqa: RUF009 - frozen
    acceptance: float = 0.7
    """Chance that a guess is right, each for itself, where there is no trace."""
    trace: GuessTrace | None = None
    """What a real pair of models guessed."""
    drafting: DraftingSettings = field(default_factory=DraftingSettings)
    length_policy: LengthPolicy = LengthPolicy.CLOSED_FORM
    """Closed-form: as the edge's own controller chooses from what it measured; it starts from `drafting`."""

    def __post_init__(self) -> None:
        """Check the acceptance."""
        if not 0.0 <= self.acceptance <= 1.0:
            raise ConfigError(f"acceptance: got {self.acceptance}, expected 0 to 1")

    def guesses(self, seed: int) -> Acceptance:
        """Return which guesses of an answer are right."""
        if self.trace is None:
            return IndependentAcceptance((self.acceptance,), seed=seed)
        return ReplayedAcceptance(self.trace, seed=seed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One question of somebody at an edge."""

    at_s: float
    """Not before this time, nor before the answer before it has ended."""
    prompt_tokens: int
    """At least 1."""
    max_tokens: int
    """Tokens of the answer, at least 1."""
    seed: int
    """Of the answer: which guesses are right."""
