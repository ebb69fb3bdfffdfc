"""One session, as the event loop keeps it."""

from dataclasses import dataclass, field
from enum import StrEnum

from cloud.orders import CacheView
from cloud.race_drafts import Mixture, RaceDraft
from cloud.stream import Stream
from cloud.tenants import Peer
from paceline.errors import DrainingError, PacelineError
from paceline.session.cloud import CloudSession
from paceline.session.table import CloudState
from paceline.tokens import SessionId

PACE_FADE = 0.97
"""What a step counts less with each newer one: some thirty count."""

PACE_STEPS = 8
"""Fewer tell nothing of a session's pace."""


class Cache(StrEnum):
    """What a session has on the model thread."""

    WANTED = "wanted"
    """Nobody has asked for it yet."""
    ORDERED = "ordered"
    """The model thread has been asked."""
    HELD = "held"
    NONE = "none"
    """Refused, or freed because the text is complete: the log alone is kept, for an edge that reads on or comes back."""


@dataclass(slots=True, kw_only=True)
class Pace:
    """What steps commit for a session."""

    num_steps: int = 0
    _tokens: float = 0.0
    _weight: float = 0.0

    def add(self, num_tokens: int) -> None:
        """Take a step that served the session."""
        self.num_steps += 1
        self._tokens = self._tokens * PACE_FADE + num_tokens
        self._weight = self._weight * PACE_FADE + 1.0

    @property
    def tokens_per_step(self) -> float | None:
        """The mean of late; None where there were too few to tell."""
        return self._tokens / self._weight if self.num_steps >= PACE_STEPS else None


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One session."""

    key: int
    """Number within this process; never reused."""
    session_id: SessionId
    peer: Peer
    session: CloudSession
    stream: Stream | None
    waiting_since_s: float
    """When it was last served, or got its work."""
    heard_at_s: float
    """When the edge last said something."""
    opened_at_s: float
    first_step_at_s: float | None = None
    """When the first step began that it had rows in."""
    served_at_s: float | None = None
    """When a step last gave it tokens."""
    drafted_at_s: float = 0.0
    """When a step last had draft rows of it."""
    roused_at_s: float = 0.0
    """When the edge last sent the first drafts, or said that it is idle, after there were none."""
    error: PacelineError | None = None
    """Why it was ended, if it was."""
    pace: Pace = field(default_factory=Pace)
    takes_drafts: bool = True
    """False once the model failed on rows with drafts: a draft must not end a text that is fine without it."""
    race_draft: RaceDraft | None = None
    """What the verifier itself guesses; None until it first does."""
    mixture: Mixture | None = None
    """What was offered for the next step, if guesses of `race_draft` are among it."""
    cache: Cache = Cache.WANTED
    cache_view: CacheView = field(
        default_factory=lambda: CacheView(num_to_prefill=1, waits_for=None)
    )
    lease_ends_s: float | None = None

    @property
    def is_admitted(self) -> bool:
        """There was memory for it."""
        return self.cache in {Cache.HELD, Cache.NONE}

    @property
    def num_committed(self) -> int:
        """Tokens committed here."""
        request = self.session.request
        return self.session.length - len(request.prompt) - len(request.output)

    @property
    def is_waiting(self) -> bool:
        """It waits for memory, or for a prefix that another one computes."""
        if self.cache is Cache.HELD:
            return self.cache_view.waits_for is not None
        return not self.is_admitted

    @property
    def is_running(self) -> bool:
        """Its text goes on and its rows are in steps."""
        return (
            self.cache is Cache.HELD
            and not self.is_waiting
            and self.session.state is CloudState.LIVE
        )

    @property
    def how_it_ended(self) -> str:
        """One of `cloud.account.ENDS`, once it has."""
        if self.error is not None:
            return "abort" if isinstance(self.error, DrainingError) else "error"
        return str(self.session.finish or "abort")

    @property
    def owes_answer(self) -> bool:
        """Nothing goes on until the edge says something: it has to acknowledge, or to close."""
        return self.stream is not None and self.is_admitted and not self.session.may_step

    @property
    def owes_since_s(self) -> float:
        """Since when, while `owes_answer`: an edge cannot answer what it has not been sent yet."""
        return max(self.heard_at_s, self.waiting_since_s)
