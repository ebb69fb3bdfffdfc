"""Time as a value that is passed in, so that a test or a simulation can bring its own."""

import time
from typing import Protocol


class Clock(Protocol):
    """Tells time since some fixed point."""

    def now_s(self) -> float:
        """Seconds; never goes back."""
        ...


class MonotonicClock:
    """The machine's own."""

    def now_s(self) -> float:
        """Seconds since the machine started, or so."""
        return time.monotonic()

    def now_ns(self) -> int:
        """The same in nanoseconds."""
        return time.monotonic_ns()
