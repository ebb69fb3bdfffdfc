"""What changes on a link by itself: queueing of other people's packets, capacity, and bursts of loss.

Everything here is a function of a seed and the time, whatever was sent before: two programs on the same seed meet the
same weather, so that they can be compared, and leaving a message out changes nothing for the others. Time 0 is the
start of the link. Memory ends after an epoch of hundreds of correlation times, so that any time can be looked up.

Noise is a sum of squared first-order Gauss-Markov processes (Ornstein-Uhlenbeck): a gamma distribution that is never
negative, with exactly exponential autocorrelation. Two squares make the exponential distribution, whose mean is its
standard deviation: what the waiting time in a queue looks like (M/M/1), and what pings show: over 595 runs on a moving
Starlink dish the mean was 11.3 ms above the best and the standard deviation 9.7 ms.
"""

import math
from bisect import bisect_right

import numpy as np
from numpy.random import Generator, default_rng

STEPS_PER_CORRELATION = 16
"""Values are made this often and interpolated between."""

EPOCH_STEPS = 4096
EPOCH_CYCLES = 64
"""An epoch of bursts is this many times the mean time from one to the next."""

CHUNK_STEPS = 128
MAX_EPOCHS_KEPT = 4

MIN_STEP_S = 1e-4

MAX_POWER = 5.0
"""Of an exponential distribution: its standard deviation is 16 times its mean there."""


class Noise:
    """Gamma-distributed noise with mean 1, variance 2 / num_squares and autocorrelation exp(-lag / correlation_s)."""

    def __init__(self, *, num_squares: int, correlation_s: float, seed: tuple[int, ...]) -> None:
        """Prepare the noise; nothing is drawn before it is asked for.

        Args:
            num_squares: how many squared processes are added; 2 is the exponential distribution.
            correlation_s: when the autocorrelation has fallen to 1 / e.
            seed: non-negative numbers that name this noise.
        """
        self.step_s = max(correlation_s / STEPS_PER_CORRELATION, MIN_STEP_S)
        self._num_squares = num_squares
        # The square of a process with correlation r has r ** 2, hence the factor 2.
        self._keep = math.exp(-self.step_s / (2.0 * correlation_s))
        self._seed = seed
        self._epochs: dict[int, _Epoch] = {}

    def at(self, now_s: float) -> float:
        """Return the value at a time; before 0 it is that at 0."""
        index, part = divmod(max(0.0, now_s) / self.step_s, 1.0)
        value = self.step(int(index))
        if part == 0.0:
            return value
        return value + part * (self.step(int(index) + 1) - value)

    def step(self, index: int) -> float:
        """Return the value at index * step_s, index >= 0."""
        epoch_index, offset = divmod(index, EPOCH_STEPS)
        epoch = self._epochs.get(epoch_index)
        if epoch is None:
            while len(self._epochs) >= MAX_EPOCHS_KEPT:
                del self._epochs[next(iter(self._epochs))]
            epoch = self._epochs[epoch_index] = _Epoch(
                keep=self._keep,
                num_squares=self._num_squares,
                generator=default_rng((*self._seed, epoch_index)),
            )
        return epoch.step(offset)


class _Epoch:
    """The values of one epoch, made in order as far as they are asked for."""

    def __init__(self, *, keep: float, num_squares: int, generator: Generator) -> None:
        self._generator = generator
        self._state = generator.standard_normal(num_squares)
        self._values = [float((self._state * self._state).sum()) / num_squares]
        # n steps on, x is keep^n x plus the sum over the draws d_i of add keep^(n - i) d_i: one cumulative sum of
        # d_i / keep^i, multiplied with keep^n. A chunk is short enough for the powers to stay near 1.
        powers = np.array([[keep**n] for n in range(1, CHUNK_STEPS + 1)])
        self._powers = powers
        self._weights = math.sqrt(1.0 - keep * keep) / powers

    def step(self, offset: int) -> float:
        while len(self._values) <= offset:
            draws = self._generator.standard_normal((CHUNK_STEPS, len(self._state)))
            states = self._powers * (self._state + np.cumsum(draws * self._weights, axis=0))
            self._state = states[-1]
            self._values.extend(((states * states).sum(axis=1) / len(self._state)).tolist())
        return self._values[offset]


