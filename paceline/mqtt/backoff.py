"""How long to leave a lost broker alone. Pure: randomness is passed in."""

from typing import Protocol


class Generator(Protocol):
    """Draws the jitter; `random.Random` is one."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


class Backoff:
    """Exponential, with full jitter: a fleet whose broker comes back does not come back all at once.

    Args:
        first_s: longest delay before the first attempt, in seconds.
        max_s: longest delay, in seconds.
        generator: draws the jitter.
    """

    def __init__(self, *, first_s: float, max_s: float, generator: Generator) -> None:
        self._first_s = first_s
        self._max_s = max_s
        self._generator = generator
        self._num_failures = 0

    def lasted(self, duration_s: float) -> None:
        """A connection ended after so long. One that hardly lasted is one more failure.

        Otherwise two programs of the same name, which push each other out, would do so many times a second.
        """
        if duration_s >= self._max_s:
            self._num_failures = 0

    def next_s(self) -> float:
        """Return how long to wait before the next attempt, in seconds."""
        # The exponent is bounded so that a long outage does not overflow.
        longest_s = min(self._max_s, self._first_s * 2.0 ** min(self._num_failures, 60))
        self._num_failures += 1
        return longest_s * self._generator.random()
