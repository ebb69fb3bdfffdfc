"""What goes into the two halves of a session, and what comes out."""

from dataclasses import dataclass

from paceline.errors import PacelineError
from paceline.messages import (
    Close,
    CloudMessage,
    Commit,
    EdgeMessage,
    FinishReason,
    Proposal,
    TokenLogprobs,
)
from paceline.session.growth import GrownLeaf, Growth
from paceline.tokens import Position, TokenId

# --- edge: events


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkUp:
    """A stream to a verifier is up."""

    holds_session: bool
    """This verifier is the one that issued our session id, so a resume can work."""

    weights_fingerprint: bytes = b""
    """Weights that it must serve; empty takes any, until a target has answered."""

    at_s: float = 0.0
    """When, by the edge's clock; 0 where nobody keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkDown:
    """The stream ended without a word, or could not be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FromCloud:
    """A message arrived."""

    message: CloudMessage
    at_s: float = 0.0
    """When, by the edge's clock; 0 where nobody keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Drafted:
    """The drafter guesses that the text goes on like this.

    Its first tokens may repeat what is committed or in the tree; they merge by content.
    """

    position: Position
    """Place of the first of `tokens`; at most the length of the committed text."""

    tokens: tuple[TokenId, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grown:
    """The drafter has guesses after some leaves of the tree, or after none of them."""

    position: Position
    """Length of the committed text where the paths begin; at most what it is now."""

    leaves: tuple[GrownLeaf, ...]
    at_s: float = 0.0
    """When, by the edge's clock; 0 where nobody keeps it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NothingToDraft:
    """The drafter has no guess for the text as it stands."""

    position: Position | None = None
    """Length of the committed text it was asked about; an answer about an older text is ignored. None: this one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Steer:
    """Draft so far ahead from now on.

    With less than before, what is in the tree already stays and is sent as the window allows; with more, drafting goes
    on at once.
    """

    draft_length: int
    """At least 0: nothing more is drafted."""

    window: int
    """The edge's own limit of nodes in flight; at least 1."""

    growth: Growth | None = None
    """How a tree grows from now on; None: as before. A chain stays one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The edge is satisfied: a stop string was found, or the user cancelled."""

    cancelled: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class GiveUp:
    """The shell has stopped trying to reach a verifier."""

    error: PacelineError


EdgeEvent = LinkUp | LinkDown | FromCloud | Drafted | Grown | NothingToDraft | Steer | Stop | GiveUp


def name_of(event: EdgeEvent) -> str:
    """Return what an event is called; a message counts as itself."""
    return type(event.message if isinstance(event, FromCloud) else event).__name__


# --- edge: effects


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """Send this on the stream."""

    message: EdgeMessage


@dataclass(frozen=True, slots=True, kw_only=True)
class Deliver:
    """Tokens the user has not seen yet are final. `commit` is cut to just those."""

    commit: Commit


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconnect:
    """Make a new stream.

    `elsewhere`: to another verifier if there is one. `after_s`: not before, in seconds from now.
    """

    elsewhere: bool
    after_s: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """The verifier goes away: leave it for another one, if there is one. The stream lives until then."""

    within_s: float
    """Seconds until the verifier ends the stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished:
    """The text is complete. `reason` is None where the edge itself ended it."""

    reason: FinishReason | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Failed:
    """The session can not go on; what was delivered stays final."""

    error: PacelineError


EdgeEffect = Send | Deliver | Reconnect | Move | Finished | Failed

# --- cloud: events


@dataclass(frozen=True, slots=True, kw_only=True)
class Attach:
    """A stream wants this session."""

    stream: int
    """The shell's number for it; larger than any before."""

    length: Position
    """How much of the log the edge has."""

    attempt: int = 0
    """`Resume.attempt`: which of the edge's tries this is; 0 if it does not count them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detach:
    """A stream ended without `Close`."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FromEdge:
    """A message arrived on a stream."""

    stream: int
    message: Proposal | Close


@dataclass(frozen=True, slots=True, kw_only=True)
class Stepped:
    """The target drew `tokens` along its walk; those after a stop token or a limit do not count."""

    tokens: tuple[TokenId, ...]
    queue_ns: int = 0
    verify_ns: int = 0
    num_rows: int = 0
    row_price_ns: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseExpired:
    """Nobody resumed in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Abort:
    """The verifier ends the session: its edge broke the rules, the model failed, or a drain is over."""


CloudEvent = Attach | Detach | FromEdge | Stepped | LeaseExpired | Abort

# --- cloud: effects


@dataclass(frozen=True, slots=True, kw_only=True)
class EndStream:
    """A newer stream took over: end this one."""

    stream: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitReady:
    """`next_commit` has something for the attached stream."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkReady:
    """The session may be worth a step now."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartLease:
    """Send `LeaseExpired` after the lease, unless `StopLease` comes first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StopLease:
    """A stream is attached again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release:
    """Free everything this session holds."""


CloudEffect = EndStream | CommitReady | WorkReady | StartLease | StopLease | Release
