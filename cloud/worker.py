"""What runs on the model thread: caches, samplers, forward passes, draws. Nothing else touches a tensor.

A `Worker` belongs to the one thread that calls it. Values go in and come out, so that the event loop, which owns the
sessions, shares no state with it. A session's cache holds its committed text but for the last token: that one is the
root row of the session's next step. The row that ends a prompt is its first root: the target draws there at once.

An error of one session (its logits are not finite, its rows make the model fail) ends that session only.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from cloud.walk import NO_DRAFTS, ROOT, Ask, Tree, Walk, walk
from paceline.clock import MonotonicClock
from paceline.engine.engine import Engine
from paceline.engine.rows import RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.errors import ConfigError, ModelError, PacelineError
from paceline.messages import TokenLogprobs
from paceline.sampling.coupled import RowDraw, Sampler, draw_rows
from paceline.sampling.logprobs import logprobs
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId

NOISE_AHEAD = 32
"""Positions beyond the next one whose noise is computed while there is nothing else to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How steps run.

    Raises:
        ConfigError: a field is out of its range.
    """

    max_draft_rows: int = 63
    """Most draft rows of one session in a step; 0 to 4096. Cache memory for them and the root is reserved per session."""

    min_step_s: float = 0.0
    """A step takes at least this long, in seconds: emulates a slower target, for demonstrations and tests of timing.
    0, the default, adds nothing; at most 10."""

    def __post_init__(self) -> None:
        """Check every field."""
        if not 0 <= self.max_draft_rows <= 4096:
            raise ConfigError(f"max_draft_rows: got {self.max_draft_rows}, expected 0 to 4096")
        if not 0.0 <= self.min_step_s <= 10.0:
            raise ConfigError(f"min_step_s: got {self.min_step_s}, expected 0 to 10")


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


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step yielded, by session key."""

    served: dict[int, Served]
    failed: dict[int, ModelError]
    step_ns: int
    num_rows: int


@dataclass(slots=True, kw_only=True)
class _Seat:
    """A session as this thread knows it."""

    sequence: CacheSequence
    sampler: Sampler
    root: TokenId
    """The last committed token; its row is not in the cache."""
    length: Position
    """Committed tokens, the root included."""
    num_logprobs: int


