"""What goes between the event loop and the model thread: orders one way, results the other, all frozen values."""

from dataclasses import dataclass
from operator import add, attrgetter

from cloud.walk import NO_DRAFTS, Tree
from paceline.errors import ModelError
from paceline.messages import TokenLogprobs
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOrder:
    """Asks for cache and sampler of a session."""

    key: int
    text: tuple[TokenId, ...]
    """Prompt and output so far; at least one token."""
    num_output: int
    """How many of them, at the end, are output: penalties count those only."""
    max_length: int
    """Most tokens of prompt and output together, ever."""
    sampling: SamplingSettings
    num_logprobs: int
    tenant: str
    """Whose prefixes it may share; empty for nobody's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOrder:
    """One session's rows in a step: prefill, or the root with drafts. Prefill that ends the prompt yields a token."""

    key: int
    num_prefill: int = 0
    drafts: Tree = NO_DRAFTS


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheView:
    """What the scheduler must know of a session's cache."""

    num_to_prefill: int
    waits_for: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """What the target drew for one session."""

    tokens: tuple[TokenId, ...]
    logprobs: tuple[TokenLogprobs, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTimes:
    """Where the time of steps went, in ns of the model thread. Sums over steps; subtract two to look at some."""

    num_steps: int = 0
    num_rows: int = 0
    num_prefill_rows: int = 0
    forward_ns: int = 0
    """The model, and choosing cache slots; `Engine.step_split` divides it further."""
    sampling_ns: int = 0
    """Filters, noise that was not ready, draws, log probabilities."""
    walk_ns: int = 0
    """Following the draws through the trees."""
    commit_ns: int = 0
    """Keeping the rows of the accepted path, freeing the others."""
    padding_ns: int = 0
    """Waiting for `min_step_s`."""
    total_ns: int = 0

    def plus(self, other: "StepTimes") -> "StepTimes":
        """Return the sums of both."""
        sums = map(add, _STEP_TIMES(self), _STEP_TIMES(other))
        return StepTimes(**dict(zip(StepTimes.__slots__, sums, strict=True)))


_STEP_TIMES: "attrgetter[tuple[int, ...]]" = attrgetter(*StepTimes.__slots__)


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixCounts:
    """What sharing prefixes saved. Sums over sessions that may share."""

    num_queried: int = 0
    """Tokens of their texts."""
    num_hit: int = 0
    """Of them, those that were in the cache, or are being computed there for another session."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step yielded, by session key."""

    served: dict[int, Served]
    failed: dict[int, ModelError]
    step_ns: int
    num_rows: int
