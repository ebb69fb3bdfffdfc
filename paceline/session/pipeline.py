"""What a pipeline decides: what is drafted when, which of it is sent when, and whether the verifier waits for it.

The session machine, the wire and the rules of window, base and idle are the same for all; so is the text. A pipeline is one
generation's. The names:

- `tree-stream`: everything likely enough is sent as it is drafted. No waiting on either side.
- `stop-and-wait`: a proposal of `draft_length` tokens, then the whole answer, then the next.
- `run-ahead`: a chain goes on while proposals are in flight.
- `outcome-cache`: stop-and-wait on the wire; meanwhile the edge drafts after the likely answers.
- `outcome-cache-ahead`: the same, and the chain goes on as in run-ahead.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from paceline.drafter import Guess
from paceline.errors import ConfigError
from paceline.session.drafting import DraftRequest
from paceline.session.growth import GrowthRequest
from paceline.tokens import Position, TokenId

WAITING_S = 2.0
"""A verifier waits so long for an edge that waits for it, unless told otherwise: any round is shorter."""


class PipelineName(StrEnum):
    """See the module."""

    TREE_STREAM = "tree-stream"
    STOP_AND_WAIT = "stop-and-wait"
    RUN_AHEAD = "run-ahead"
    OUTCOME_CACHE = "outcome-cache"
    OUTCOME_CACHE_AHEAD = "outcome-cache-ahead"

    @property
    def sends_trees(self) -> bool:
        """Several guesses for one position may be sent."""
        return self is PipelineName.TREE_STREAM

    @property
    def runs_ahead(self) -> bool:
        """The chain goes on while some of it is in flight."""
        return self in {PipelineName.RUN_AHEAD, PipelineName.OUTCOME_CACHE_AHEAD}

    @property
    def caches_outcomes(self) -> bool:
        """Several guesses for one position may be kept at the edge."""
        return self in {PipelineName.OUTCOME_CACHE, PipelineName.OUTCOME_CACHE_AHEAD}


class FanOut(StrEnum):
    """Which answers to a proposal are prepared for."""

    GEOMETRIC = "geometric"
    """The likeliest at each position, fewer where it is reached less often: as published (`fan_out.py`)."""
    EVEN = "even"
    """The likeliest at each position, as many at every one."""
    CHANCE = "chance"
    """The likeliest of all, as the drafter's chances have it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineSettings:
    """Which pipeline, and its own figures.

    Raises:
        ConfigError: a field is out of its range.
    """

    name: PipelineName = PipelineName.TREE_STREAM

    patience_s: float | None = None
    """How long the verifier may wait for drafts before a step without any, in seconds; 0: not at all, which is the race. None:
    0 for `tree-stream`, long for the others, as they were published."""

    segment: int = 4
    """`run-ahead` and `outcome-cache-ahead`: tokens of a proposal, once another is in flight; at least 1. More cost fewer bytes
    each, fewer arrive sooner."""

    pre_verify: bool = True
    """`run-ahead` and `outcome-cache-ahead`: while nothing is in flight, send a token as soon as there is one, so that it is
    verified while the rest of its segment is drafted. Off: only whole segments, or what there is when an answer comes."""

    fan_out: int = 24
    """`outcome-cache` and `outcome-cache-ahead`: answers that are prepared for, in all; at least 1."""

    fan_by: FanOut = FanOut.GEOMETRIC
    """`outcome-cache` and `outcome-cache-ahead`: which answers these are."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("segment", "fan_out"):
            if getattr(self, name) < 1:
                raise ConfigError(
                    f"pipeline.{name}: got {getattr(self, name)}, expected at least 1"
                )
        if self.patience_s is not None and not 0.0 <= self.patience_s <= 3600.0:
            raise ConfigError(f"pipeline.patience_s: got {self.patience_s}, expected 0 to 3600")

    @property
    def patience_ms(self) -> int:
        """As `Open` has it."""
        if self.patience_s is None:
            return 0 if self.name is PipelineName.TREE_STREAM else round(WAITING_S * 1000)
        return round(self.patience_s * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a session stands."""

    position: Position
    """Length of the committed text."""
    draft_length: int
    """How many tokens deep to draft, as the session is told."""
    room: int
    """How far below the committed text a guess can still save a step."""
    space: int
    """Guesses that may still be sent, as the window stands."""
    no_guess: bool
    """The drafter has nothing after the text as it stands."""

    @property
    def depth(self) -> int:
        """How deep to draft."""
        return min(self.draft_length, self.room)


class Pipeline(Protocol):
    """One generation's; see the module. What is sent hangs in the session's `Guesses`, which a pipeline fills."""

    @property
    def has_growth(self) -> bool:
        """A drafter that has several guesses for a position is asked for `growth_request`, any other for `draft_request`."""
        ...

    @property
    def is_closed(self) -> bool:
        """There is nothing to send, and there will not be before the next commit."""
        ...

    def draft_request(self, place: Place) -> DraftRequest | None:
        """Return what to draft next, or None while there is nothing worth it."""
        ...

    def growth_request(self, place: Place) -> GrowthRequest | None:
        """Return from which leaves to go on, or None while nothing is worth it."""
        ...

    def drafted(self, tokens: Sequence[TokenId]) -> None:
        """The drafter guesses that the text goes on like this."""
        ...

    def grown(self, path: Sequence[TokenId], guesses: Iterable[Guess]) -> bool:
        """The drafter has guesses after a leaf; return whether it is still there."""
        ...

    def committed(self, token: TokenId) -> int:
        """The text goes on with `token`; return how many guesses are gone that were held back here."""
        ...

    def release(self, place: Place) -> None:
        """Hand over what may be sent by now."""
        ...
