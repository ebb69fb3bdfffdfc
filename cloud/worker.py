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

from cloud.orders import (
    CacheView,
    OpenOrder,
    PrefixCounts,
    Served,
    StepOrder,
    StepResult,
    StepTimes,
)
from cloud.walk import ROOT, Ask, Walk, walk
from paceline.clock import MonotonicClock
from paceline.engine.engine import Engine
from paceline.engine.rows import MemoryStats, RowGroup, StepSplit
from paceline.engine.sequence import CacheSequence
from paceline.errors import ConfigError, ModelError, PacelineError
from paceline.messages import TokenLogprobs
from paceline.sampling.coupled import RowDraw, Sampler, draw_rows
from paceline.sampling.logprobs import logprobs
from paceline.tokens import Position, TokenId

NOISE_AHEAD = 32
"""Positions beyond the next one whose noise is computed while there is nothing else to do."""

MAX_NOISE_BYTES = 256 * 2**20
"""Noise of all sessions together from which on none is computed ahead: 32 positions of 8 sessions of a vocabulary of
262,144, or of 42 of one of 49,152."""


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
        self._memory = engine.memory
        self._prefix = PrefixCounts()

    @property
    def keys(self) -> frozenset[int]:
        """Sessions that hold a cache."""
        return frozenset(self._seats)

    @property
    def times(self) -> StepTimes:
        """Where the time went since the start; a frozen value, safe to read from any thread."""
        return self._times

    @property
    def memory(self) -> MemoryStats:
        """Memory of all caches after the last change; a frozen value, safe to read from any thread."""
        return self._memory

    @property
    def prefix(self) -> PrefixCounts:
        """What sharing prefixes saved since the start; a frozen value, safe to read from any thread."""
        return self._prefix

    @property
    def engine_split(self) -> StepSplit:
        """Where the time of forward passes went since the start; a frozen value, safe to read from any thread."""
        return self._engine.step_split

    def arrange(
        self, closes: Sequence[int], opens: Sequence[OpenOrder]
    ) -> dict[int, PacelineError | None]:
        """Free caches, then make new ones; return for each order None or why it was refused."""
        for key in closes:
            self._close(key)
        answers = {order.key: self._open(order) for order in opens}
        self._memory = self._engine.memory
        return answers

    def close(self) -> None:
        """Free every cache."""
        self.arrange(list(self._seats), [])

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
        num_prefill_rows = sum(order.num_prefill for order in orders)
        num_rows = num_prefill_rows + sum(
            1 + len(order.drafts.tokens) for order in orders if not order.num_prefill
        )
        self._times = self._times.plus(
            StepTimes(
                num_steps=1 if orders else 0,
                num_rows=num_rows,
                num_prefill_rows=num_prefill_rows,
                forward_ns=forwarded_ns - started_ns,
                sampling_ns=sampling_ns,
                walk_ns=walked_ns - forwarded_ns - sampling_ns,
                commit_ns=committed_ns - walked_ns,
                padding_ns=ended_ns - committed_ns,
                total_ns=ended_ns - started_ns,
            )
        )
        self._memory = self._engine.memory
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
        """Compute the noise of one position that will be needed soon; return whether there was one, and room for it."""
        if sum(seat.sampler.num_bytes for seat in self._seats.values()) >= MAX_NOISE_BYTES:
            return False
        for depth in range(NOISE_AHEAD):
            for seat in self._seats.values():
                if seat.sampler.prepare(Position(seat.length + depth)):
                    return True
        return False

    def _open(self, order: OpenOrder) -> PacelineError | None:
        try:
            sampler = Sampler(
                order.sampling,
                vocabulary_size=self._engine.identity.vocabulary_size,
                device=self._engine.device,
            )
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
        if sequence.namespace is not None:
            self._prefix = PrefixCounts(
                num_queried=self._prefix.num_queried + len(order.text),
                num_hit=self._prefix.num_hit + sequence.shared_length,
            )
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
        try:
            logits = self._engine.forward([self._group(order) for order in orders])
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
    # It was this one's own to compute, until another one took it over.
    own = sequence.own_segment
    return keys.get(id(own.writer), -1) if own is not None else -1


def _model_error(error: Exception) -> ModelError:
    if isinstance(error, ModelError):
        return error
    return ModelError(f"forward pass: the model failed on this session's rows: {error}")
