"""What crosses the wire, as plain frozen values. `paceline.codec` turns them into bytes and back.

The meaning, unit and bound of every field stands in proto/paceline/v1/verification.proto; the names are the same.
"""

from dataclasses import dataclass
from enum import StrEnum

from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, SessionId, TokenId

PROTOCOL_VERSION = 1
FLOOR_WINDOW = 64
"""Names an edge may have in flight before `Opened` tells it the session's window."""
MAX_PROPOSAL_TOKENS = 4096
MAX_COMMIT_TOKENS = 1024
"""A longer replay is several commits."""
MAX_STOP_TOKENS = 64
MAX_LOGPROBS = 20
FINGERPRINT_BYTES = 32
SESSION_ID_BYTES = 16


class FinishReason(StrEnum):
    """Why a text ends."""

    STOP = "stop"
    LENGTH = "length"


class CloseReason(StrEnum):
    """Why an edge ends a session."""

    DONE = "done"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelIdentity:
    """A model, as far as both sides must agree on it."""

    name: str
    weights_fingerprint: bytes
    dtype: str
    quantisation: str
    tokenizer_fingerprint: bytes
    vocabulary_size: int
    context_length: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds of one session."""

    window: int
    max_lead: int
    context_length: int
    max_tokens: int
    lease_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """Starts a session."""

    tokenizer_fingerprint: bytes
    prompt: tuple[TokenId, ...]
    sampling: SamplingSettings
    max_tokens: int
    output: tuple[TokenId, ...] = ()
    stop_tokens: tuple[TokenId, ...] = ()
    num_logprobs: int = 0
    patience_ms: int = 0
    weights_fingerprint: bytes = b""
    protocol_version: int = PROTOCOL_VERSION


@dataclass(frozen=True, slots=True, kw_only=True)
class Resume:
    """Goes on with a session after a broken stream."""

    session_id: SessionId
    length: Position
    attempt: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """Adds nodes to the tree and acknowledges commits. Missing entries of `parents` are 1."""

    base_position: Position
    tokens: tuple[TokenId, ...] = ()
    parents: tuple[int, ...] = ()
    idle: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Close:
    """Ends the session and frees it at once."""

    reason: CloseReason


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """Answers `Open` and `Resume`."""

    session_id: SessionId
    limits: Limits
    target: ModelIdentity
    length: Position
    step_ns: int = 0
    address: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprobs:
    """The target's log probabilities at one position, before filters."""

    logprob: float
    top_tokens: tuple[TokenId, ...] = ()
    top_logprobs: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """Tokens that are final, and what became of drafts since the last commit."""

    position: Position
    tokens: tuple[TokenId, ...]
    accepted: tuple[bool, ...] = ()
    """Whether each of `tokens` was an accepted draft; empty when none was."""
    num_judged: int = 0
    num_accepted: int = 0
    num_late: int = 0
    num_stale: int = 0
    queue_ns: int = 0
    verify_ns: int = 0
    num_rows: int = 0
    logprobs: tuple[TokenLogprobs, ...] = ()
    finish: FinishReason | None = None
    row_price_ns: int = 0
    num_steps: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """The verifier is going away."""

    deadline_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """The session or the stream ends with an error."""

    reason: str
    message: str
    retryable: bool
    retry_after_ms: int = 0
    length: int = 0


EdgeMessage = Open | Resume | Proposal | Close
"""What an edge sends."""

CloudMessage = Opened | Commit | Drain | Failure
"""What a verifier sends."""
