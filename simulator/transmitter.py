"""How long sending takes: at a fixed rate, at one that changes by itself, and as a recorded trace says. No clock."""

import math
from typing import Protocol

from simulator.traces import OPPORTUNITY_BYTES, DeliveryTrace
from simulator.weather import Noise

BITS_PER_BYTE = 8
SLOWEST = 1e-3
"""A rate that changes never falls below this share of its mean, so that every transfer ends."""


class Transmitter(Protocol):
    """Sends one message after the other; calls come in the order of time."""

    def ends_s(self, num_bytes: int, *, begins_s: float) -> float:
        """Return when a message is sent whose sending may begin at a time, not before the last one was sent."""
        ...

    def began_s(self, num_bytes: int, *, ends_s: float) -> float:
        """Return since when that many bytes are sent until the end of the last message."""
        ...


class FixedRate:
    """The same rate at all times."""

    def __init__(self, rate_bps: float) -> None:
        self._rate_bps = rate_bps

    def ends_s(self, num_bytes: int, *, begins_s: float) -> float:
        """Return the beginning plus size by rate."""
        return begins_s + num_bytes * BITS_PER_BYTE / self._rate_bps

    def began_s(self, num_bytes: int, *, ends_s: float) -> float:
        """Return the end less size by rate."""
        return ends_s - num_bytes * BITS_PER_BYTE / self._rate_bps


class VaryingRate:
    """A gamma-distributed rate with memory, the same from one step of its noise to the next."""

    def __init__(self, rate_bps: float, *, noise: Noise) -> None:
        self._rate_bps = rate_bps
        self._noise = noise

    def ends_s(self, num_bytes: int, *, begins_s: float) -> float:
        """Return when the rate's integral has reached the size."""
        bits = float(num_bytes * BITS_PER_BYTE)
        step = self._step(begins_s)
        now_s = begins_s
        while bits > 0.0:
            rate_bps = self._rate(step)
            step += 1
            room = max(0.0, step * self._noise.step_s - now_s) * rate_bps
            if bits <= room:
                return now_s + bits / rate_bps
            bits -= room
            now_s = step * self._noise.step_s
        return now_s

    def began_s(self, num_bytes: int, *, ends_s: float) -> float:
        """Return the same backwards."""
        bits = float(num_bytes * BITS_PER_BYTE)
        step = self._step(ends_s)
        now_s = ends_s
        while bits > 0.0:
            rate_bps = self._rate(step)
            room = max(0.0, now_s - step * self._noise.step_s) * rate_bps
            if bits <= room or step == 0:
                return now_s - bits / rate_bps
            bits -= room
            now_s = step * self._noise.step_s
            step -= 1
        return now_s

    def _step(self, now_s: float) -> int:
        return max(0, int(now_s / self._noise.step_s))

    def _rate(self, step: int) -> float:
        return self._rate_bps * max(SLOWEST, self._noise.step(step))


class Opportunities:
    """Sends when a recorded trace did; small messages share one opportunity, and what is not used is lost."""

    def __init__(self, trace: DeliveryTrace) -> None:
        self._trace = trace
        self._number = 0
        """Of the opportunity that is being used."""
        self._left_bytes = OPPORTUNITY_BYTES
        """Of that opportunity; 0 when it is full."""

    def ends_s(self, num_bytes: int, *, begins_s: float) -> float:
        """Return when the last byte gets its opportunity."""
        if num_bytes == 0:
            return begins_s
        first = self._trace.first_from(max(0.0, begins_s))
        if first > self._number:
            self._number, self._left_bytes = first, OPPORTUNITY_BYTES
        more = max(0, math.ceil((num_bytes - self._left_bytes) / OPPORTUNITY_BYTES))
        self._number += more
        self._left_bytes += more * OPPORTUNITY_BYTES - num_bytes
        return self._trace.time_s(self._number)

    def began_s(self, num_bytes: int, *, ends_s: float) -> float:
        """Return the time of the opportunity so many bytes before the last one used."""
        del ends_s
        before = math.ceil(num_bytes / OPPORTUNITY_BYTES)
        return self._trace.time_s(max(0, self._number - before))
