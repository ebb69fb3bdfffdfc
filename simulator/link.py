"""One direction of a network link, as a rule: arrival time and size in, departure time out. No I/O, no clock.

    enters --> [ queue ] --> [ transmitter: size / bandwidth ] --> [ propagation: delay ] --> leaves

Only the transmitter is occupied: a message waits until those before it are sent, takes its own time to be sent, and
then travels while the next is being sent. All flows of a direction share the one queue, first in first out. Half of
the round trip is travelled each way, so `delay_s` is half the RTT. Nothing overtakes: a message that is sent after
the delay was lowered leaves no earlier than those before it.

What is not modelled: headers of IP and TCP (sizes are those of the payload), loss, slow start. A simulated network
adds loss as TCP shows it, as delay.
"""

from dataclasses import dataclass

from paceline.errors import ConfigError

BITS_PER_BYTE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkSettings:
    """One direction of a link.

    Raises:
        ConfigError: a field is out of its range.
    """

    delay_s: float = 0.0
    """Propagation, one way: half the round trip time. At most 60."""

    bandwidth_bps: float | None = None
    """Bits per second of the transmitter; none is unlimited."""

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
        if not 0.0 <= self.delay_s <= 60.0:
            raise ConfigError(f"delay_s: got {self.delay_s}, expected 0 to 60 seconds")
        if self.bandwidth_bps is not None and not self.bandwidth_bps > 0.0:
            raise ConfigError(f"bandwidth_bps: got {self.bandwidth_bps}, expected more than 0")
        if self.queue_bytes < 1:
            raise ConfigError(f"queue_bytes: got {self.queue_bytes}, expected at least 1")
        if self.drop_idle_after_s is not None and not self.drop_idle_after_s > 0.0:
            raise ConfigError(
                f"drop_idle_after_s: got {self.drop_idle_after_s}, expected more than 0"
            )


class Link:
    """The state of one direction: when its transmitter is free, and when the last message leaves."""

    def __init__(self, settings: LinkSettings) -> None:
        self.settings = settings
        """May be replaced at any time; messages that are on their way keep their times."""
        self._free_s = float("-inf")
        self._last_leaves_s = float("-inf")

    def send(self, size_bytes: int, *, now_s: float) -> float:
        """Return when a message that enters now leaves at the far end, in seconds of the caller's clock.

        Calls must come in the order of time.
        """
        assert size_bytes >= 0
        self._free_s = max(self._free_s, now_s) + self._send_time_s(size_bytes)
        self._last_leaves_s = max(self._last_leaves_s, self._free_s + self.settings.delay_s)
        return self._last_leaves_s

    def backlog_s(self, *, now_s: float) -> float:
        """Return how long the transmitter is still busy with what has entered."""
        return max(0.0, self._free_s - now_s)

    def room_in_s(self, *, now_s: float) -> float:
        """Return how long until the queue is below its bound: 0 when a message may enter now."""
        full_s = self._send_time_s(self.settings.queue_bytes)
        return max(0.0, self.backlog_s(now_s=now_s) - full_s)

    def _send_time_s(self, size_bytes: int) -> float:
        bandwidth_bps = self.settings.bandwidth_bps
        return 0.0 if bandwidth_bps is None else size_bytes * BITS_PER_BYTE / bandwidth_bps