class Worker:
    """Carries out what the event loop asks for; see the module for who may call it."""

    def __init__(self, engine: Engine, *, settings: WorkerSettings) -> None:
        self._engine = engine
        self._settings = settings
        self._clock = MonotonicClock()
        self._seats: dict[int, _Seat] = {}
        self._times = StepTimes()

    @property
    def keys(self) -> frozenset[int]:
        """Sessions that hold a cache."""
        return frozenset(self._seats)

    @property
    def times(self) -> StepTimes:
        """Where the time went since the start; a frozen value, safe to read from any thread."""
        return self._times

    def arrange(
        self, closes: Sequence[int], opens: Sequence[OpenOrder]
    ) -> dict[int, PacelineError | None]:
        """Free caches, then make new ones; return for each order None or why it was refused."""
        for key in closes:
            self._close(key)
        return {order.key: self._open(order) for order in opens}

    def close(self) -> None:
        """Free every cache."""
        for key in list(self._seats):
            self._close(key)

    def views(self) -> dict[int, CacheView]:
        """Return the state of every cache."""
        keys = {id(seat.sequence): key for key, seat in self._seats.items()}
        return {
            key: CacheView(
                num_to_prefill=seat.sequence.num_to_prefill,
                waits_for=_leader(seat.sequence, keys),
            )
            for key, seat in self._seats.items()
        }

    @torch.inference_mode()
    def step(self, orders: Sequence[StepOrder], take_over: Sequence[int] = ()) -> StepResult:
        """Run one forward pass over all orders' rows, draw, walk and commit.

        Args:
            orders: at most one per session; none that waits for a prefix or prefills more than it has to.
            take_over: sessions that shall compute a prefix themselves which they have waited for.
        """
        started_ns = self._clock.now_ns()
        for key in take_over:
            self._engine.take_over(self._seats[key].sequence)
        failed: dict[int, ModelError] = {}
        logits = self._forward(orders, failed) if orders else {}
        forwarded_ns = self._clock.now_ns()
        roots = [order for order in orders if len(logits.get(order.key, ()))]
        served, sampling_ns = self._verify(roots, logits, failed)
        walked_ns = self._clock.now_ns()
        for order in roots:
            self._commit(order, served.get(order.key))
        committed_ns = self._clock.now_ns()
        padding_s = self._settings.min_step_s - (committed_ns - started_ns) / 1e9
        if orders and padding_s > 0.0:
            time.sleep(padding_s)
        ended_ns = self._clock.now_ns()
        num_rows = sum(order.num_prefill or 1 + len(order.drafts.tokens) for order in orders)
        old = self._times
        self._times = StepTimes(
            num_steps=old.num_steps + (1 if orders else 0),
            num_rows=old.num_rows + num_rows,
            num_prefill_rows=old.num_prefill_rows + sum(order.num_prefill for order in orders),
            forward_ns=old.forward_ns + forwarded_ns - started_ns,
            sampling_ns=old.sampling_ns + sampling_ns,
            walk_ns=old.walk_ns + walked_ns - forwarded_ns - sampling_ns,
            commit_ns=old.commit_ns + committed_ns - walked_ns,
            padding_ns=old.padding_ns + ended_ns - committed_ns,
            total_ns=old.total_ns + ended_ns - started_ns,
        )
        return StepResult(
            served={
                key: Served(tokens=walked.tokens, logprobs=values)
                for key, (walked, values) in served.items()
            },
            failed=failed,
            step_ns=ended_ns - started_ns,
            num_rows=num_rows,
        )

    @torch.inference_mode()
    def prepare_noise(self) -> bool:
        """Compute the noise of one position that will be needed soon; return whether there was one."""
        for depth in range(NOISE_AHEAD):
            for seat in self._seats.values():
                if seat.sampler.prepare(Position(seat.length + depth)):
                    return True
        return False

    def _open(self, order: OpenOrder) -> PacelineError | None:
        try:
            sampler = Sampler(order.sampling, vocabulary_size=self._engine.identity.vocabulary_size)
            if order.num_output:
                sampler.append_output(order.text[-order.num_output :])
            sequence = self._engine.open(
                # The last token there can be is never a row.
                max_length=order.max_length - 1,
                max_pending=1 + self._settings.max_draft_rows,
                prompt=order.text,
                tenant=order.tenant,
            )
        except PacelineError as error:
            return error
        self._seats[order.key] = _Seat(
            sequence=sequence,
            sampler=sampler,
            root=order.text[-1],
            length=Position(len(order.text)),
            num_logprobs=order.num_logprobs,
        )
        return None

    def _close(self, key: int) -> None:
        seat = self._seats.pop(key, None)
        if seat is not None:  # else it was refused when it opened
            self._engine.close(seat.sequence)

    def _forward(
        self, orders: Sequence[StepOrder], failed: dict[int, ModelError]
    ) -> dict[int, Tensor]:
        """Return the logits [rows, V] of every session; one that makes the model fail is left out and noted."""
        groups = [self._group(order) for order in orders]
        try:
            logits = self._engine.forward(groups)
        except (PacelineError, RuntimeError, MemoryError) as error:
            if len(orders) == 1:
                failed[orders[0].key] = _model_error(error)
                return {}
            # A pass that fails changes nothing: find whose rows it was by running each alone.
            alone: dict[int, Tensor] = {}
            for order in orders:
                alone |= self._forward([order], failed)
            return alone
        return {order.key: logits.of(index) for index, order in enumerate(orders)}

    def _group(self, order: StepOrder) -> RowGroup:
        seat = self._seats[order.key]
        if order.num_prefill:
            return seat.sequence.prefill_group(order.num_prefill)
        return RowGroup(
            sequence=seat.sequence,
            tokens=(seat.root, *order.drafts.tokens),
            # Among pending rows the root is number 0, and offered row i is number i + 1.
            parents=(ROOT, *(parent + 1 for parent in order.drafts.parents)),
        )

    def _verify(
        self, roots: Sequence[StepOrder], logits: dict[int, Tensor], failed: dict[int, ModelError]
    ) -> tuple[dict[int, tuple[Walk, tuple[TokenLogprobs, ...]]], int]:
        """Walk all trees; return the walks with their log probabilities, and the ns spent on sampling."""
        seats = [self._seats[order.key] for order in roots]
        rows = [logits[order.key] for order in roots]
        sampling_ns = 0

        def draw(asks: Sequence[Ask]) -> Sequence[TokenId | ModelError]:
            nonlocal sampling_ns
            begin_ns = self._clock.now_ns()
            draws = [
                RowDraw(
                    sampler=seats[ask.tree].sampler,
                    position=Position(seats[ask.tree].length + len(ask.path)),
                    path=ask.path,
                )
                for ask in asks
            ]
            tokens = draw_rows(torch.stack([rows[ask.tree][ask.row + 1] for ask in asks]), draws)
            sampling_ns += self._clock.now_ns() - begin_ns
            return tokens

        served: dict[int, tuple[Walk, tuple[TokenLogprobs, ...]]] = {}
        walks = walk([order.drafts for order in roots], draw)
        for order, seat, outcome in zip(roots, seats, walks, strict=True):
            if isinstance(outcome, ModelError):
                failed[order.key] = outcome
                continue
            begin_ns = self._clock.now_ns()
            served[order.key] = (outcome, self._logprobs(seat, logits[order.key], outcome))
            sampling_ns += self._clock.now_ns() - begin_ns
        return served, sampling_ns

    def _logprobs(self, seat: _Seat, logits: Tensor, walked: Walk) -> tuple[TokenLogprobs, ...]:
        if seat.num_logprobs == 0:
            return ()
        return tuple(
            logprobs(
                logits[row + 1],
                token,
                num_top=seat.num_logprobs,
                vocabulary_size=self._engine.identity.vocabulary_size,
            )
            for row, token in zip(walked.rows, walked.tokens, strict=True)
        )

    def _commit(
        self, order: StepOrder, served: tuple[Walk, tuple[TokenLogprobs, ...]] | None
    ) -> None:
        """Keep the rows of the walk, free the others; the last token drawn is the next root."""
        seat = self._seats[order.key]
        path = [row + 1 for row in served[0].rows] if served else []
        if not order.num_prefill:  # else its rows are committed already
            self._engine.commit(seat.sequence, path)
        if served is None:
            return
        tokens = served[0].tokens
        seat.root = tokens[-1]
        seat.length = Position(seat.length + len(tokens))
        seat.sampler.append_output(tokens)
        seat.sampler.forget_before(seat.length)


def _leader(sequence: CacheSequence, keys: dict[int, int]) -> int | None:
    """Key of the session that computes what this one waits for; -1 if it is nobody's."""
    if not sequence.waiting_for_prefix:
        return None
    for segment, used in sequence.views:
        if segment.filled < used and segment.writer is not sequence:
            return keys.get(id(segment.writer), -1)
    return None


def _model_error(error: Exception) -> ModelError:
    if isinstance(error, ModelError):
        return error
    return ModelError(f"forward pass: the model failed on this session's rows: {error}")
