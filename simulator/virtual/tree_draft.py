"""A drafter of trees without a model: it knows what the target draws, and has it among its candidates where a recording does.

It goes into `EdgeSettings.make_drafter`; the edge's `DraftingSettings` must want trees (`growth`).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

from paceline.drafter import Drafter, Guess
from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.acceptance.chances import RankChances
from simulator.acceptance.guess_trace import GuessTrace
from simulator.acceptance.replay import ReplayedAcceptance
from simulator.cost import StepCost, Work
from simulator.virtual.machine import Occupation
from simulator.virtual.parts import AnyTarget
from simulator.virtual.target import ToyTarget, hashed

MOST_CANDIDATES = 8


class Draws(Protocol):
    """Knows what the target draws."""

    @property
    def vocabulary_size(self) -> int:
        """Ids are below it."""
        ...

    def draw(self, text: Sequence[TokenId], path: Sequence[TokenId] = ()) -> TokenId:
        """Return the token after `text` and then `path`."""
        ...


class Spends(Protocol):
    """Takes the time of a call: virtual, or real."""

    def spend(self, seconds: float) -> float:
        """Let the call under way take so long; return for how long."""
        ...


def tree_drafter(
    trace: GuessTrace, *, cost: StepCost | None = None, category: str | None = None
) -> Callable[[AnyTarget, Occupation], Drafter]:
    """Return what makes such a drafter for an edge of a world.

    Args:
        trace: what a real pair of models guessed.
        cost: of a forward pass, a row for each leaf.
        category: only such answers of the trace.
    """
    chances = RankChances(trace, width=MOST_CANDIDATES)

    def made(target: AnyTarget, occupation: Occupation) -> Drafter:
        if not isinstance(target, ToyTarget):
            raise ConfigError(
                "target: got a real model, expected a ToyTarget: recorded guesses are about no text"
            )
        return SimulatedTreeDrafter(
            target,
            trace=trace,
            chances=chances,
            category=category,
            occupation=occupation,
            cost=cost or StepCost(fixed_s=0.004, per_row_s=0.0),
        )

    return made


class SimulatedTreeDrafter:
    """A `Drafter` whose drafts are trees; see `tree_drafter`."""

    name = "simulated tree"

    def __init__(
        self,
        target: Draws,
        *,
        trace: GuessTrace,
        chances: RankChances,
        category: str | None,
        occupation: Spends,
        cost: StepCost,
    ) -> None:
        self.target = target
        self.chances = chances
        self.occupation = occupation
        self.cost = cost
        self._trace = trace
        self._category = category

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> "SimulatedTreeDraft":
        """See `Drafter`."""
        del max_tokens
        replayed = ReplayedAcceptance(self._trace, seed=sampling.seed, category=self._category)
        return SimulatedTreeDraft(self, prompt_length=prompt_length, replayed=replayed)


class SimulatedTreeDraft:
    """A `TreeDraft`. A call is one forward pass."""

    def __init__(
        self, drafter: SimulatedTreeDrafter, *, prompt_length: int, replayed: ReplayedAcceptance
    ) -> None:
        self._drafter = drafter
        self._prompt_length = prompt_length
        self._replayed = replayed

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: there is nothing to prefill."""
        del text
        return False

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`: the best candidates, one pass each."""
        del num_guessed
        path: list[TokenId] = []
        for _ in range(limit):
            (guesses,) = self.branch(text, [path], width=1)
            path.append(guesses[0].token)
        return tuple(path)

    def branch(
        self, text: Sequence[TokenId], paths: Sequence[Sequence[TokenId]], *, width: int
    ) -> tuple[tuple[Guess, ...], ...]:
        """See `TreeDraft`."""
        work = Work().with_sequence(num_rows=len(paths), context=len(text))
        self._drafter.occupation.spend(self._drafter.cost.seconds(work))
        right: list[TokenId] = []
        for _ in range(1 + max(map(len, paths))):
            right.append(self._drafter.target.draw(text, right))
        return tuple(self._guessed(text, path, right, width=width) for path in paths)

    def close(self) -> None:
        """See `Draft`."""

    def _guessed(
        self,
        text: Sequence[TokenId],
        path: Sequence[TokenId],
        right: Sequence[TokenId],
        *,
        width: int,
    ) -> tuple[Guess, ...]:
        """Return the candidates after a path: the right token among them if the recording says so, and others."""
        place = len(text) + len(path) - self._prompt_length
        is_right = list(path) == list(right[: len(path)])
        if not is_right:
            # Nobody recorded what the draft thinks there: it is as sure as somewhere else.
            place = hashed(1, place, path[-4:])
        recorded = self._replayed.at(place)
        chances = self._drafter.chances.at(recorded.confidence)
        token, vocabulary = right[len(path)], self._drafter.target.vocabulary_size
        return tuple(
            Guess(
                token=token
                if is_right and recorded.matches(rank)
                else TokenId((token + rank) % vocabulary),
                chance=chance,
            )
            for rank, chance in enumerate(chances[:width], start=1)
        )
