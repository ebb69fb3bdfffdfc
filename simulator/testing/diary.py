"""What happened in real time: events with the seconds since a test's network began."""

import threading

from paceline.clock import Clock, MonotonicClock
from simulator.virtual.events import Event, EventLog, Value

MOST_EVENTS = 10_000


class Diary:
    """An event log that any thread may write to.

    Args:
        clock: the machine's if None.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._origin_s = self._clock.now_s()
        self._log = EventLog(most=MOST_EVENTS)
        self._lock = threading.Lock()

    @property
    def now_s(self) -> float:
        """Seconds since the start."""
        return self._clock.now_s() - self._origin_s

    @property
    def events(self) -> tuple[Event, ...]:
        """The events, the oldest first."""
        with self._lock:
            return tuple(self._log)

    def tell(self, place: str, kind: str, **fields: Value) -> None:
        """Note what happens."""
        with self._lock:
            self._log.record(self.now_s, place, kind, **fields)
