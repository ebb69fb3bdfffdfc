"""A drafter of trees by chance: it knows what the target draws, and has it at a rank that is drawn for each position.

It goes into `EdgeSettings.make_drafter`, and is plain data: equal settings guess the same, and a report can tell them. One that guesses
as recorded is in `tree_draft`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.drafter import Guess
from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.acceptance.replay import IndependentAcceptance
from simulator.cost import StepCost, Work
from simulator.virtual.machine import Occupation
from simulator.virtual.parts import AnyTarget
from simulator.virtual.target import ToyTarget, hashed


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedDraft:
    """How well and how fast such a drafter guesses; called, it makes one.

    Raises:
        ConfigError: a field is out of its range, or the target is a real one.
    """

    rates: tuple[float, ...] = (0.6, 0.15, 0.08, 0.04)
    """Chance that the first guess is right, that the second is ...; their sum is at most 1."""
    told: tuple[float, ...] = ()
    """What it says that these chances are, for as many guesses; (): the truth."""
    silence: float = 0.0
    """Chance that it has no guess at a position."""
    cost: StepCost = StepCost(fixed_s=0.004, per_row_s=0.0)  # noqa: RUF009 - frozen
    """Of a forward pass, a row for each leaf."""

    def __post_init__(self) -> None:
        """Check the fields."""
        IndependentAcceptance(self.rates, seed=0)
        if self.told and len(self.told) != len(self.rates):
            raise ConfigError(
                f"told: got {len(self.told)} chances, expected {len(self.rates)} as in rates, or none"
            )
        if not all(0.0 <= chance <= 1.0 for chance in (*self.told, self.silence)):
            raise ConfigError(
                f"told, silence: got {self.told}, {self.silence}, expected chances from 0 to 1"
            )

    def __call__(self, target: AnyTarget, occupation: Occupation) -> "RankedDrafter":
        """Return a drafter without any memory; see `EdgeSettings.make_drafter`."""
        if not isinstance(target, ToyTarget):
            raise ConfigError(
                "target: got a real model, expected a ToyTarget: only that one tells what it draws"
            )
        return RankedDrafter(target, settings=self, occupation=occupation)


class RankedDrafter:
    """A `Drafter` whose drafts are trees; see `RankedDraft`."""

    name = "ranked"

    def __init__(self, target: ToyTarget, *, settings: RankedDraft, occupation: Occupation) -> None:
        self.target = target
        self.settings = settings
        self.occupation = occupation
        self.num_open = 0
        """Drafts that are not closed."""

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> "RankedTree":
        """See `Drafter`."""
        del max_tokens
        self.num_open += 1
        return RankedTree(self, prompt_length=prompt_length, seed=sampling.seed)


class RankedTree:
    """A `TreeDraft`. A call is one forward pass."""

    def __init__(self, drafter: RankedDrafter, *, prompt_length: int, seed: int) -> None:
        self._drafter = drafter
        self._prompt_length = prompt_length
        self._seed = seed
        self._ranks = IndependentAcceptance(drafter.settings.rates, seed=seed)
        self._chances = drafter.settings.told or drafter.settings.rates
        self._is_open = True

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: there is nothing to prefill."""
        del text
        return False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`: the first guesses, one pass each."""
        del num_guessed
        path: list[TokenId] = []
        for _ in range(limit):
            (guesses,) = self.branch(text, [path], width=1)
            if not guesses:
                break
            path.append(guesses[0].token)
        return tuple(path)

    def branch(
        self, text: Sequence[TokenId], paths: Sequence[Sequence[TokenId]], *, width: int
    ) -> tuple[tuple[Guess, ...], ...]:
        """See `TreeDraft`."""
        assert self._is_open, "asked after it was closed"
        work = Work().with_sequence(num_rows=len(paths), context=len(text))
        self._drafter.occupation.spend(self._drafter.settings.cost.seconds(work))
        return tuple(self._guessed(text, path, width=width) for path in paths)

    def close(self) -> None:
        """See `Draft`."""
        assert self._is_open, "closed twice"
        self._is_open = False
        self._drafter.num_open -= 1

    def _guessed(
        self, text: Sequence[TokenId], path: Sequence[TokenId], *, width: int
    ) -> tuple[Guess, ...]:
        """Return the guesses after a path, all different: what the target would draw there is among them, or not.

        It would draw something after a wrong path as well. That makes no difference: whatever hangs there is never judged.
        """
        position = len(text) + len(path) - self._prompt_length
        if hashed(self._seed, position, ()) < self._drafter.settings.silence * 2**32:
            return ()
        target, rank = self._drafter.target, self._ranks.at(position).rank
        right = target.draw(text, path)
        most = min(width, len(self._chances), target.vocabulary_size - 1)
        others = (
            TokenId((right + number) % target.vocabulary_size) for number in range(1, most + 1)
        )
        return tuple(
            Guess(token=right if number == rank else other, chance=chance)
            for number, (other, chance) in enumerate(
                zip(others, self._chances, strict=False), start=1
            )
        )
