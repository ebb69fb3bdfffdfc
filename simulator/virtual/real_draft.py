"""The edge's own drafters in virtual time: they guess at once, and their calls last as long as they cost."""

from collections.abc import Sequence
from copy import deepcopy

from edge.drafters.model import PREFILL_ROWS
from paceline.drafter import Draft, Drafter
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.virtual.computing import load_draft, one_thread
from simulator.virtual.draft import RealDraftSettings
from simulator.virtual.events import Tell
from simulator.virtual.machine import Occupation
from simulator.virtual.metering import DraftMeter


class RealDrafter:
    """A `paceline.drafter.Drafter`.

    Args:
        tokenizer: the target's.
        settings: which drafter, and how fast it is.
        occupation: told how long a call takes.
        tell: told of every call that guesses, if anybody wants to know.

    Raises:
        ConfigError: the settings name no drafter.
        ModelError: its model cannot be loaded.
        IncompatibleError: its model has another tokenizer than the target.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        *,
        settings: RealDraftSettings,
        occupation: Occupation,
        tell: Tell | None = None,
    ) -> None:
        # A program that starts has an empty cache; the weights are shared.
        self._drafter: Drafter = deepcopy(load_draft(settings.model, tokenizer))
        self._settings = settings
        self._occupation = occupation
        self._tell = tell
        self.num_open = 0
        """Drafts that are not closed."""

    @property
    def name(self) -> str:
        """See `Drafter`."""
        return self._drafter.name

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> "RealDraft":
        """See `Drafter`."""
        draft = self._drafter.open(
            prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )
        meter = DraftMeter(
            cost=self._settings.cost,
            spread=self._settings.spread,
            occupation=self._occupation,
            tell=self._tell,
        )
        self.num_open += 1
        return RealDraft(self, draft=draft, meter=meter)


class RealDraft:
    """A `paceline.drafter.Draft`. Made by `RealDrafter.open`."""

    def __init__(self, drafter: RealDrafter, *, draft: Draft, meter: DraftMeter) -> None:
        self._drafter = drafter
        self._draft = draft
        self._meter = meter

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`."""
        with one_thread():
            has_more = self._draft.prepare(text)
        if has_more:  # else what is left, if anything was computed, is charged with the next guess
            self._meter.prefilled(tuple(text), most=PREFILL_ROWS)
        return has_more

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`."""
        with one_thread():
            tokens = self._draft.extend(text, limit, num_guessed=num_guessed)
        self._meter.guessed(tuple(text), tokens, num_guessed=num_guessed)
        return tokens

    def close(self) -> None:
        """See `Draft`."""
        self._draft.close()
        self._drafter.num_open -= 1
