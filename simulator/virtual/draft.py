"""A drafter without a model: knows what the target draws, and is right where a recording or a chance says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.acceptance.guess_trace import GuessTrace
from simulator.acceptance.replay import Acceptance, IndependentAcceptance, ReplayedAcceptance
from simulator.cost import Spread, StepCost
from simulator.virtual.events import Tell
from simulator.virtual.machine import Occupation
from simulator.virtual.metering import DraftMeter
from simulator.virtual.target import ToyTarget


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftSettings:
    """A simulated drafter and its machine.

    `paceline calibrate` measures `cost` and `spread` on a real one, and records `trace`.
    """

    cost: StepCost = StepCost(fixed_s=0.004, per_row_s=0.0)  # noqa: RUF009 - frozen
    """Of a forward pass; one for each token."""
    spread: Spread = Spread()  # noqa: RUF009 - frozen
    acceptance: float = 0.7
    """Chance that a guess is right, each for itself, where there is no trace."""
    trace: GuessTrace | None = None
    """What a real pair of models guessed."""
    category: str | None = None
    """Only such answers of the trace."""

    def __post_init__(self) -> None:
        """Check the fields.

        Raises:
            ConfigError: the acceptance is no chance.
        """
        if not 0.0 <= self.acceptance <= 1.0:
            raise ConfigError(f"acceptance: got {self.acceptance}, expected 0 to 1")

    def guesses(self, sampling: SamplingSettings) -> Acceptance:
        """Return which guesses of an answer are right."""
        seed = sampling.seed
        if self.trace is None:
            return IndependentAcceptance((self.acceptance,), seed=seed)
        return ReplayedAcceptance(self.trace, seed=seed, category=self.category)


@dataclass(frozen=True, slots=True, kw_only=True)
class RealDraftSettings:
    """A drafter that guesses by itself, and its machine."""

    model: str
    """What `paceline edge --draft` takes: "lookup", a folder, a short name ...; in float32."""
    cost: StepCost = StepCost(fixed_s=0.004, per_row_s=0.0)  # noqa: RUF009 - frozen
    """Of a forward pass; one for each token."""
    spread: Spread = Spread()  # noqa: RUF009 - frozen


class SimulatedDrafter:
    """A `paceline.drafter.Drafter` whose guesses are chains.

    Args:
        target: what is guessed.
        settings: how well and how fast.
        occupation: told how long a call takes.
        tell: told of every call, if anybody wants to know.
    """

    name = "simulated"

    def __init__(
        self,
        target: ToyTarget,
        *,
        settings: DraftSettings,
        occupation: Occupation,
        tell: Tell | None = None,
    ) -> None:
        self.target = target
        self.settings = settings
        self.occupation = occupation
        self.tell = tell
        self.num_open = 0
        """Drafts that are not closed."""

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> "SimulatedDraft":
        """See `Drafter`."""
        del max_tokens
        self.num_open += 1
        acceptance = self.settings.guesses(sampling)
        return SimulatedDraft(self, prompt_length=prompt_length, acceptance=acceptance)


class SimulatedDraft:
    """A `paceline.drafter.Draft`. Every token it guesses is a forward pass."""

    def __init__(
        self, drafter: SimulatedDrafter, *, prompt_length: int, acceptance: Acceptance
    ) -> None:
        self._drafter = drafter
        self._prompt_length = prompt_length
        self._acceptance = acceptance
        self._meter = DraftMeter(
            cost=drafter.settings.cost,
            spread=drafter.settings.spread,
            occupation=drafter.occupation,
            tell=drafter.tell,
        )

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: all is done in `extend`."""
        del text
        return False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`.

        Behind a wrong guess the guesses stay as they are for these positions. That makes no difference: whatever hangs
        on a wrong guess is never judged.
        """
        begin = tuple(text)
        tokens = self._guessed(begin, limit, num_guessed=num_guessed)
        self._meter.guessed(begin, tokens, num_guessed=num_guessed)
        return tokens

    def close(self) -> None:
        """See `Draft`."""
        self._drafter.num_open -= 1

    def _guessed(
        self, text: tuple[TokenId, ...], limit: int, *, num_guessed: int
    ) -> tuple[TokenId, ...]:
        target, grown = self._drafter.target, list(text)
        first = len(text) - self._prompt_length
        reach = self._acceptance.at(max(0, first - num_guessed)).reach
        for position in range(first, first + min(limit, reach - num_guessed)):
            guess = self._acceptance.at(position)
            if not guess.num_candidates:
                break
            token = target.draw(grown)
            if not guess.matches(1):
                token = TokenId((token + 1) % target.identity.vocabulary_size)
            grown.append(token)
        return tuple(grown[len(text) :])
