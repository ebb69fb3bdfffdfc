"""What stands for the engine in a simulated verifier: seats instead of caches, a target that draws, steps that cost time."""

from collections.abc import Sequence
from dataclasses import dataclass

from cloud.orders import (
    CacheView,
    OpenOrder,
    PrefixCounts,
    Served,
    StepOrder,
    StepResult,
    StepTimes,
)
from cloud.walk import Ask, walk
from paceline.engine.rows import MemoryStats, StepSplit
from paceline.errors import InvalidRequestError, ModelError, OverloadedError, PacelineError
from paceline.tokens import TokenId
from simulator.cost import Spread, StepCost
from simulator.virtual.events import Tell
from simulator.virtual.machine import Occupation
from simulator.virtual.metering import Fill, StepLimits, StepMeter
from simulator.virtual.target import ToyTarget

NO_MEMORY = MemoryStats(reserved=0, used=0, shared=0, budget=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """A simulated target's machine.

    `paceline calibrate` measures `cost` and `spread` on a real one.
    """

    cost: StepCost = StepCost(fixed_s=0.02, per_row_s=0.0005)  # noqa: RUF009 - frozen
    spread: Spread = Spread()  # noqa: RUF009 - frozen
    max_context_tokens: int = 1_000_000
    """Memory, in tokens of prompt and output reserved by all sessions together."""
    min_step_s: float = 0.0
    """A step takes at least so long, as `paceline cloud --min-step` has it."""
    between_s: float = 0.0
    """What the program takes between two steps, which is not in the time that it tells of a step."""
    rested_s: float = 0.0
    """What a step takes longer after a pause."""

    def meter(self, occupation: Occupation, *, seed: int, tell: Tell | None = None) -> StepMeter:
        """Return what charges the steps of a model; see `StepMeter`."""
        return StepMeter(
            cost=self.cost,
            spread=self.spread,
            occupation=occupation,
            seed=seed,
            limits=StepLimits(
                least_s=self.min_step_s, between_s=self.between_s, rested_s=self.rested_s
            ),
            tell=tell,
        )


@dataclass(slots=True, kw_only=True)
class _Seat:
    """A session as the model knows it."""

    text: list[TokenId]
    num_to_prefill: int
    reserved: int


class SimulatedModel:
    """A `cloud.stepper.StepModel`.

    Args:
        target: draws.
        settings: what steps cost.
        occupation: told how long they take.
        seed: of the scatter of step times.
        tell: told of every step, if anybody wants to know.
    """

    def __init__(
        self,
        target: ToyTarget,
        *,
        settings: ModelSettings,
        occupation: Occupation,
        seed: int,
        tell: Tell | None = None,
    ) -> None:
        self._target = target
        self._settings = settings
        self._meter = settings.meter(occupation, seed=seed, tell=tell)
        self._seats: dict[int, _Seat] = {}
        self._num_reserved = 0

    @property
    def keys(self) -> frozenset[int]:
        """See `StepModel`."""
        return frozenset(self._seats)

    @property
    def times(self) -> StepTimes:
        """See `StepModel`."""
        return self._meter.times

    @property
    def memory(self) -> MemoryStats:
        """See `StepModel`; in tokens."""
        return MemoryStats(
            reserved=self._num_reserved,
            used=sum(len(seat.text) for seat in self._seats.values()),
            shared=0,
            budget=self._settings.max_context_tokens,
        )

    @property
    def prefix(self) -> PrefixCounts:
        """See `StepModel`: no prefix is shared here."""
        return PrefixCounts()

    @property
    def engine_split(self) -> StepSplit:
        """See `StepModel`."""
        return StepSplit()

    def arrange(
        self, closes: Sequence[int], opens: Sequence[OpenOrder]
    ) -> dict[int, PacelineError | None]:
        """See `StepModel`."""
        for key in closes:
            seat = self._seats.pop(key, None)
            self._num_reserved -= seat.reserved if seat else 0
        return {order.key: self._open(order) for order in opens}

    def views(self) -> dict[int, CacheView]:
        """See `StepModel`."""
        return {
            key: CacheView(num_to_prefill=seat.num_to_prefill, waits_for=None)
            for key, seat in self._seats.items()
        }

    def step(self, orders: Sequence[StepOrder], take_over: Sequence[int] = ()) -> StepResult:
        """See `StepModel`."""
        assert not take_over, "nobody waits for a prefix"
        step_ns, num_rows = self._meter.charge(orders, self._fills(orders))
        served = self._verify(orders)
        return StepResult(served=served, failed={}, step_ns=step_ns, num_rows=num_rows)

    def prepare_noise(self) -> bool:
        """See `StepModel`: a draw costs nothing here."""
        return False

    def _fills(self, orders: Sequence[StepOrder]) -> dict[int, Fill]:
        seats = {order.key: self._seats[order.key] for order in orders}
        return {
            key: Fill(length=len(seat.text), num_to_prefill=seat.num_to_prefill)
            for key, seat in seats.items()
        }

    def _open(self, order: OpenOrder) -> PacelineError | None:
        if order.num_logprobs:
            return InvalidRequestError(
                f"open.num_logprobs: got {order.num_logprobs}, expected 0: a simulated target has none"
            )
        if self._num_reserved + order.max_length > self._settings.max_context_tokens:
            return OverloadedError(
                f"open: {order.max_length} tokens do not fit beside {self._num_reserved} reserved ones; try again later"
            )
        self._num_reserved += order.max_length
        self._seats[order.key] = _Seat(
            text=list(order.text),
            num_to_prefill=len(order.text),
            reserved=order.max_length,
        )
        return None

    def _verify(self, orders: Sequence[StepOrder]) -> dict[int, Served]:
        """Return what the target draws for every session whose prompt is complete."""
        roots: list[StepOrder] = []
        for order in orders:
            seat = self._seats[order.key]
            assert order.num_prefill <= seat.num_to_prefill, order
            assert order.num_prefill or not seat.num_to_prefill, order
            seat.num_to_prefill -= order.num_prefill
            if not seat.num_to_prefill:
                roots.append(order)
        texts = [self._seats[order.key].text for order in roots]

        def draw(asks: Sequence[Ask]) -> Sequence[TokenId | ModelError]:
            return [self._target.draw(texts[ask.tree], ask.path) for ask in asks]

        served: dict[int, Served] = {}
        for order, text, walked in zip(
            roots, texts, walk([order.drafts for order in roots], draw), strict=True
        ):
            assert not isinstance(walked, ModelError)
            text.extend(walked.tokens)
            served[order.key] = Served(tokens=walked.tokens, logprobs=())
        return served
