"""A drafter without a model: knows what the target draws, and is right where a recording or a chance says so."""

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.acceptance.guess_trace import GuessTrace
from simulator.acceptance.replay import Acceptance, IndependentAcceptance, ReplayedAcceptance
from simulator.cost import Spread, StepCost, Work
from simulator.virtual.events import Tell
from simulator.virtual.machine import Occupation
from simulator.virtual.target import Target, hashed

COMPARED = 64
"""Tokens at the end of a text that are compared one by one."""


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
        target: Target,
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
        self._known: tuple[TokenId, ...] = ()
        """The text that is in its cache."""
        self._num_calls = 0

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
        self._spend(begin, max(1, len(tokens)), num_guessed=num_guessed)
        self._known = (*begin, *tokens[:-1])  # the last one is never a row
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

    def _spend(self, begin: tuple[TokenId, ...], num_passes: int, *, num_guessed: int) -> None:
        """Take the time of the passes; what is not in the cache is prefilled in the first."""
        drafter = self._drafter
        common = _common(self._known, begin)
        num_new = max(0, len(begin) - common - 1)
        cost = drafter.settings.cost
        seconds = cost.seconds(
            Work(
                num_sequences=1,
                num_rows=1,
                num_prefill_rows=num_new,
                num_context_tokens=common,
                num_attended=(num_new + 1) * common,
            )
        )
        if num_passes > 1:
            length = len(begin)
            one = Work(num_sequences=1, num_rows=1, num_context_tokens=length, num_attended=length)
            seconds += (num_passes - 1) * cost.seconds(one)
        self._num_calls += 1
        uniform = hashed(len(begin), self._num_calls, begin[-2:]) / 2**32
        took_s = drafter.occupation.spend(seconds * drafter.settings.spread.factor(uniform))
        if drafter.tell is not None:
            drafter.tell(
                "drafted",
                position=len(begin) - num_guessed,
                guessed=num_guessed,
                tokens=num_passes,
                begins_s=drafter.occupation.begins_s,
                took_ns=round(took_s * 1e9),
            )


def _common(known: tuple[TokenId, ...], text: tuple[TokenId, ...]) -> int:
    """Return how many tokens two texts have in common at their beginning."""
    shorter = min(len(known), len(text))
    begin = max(0, shorter - COMPARED)
    if known[:begin] != text[:begin]:
        begin = 0
    while begin < shorter and known[begin] == text[begin]:
        begin += 1
    return begin
