"""What a generation gives: pieces while it runs, a result when it ends."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from paceline.errors import PacelineError
from paceline.messages import TokenLogprobs
from paceline.tokens import Position, TokenId


class EndReason(StrEnum):
    """Why a text ended."""

    STOP = "stop"
    """The target drew a stop token, or the text reached a stop string."""

    LENGTH = "length"
    """`max_tokens` or the context is used up."""

    CANCELLED = "cancelled"
    """The caller left early."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """One committed token and the text that became readable with it."""

    text: str
    """Empty while a character is incomplete, or for tokens without text such as the end of the text."""

    token_ids: tuple[TokenId, ...]
    """The token; empty only for a last piece that flushes an incomplete character."""

    accepted: bool
    """It had been drafted; else the target drew it by itself."""

    position: Position
    """Where the token stands over prompt and output."""

    logprobs: TokenLogprobs | None = None
    """The target's, if they were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What a generation cost and what drafting brought. Zero where nothing was measured."""

    duration_s: float = 0.0
    """From the start to the last token, or to now."""
    time_to_first_token_s: float = 0.0
    committed: int = 0
    """Tokens of output, including any that lay behind a stop string."""
    drafted: int = 0
    """Tokens sent, each once per stream that sent it."""
    judged: int = 0
    """Drafted tokens that the target compared."""
    accepted: int = 0
    late: int = 0
    """Drafted tokens that arrived after the same token had been committed."""
    stale: int = 0
    """Drafted tokens dropped because they contradict the committed text."""
    unsent: int = 0
    """Guesses dropped before they were sent."""
    steps: int = 0
    """Steps of the target, prefill not counted."""
    payload_bytes_up: int = 0
    """Serialised messages to the verifier, without what gRPC, TLS and TCP add."""
    payload_bytes_down: int = 0
    proposal_bytes: int = 0
    """The part of `payload_bytes_up` that carried drafted tokens."""
    rtt_s: float = 0.0
    """Round trip to the verifier in use: the median of the recent ones, measured about once a second."""
    verifier_step_s: float = 0.0
    """Mean time of the target's steps that served this generation."""
    reconnects: int = 0
    """Streams after the first."""
    drafting_s: float = 0.0
    """Time the drafter worked."""
    drafting_tokens: int = 0
    """Tokens the drafter gave, sent or not."""
    proposals: int = 0
    """Proposals that carried drafted tokens."""
    answers: int = 0
    """How often commits settled all that was in flight; not counted where a tree is streamed."""
    prepared: int = 0
    """After how many of these the next proposal was there at once."""

    @property
    def tokens_per_s(self) -> float:
        """Committed tokens per second, from the start."""
        return _ratio(self.committed, self.duration_s)

    @property
    def acceptance_rate(self) -> float:
        """Accepted / drafted."""
        return _ratio(self.accepted, self.drafted)

    @property
    def acceptance_probability(self) -> float:
        """Accepted / judged."""
        return _ratio(self.accepted, self.judged)

    @property
    def steps_saved(self) -> int:
        """Steps the target did not have to make: plain decoding takes one per token."""
        return max(0, self.committed - self.steps)

    @property
    def bytes_per_drafted_token(self) -> float:
        """Payload of proposals per drafted token."""
        return _ratio(self.proposal_bytes, self.drafted)

    @property
    def bytes_per_committed_token(self) -> float:
        """Payload of both directions per committed token."""
        return _ratio(self.payload_bytes_up + self.payload_bytes_down, self.committed)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationResult:
    """A finished generation."""

    text: str
    """The answer, without the stop string that ended it."""
    token_ids: tuple[TokenId, ...]
    """The committed tokens, up to the one that completed a stop string."""
    finish_reason: EndReason
    prompt_tokens: int
    seed: int
    """Seed of the noise: the same request with it gives the same text."""
    statistics: Statistics

    @property
    def completion_tokens(self) -> int:
        """Number of `token_ids`."""
        return len(self.token_ids)


class ClientObserver(Protocol):
    """Is told of a client's generations, for metrics; must neither wait nor raise."""

    def generation_started(self) -> None:
        """One began."""
        ...

    def generation_ended(
        self, *, statistics: Statistics, reason: EndReason | None, error: PacelineError | None
    ) -> None:
        """One is over and its streams are put away.

        Args:
            statistics: what it cost.
            reason: why it ended; None if it failed.
            error: why it failed; None as well where that was a bug.
        """
        ...


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
