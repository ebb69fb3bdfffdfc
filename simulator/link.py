"""One direction of a network link, as a rule: arrival time and size in, departure time out. No I/O, no clock.

    enters --> [ queue ] --> [ transmitter: size / bandwidth ] --> [ propagation + queueing elsewhere ] --> leaves

Only the transmitter is occupied: a message waits until those before it are sent, takes its own time to be sent, and
then travels while the next is being sent. All flows of a direction share the one queue, first in first out. Half of
the round trip is travelled each way, so `delay_s` is half the RTT. Jitter is what waits in the queues of others; it
has memory. Nothing overtakes here: a message that is sent after the delay has fallen leaves no earlier than those
before it. What loss makes of it, per connection, is in simulator.tcp; simulator.network puts the two together.

What is not modelled: headers of IP and TCP (sizes are those of the payload), slow start and congestion control.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from paceline.errors import ConfigError
from simulator.conditions import EXPONENTIAL_SQUARES, Conditions, Recorded, Steady
from simulator.traces import DeliveryTrace, RttSeries
from simulator.transmitter import FixedRate, Opportunities, Transmitter, VaryingRate
from simulator.weather import Bursts, Noise

MIN_SPREAD, MAX_SPREAD = 0.2, 1.0

# What is random, as its seed says; single losses are simulator.tcp's.
_JITTER, _RATE, _LOSS, _SERIES = range(4)


class OneWay(Protocol):
    """One direction of one connection, as a network in memory and the relay ask it."""

    def leaves_at(self, now_s: float, num_bytes: int) -> float:
        """Return when a message that enters now leaves at the far end, in the same clock.

        Calls come in the order of time, and so do the answers.
        """
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """One direction of a link.

    Raises:
        ConfigError: a field is out of its range, or two exclude each other.
    """

    delay_s: float = 0.0
    """Propagation, one way: half the shortest round trip time. At most 60."""

    jitter_s: float = 0.0
    """Mean and standard deviation of what queues elsewhere add to the delay, exponentially distributed. At most 60."""

    jitter_correlation_s: float = 0.1
    """When the autocorrelation of the jitter has fallen to 1 / e; 1 ms to 60 s."""

    bandwidth_bps: float | None = None
    """Bits per second of the transmitter, on average; none is unlimited."""

    bandwidth_spread: float = 0.0
    """Standard deviation of the bandwidth by its mean: 0, or 0.2 to 1, of a gamma distribution.

    Made of whole numbers of squares, so that the nearest of 1, 0.82, 0.71, 0.63, 0.58, ... is what one gets.
    """

    bandwidth_correlation_s: float = 1.0
    """When the autocorrelation of the bandwidth has fallen to 1 / e; 50 ms to 60 s."""

    trace: DeliveryTrace | None = None
    """When packets can be sent, instead of `bandwidth_bps`."""

    loss: float = 0.0
    """Share of the segments that are lost, 0 to 0.9; TCP makes a delay of it."""

    loss_burst_s: float = 0.0
    """Mean length of the times in which everything is lost; 0 loses single segments, independently."""

    series: RttSeries | None = None
    """Round trips over time, instead of delay, jitter and loss; this direction has half of the shortest."""

    queue_bytes: int = 256 * 1024
    """Most bytes waiting for the transmitter; above it the relay stops reading, as a sender would be slowed.

    A full queue adds queue_bytes * 8 / bandwidth_bps of delay (105 ms at 20 Mbit/s), as a home router's does.
    """

    drop_idle_after_s: float | None = None
    """Forget a flow on which nothing moved for this long, silently, as a NAT does; none never forgets.

    What is sent on a forgotten flow vanishes; RESET_FORGOTTEN_AFTER_S later both ends get a reset.
    """

    def __post_init__(self) -> None:
        """Check every field."""
        for name, low, high in (
            ("delay_s", 0.0, 60.0),
            ("jitter_s", 0.0, 60.0),
            ("jitter_correlation_s", 1e-3, 60.0),
            ("bandwidth_correlation_s", 0.05, 60.0),
            ("loss", 0.0, 0.9),
            ("loss_burst_s", 0.0, 60.0),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise ConfigError(f"{name}: got {value}, expected {low:g} to {high:g}")
        if self.bandwidth_bps is not None and not self.bandwidth_bps > 0.0:
            raise ConfigError(f"bandwidth_bps: got {self.bandwidth_bps}, expected more than 0")
        if self.bandwidth_spread != 0.0 and not MIN_SPREAD <= self.bandwidth_spread <= MAX_SPREAD:
            raise ConfigError(
                f"bandwidth_spread: got {self.bandwidth_spread}, expected 0, or {MIN_SPREAD} to {MAX_SPREAD:g}"
            )
        if self.queue_bytes < 1:
            raise ConfigError(f"queue_bytes: got {self.queue_bytes}, expected at least 1")
        if self.drop_idle_after_s is not None and not self.drop_idle_after_s > 0.0:
            raise ConfigError(
                f"drop_idle_after_s: got {self.drop_idle_after_s}, expected more than 0"
            )
        self._check_exclusive()

    def _check_exclusive(self) -> None:
        if self.trace is not None and (self.bandwidth_bps is not None or self.bandwidth_spread):
            raise ConfigError("trace: got a bandwidth too, expected one of them: the trace has it")
        if self.series is not None and (self.delay_s or self.jitter_s or self.loss):
            raise ConfigError(
                "series: got a delay, jitter or loss too, expected none: the series has them"
            )
        if self.bandwidth_spread and self.bandwidth_bps is None:
            raise ConfigError("bandwidth_spread: got no bandwidth_bps, expected the mean there")


class Passage(NamedTuple):
    """What becomes of a message that is not lost."""

    begins_s: float
    """When its first byte is sent."""
    sent_s: float
    """When its last byte is sent."""
    leaves_s: float


class Link:
    """The state of one direction: when its transmitter is free, and when the last message leaves."""

    def __init__(
        self, settings: LinkSettings, *, seed: tuple[int, ...] = (0,), is_down: bool = False
    ) -> None:
        """Prepare a direction.

        Args:
            settings: its settings.
            seed: non-negative numbers; the same ones make the same weather.
            is_down: it is the way from the server to the clients, which has a weather of its own.
        """
        self._seed = seed
        self._is_down = is_down
        self._free_s = float("-inf")
        self._last_leaves_s = float("-inf")
        self._settings = settings
        self._transmitter = _transmitter(settings, seed=(*seed, _RATE, is_down))
        self._conditions = _conditions(settings, seed=seed, is_down=is_down)

    @property
    def settings(self) -> LinkSettings:
        """May be replaced at any time; messages that are on their way keep their times."""
        return self._settings

    @settings.setter
    def settings(self, settings: LinkSettings) -> None:
        self._settings = settings
        self._transmitter = _transmitter(settings, seed=(*self._seed, _RATE, self._is_down))
        self._conditions = _conditions(settings, seed=self._seed, is_down=self._is_down)

    @property
    def conditions(self) -> Conditions:
        """What a message meets after it was sent."""
        return self._conditions

    def send(self, size_bytes: int, *, now_s: float) -> float:
        """Return when a message that enters now leaves at the far end if nothing of it is lost.

        Calls must come in the order of time.
        """
        return self.enter(size_bytes, now_s=now_s).leaves_s

    def enter(self, size_bytes: int, *, now_s: float) -> Passage:
        """Put a message in and return its times if nothing of it is lost; calls must come in the order of time."""
        assert size_bytes >= 0
        begins_s = sent_s = max(self._free_s, now_s)
        if self._transmitter is not None:
            sent_s = self._transmitter.ends_s(size_bytes, begins_s=begins_s)
        self._free_s = sent_s
        leaves_s = sent_s + self._conditions.travel_s(sent_s)
        self._last_leaves_s = max(self._last_leaves_s, leaves_s)
        return Passage(begins_s, sent_s, self._last_leaves_s)

    def backlog_s(self, *, now_s: float) -> float:
        """Return how long the transmitter is still busy with what has entered."""
        return max(0.0, self._free_s - now_s)

    def room_in_s(self, *, now_s: float) -> float:
        """Return how long until the queue is below its bound: 0 when a message may enter now."""
        if self._transmitter is None or self._free_s <= now_s:
            return 0.0
        full_until_s = self._transmitter.began_s(self._settings.queue_bytes, ends_s=self._free_s)
        return max(0.0, full_until_s - now_s)


def _transmitter(settings: LinkSettings, *, seed: tuple[int, ...]) -> Transmitter | None:
    """Return what the settings say of bandwidth; none is unlimited."""
    if settings.trace is not None:
        return Opportunities(settings.trace)
    if settings.bandwidth_bps is None:
        return None
    if settings.bandwidth_spread == 0.0:
        return FixedRate(settings.bandwidth_bps)
    noise = Noise(
        num_squares=max(1, round(2.0 / settings.bandwidth_spread**2)),
        correlation_s=settings.bandwidth_correlation_s,
        seed=seed,
    )
    return VaryingRate(settings.bandwidth_bps, noise=noise)


def _conditions(settings: LinkSettings, *, seed: tuple[int, ...], is_down: bool) -> Conditions:
    """Return what the settings say of delay, jitter and loss."""
    if settings.series is not None:
        return Recorded(settings.series, seed=(*seed, _SERIES, is_down), is_down=is_down)
    jitter = bursts = None
    if settings.jitter_s > 0.0:
        jitter = Noise(
            num_squares=EXPONENTIAL_SQUARES,
            correlation_s=settings.jitter_correlation_s,
            seed=(*seed, _JITTER, is_down),
        )
    if settings.loss > 0.0 and settings.loss_burst_s > 0.0:
        bursts = Bursts(
            rate=settings.loss, burst_s=settings.loss_burst_s, seed=(*seed, _LOSS, is_down)
        )
    return Steady(
        delay_s=settings.delay_s,
        jitter_s=settings.jitter_s,
        jitter=jitter,
        single_loss=0.0 if bursts is not None else settings.loss,
        bursts=bursts,
    )