class Bursts:
    """When the link loses everything: two states in continuous time (Gilbert 1960), with exponential durations."""

    def __init__(self, *, rate: float, burst_s: float, seed: tuple[int, ...]) -> None:
        """Prepare bursts; nothing is drawn before it is asked for.

        Args:
            rate: share of the time in which everything is lost, 0 < rate < 1.
            burst_s: mean length of a burst, more than 0.
            seed: non-negative numbers that name these bursts.
        """
        self._rate = rate
        self._burst_s = burst_s
        self._pause_s = burst_s * (1.0 - rate) / rate
        self._epoch_s = EPOCH_CYCLES * (burst_s + self._pause_s)
        self._seed = seed
        self._epochs: dict[int, tuple[bool, list[float]]] = {}

    def covers(self, now_s: float) -> bool:
        """Return whether what is sent now is lost."""
        index, offset_s = divmod(max(0.0, now_s), self._epoch_s)
        starts_lossy, changes_s = self._epoch(int(index))
        return starts_lossy != (bisect_right(changes_s, offset_s) % 2 == 1)

    def _epoch(self, index: int) -> tuple[bool, list[float]]:
        """Return whether an epoch starts in a burst, and when that changes."""
        if index not in self._epochs:
            while len(self._epochs) >= MAX_EPOCHS_KEPT:
                del self._epochs[next(iter(self._epochs))]
            self._epochs[index] = self._draw(default_rng((*self._seed, index)))
        return self._epochs[index]

    def _draw(self, generator: Generator) -> tuple[bool, list[float]]:
        # Every epoch starts as the long run is, so that the rate holds at every time.
        starts_lossy = bool(generator.random() < self._rate)
        first, second = (
            (self._burst_s, self._pause_s) if starts_lossy else (self._pause_s, self._burst_s)
        )
        parts: list[np.ndarray[tuple[int], np.dtype[np.float64]]] = []
        total_s = 0.0
        while total_s < self._epoch_s:
            durations = generator.standard_exponential(2 * EPOCH_CYCLES)
            durations[0::2] *= first
            durations[1::2] *= second
            parts.append(durations)
            total_s += float(durations.sum())
        return starts_lossy, np.cumsum(np.concatenate(parts)).tolist()


def split_jitter(mean_s: float, stddev_s: float) -> tuple[float, float]:
    """Return the mean delays of two independent exponential distributions, the larger first, for a sum's mean and deviation.

    a + b = mean and a^2 + b^2 = stddev^2. A sum has stddev <= mean <= sqrt(2) * stddev; outside of it the mean is kept.
    """
    if mean_s <= 0.0:
        return 0.0, 0.0
    half_difference_s = math.sqrt(max(0.0, 2.0 * stddev_s**2 - mean_s**2)) / 2.0
    larger_s = min(mean_s, mean_s / 2.0 + half_difference_s)
    return larger_s, mean_s - larger_s


def tail_power(stddev_by_mean: float) -> float:
    """Return the power of an exponential distribution whose standard deviation is that many times its mean.

    1 up to a ratio of 1; above, the tail is heavier (a Weibull distribution of shape 1 / power). At most MAX_POWER.
    """
    low, high = 1.0, MAX_POWER
    for _ in range(40):
        middle = (low + high) / 2.0
        # With E exponential of mean 1, E^c has the mean gamma(1 + c) and the mean square gamma(1 + 2 c).
        ratio = math.sqrt(math.gamma(1.0 + 2.0 * middle) / math.gamma(1.0 + middle) ** 2 - 1.0)
        low, high = (middle, high) if ratio < stddev_by_mean else (low, middle)
    return low
