"""What changes on a link by itself: distribution and memory, with the chance of a false alarm beside each bound.

Bounds are 6 standard errors of the estimate, which a normal distribution leaves with probability 2e-9; the seeds are
fixed, so a test that passes does so always. They matter when the generator or the code changes.
"""

import math
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from simulator.weather import EPOCH_STEPS, Bursts, Noise, split_jitter

SIGMAS = 6.0
CORRELATION_S = 0.16  # 16 steps of 10 ms


def noise(num_squares: int = 2, seed: int = 1) -> Noise:
    return Noise(num_squares=num_squares, correlation_s=CORRELATION_S, seed=(seed,))


@pytest.mark.slow
@pytest.mark.parametrize("num_squares", [2, 4])
def test_noise_has_the_moments_and_memory_it_promises(num_squares: int) -> None:
    process = noise(num_squares)
    count = 50 * EPOCH_STEPS
    values = [process.step(index) for index in range(count)]
    mean = sum(values) / count
    variance = 2.0 / num_squares
    # Correlated samples are worth fewer: N (1 - r) / (1 + r) with r = exp(-1 / 16), of one step.
    step_correlation = math.exp(-1.0 / 16.0)
    worth = count * (1 - step_correlation) / (1 + step_correlation)
    assert abs(mean - 1.0) < SIGMAS * math.sqrt(variance / worth)
    found = sum((value - 1.0) ** 2 for value in values) / count
    # The variance of a gamma distribution's square: kurtosis 3 + 6 / shape, shape = num_squares / 2.
    kurtosis = 3.0 + 12.0 / num_squares
    spread = variance * math.sqrt((kurtosis - 1.0) / worth)
    assert abs(found - variance) < SIGMAS * spread
    for lag in (4, 16, 32):
        pairs = sum((values[i] - 1.0) * (values[i + lag] - 1.0) for i in range(count - lag)) / (
            count - lag
        )
        assert abs(pairs / variance - math.exp(-lag / 16.0)) < SIGMAS * math.sqrt(
            (kurtosis - 1.0) / worth
        )


@pytest.mark.slow
def test_two_squares_make_an_exponential_distribution() -> None:
    # Values 8 correlation times apart are independent (correlation 3e-4): Kolmogorov-Smirnov, alpha 1e-6.
    process = noise(seed=5)
    values = sorted(process.step(index * 128) for index in range(2000))
    distance = max(
        max(abs((i + 1) / 2000 - cdf), abs(i / 2000 - cdf))
        for i, value in enumerate(values)
        for cdf in (1.0 - math.exp(-value),)
    )
    assert distance < math.sqrt(-math.log(1e-6 / 2) / (2 * 2000))


@pytest.mark.slow
@settings(max_examples=25)
@given(times_s=st.lists(st.floats(min_value=0.0, max_value=1e5), min_size=1, max_size=20))
def test_noise_is_a_function_of_the_time_whatever_was_asked_before(times_s: list[float]) -> None:
    asked, fresh = noise(), noise()
    values = {time_s: asked.at(time_s) for time_s in times_s}
    assert all(value >= 0.0 for value in values.values())
    last = times_s[-1]
    assert fresh.at(last) == values[last]


def test_another_seed_makes_other_noise() -> None:
    assert noise(seed=1).at(1.0) != noise(seed=2).at(1.0)


def test_noise_goes_steadily_from_one_value_to_the_next() -> None:
    process = noise()
    low, high = process.step(3), process.step(4)
    assert process.at(3.25 * process.step_s) == pytest.approx(low + 0.25 * (high - low))
    assert process.at(-1.0) == process.step(0)


@pytest.mark.slow
def test_weather_is_the_same_in_another_process() -> None:
    program = (
        "from simulator.weather import Bursts, Noise\n"
        "n = Noise(num_squares=2, correlation_s=0.1, seed=(7, 0))\n"
        "b = Bursts(rate=0.3, burst_s=0.05, seed=(7, 1))\n"
        "print([n.at(t / 7) for t in range(20)], [b.covers(t / 7) for t in range(20)])"
    )
    told = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={"PYTHONHASHSEED": hashseed},
            capture_output=True,
            text=True,
            check=True,
            timeout=60,
        ).stdout
        for hashseed in ("1", "2")
    }
    assert len(told) == 1


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "burst_s"), [(0.02, 0.05), (0.4, 0.5)])
def test_bursts_have_the_share_and_the_length_they_promise(rate: float, burst_s: float) -> None:
    bursts = Bursts(rate=rate, burst_s=burst_s, seed=(3,))
    step_s = burst_s / 20.0
    cycle_s = burst_s / rate
    num_cycles = 1500
    count = int(num_cycles * cycle_s / step_s)
    covered = [bursts.covers(index * step_s) for index in range(count)]
    num_bursts = sum(
        now and not before for before, now in zip([False, *covered], covered, strict=False)
    )
    share, length_s = sum(covered) / count, sum(covered) * step_s / num_bursts
    # A burst's length is exponential: relative error 1 / sqrt(n) of its mean; of the share, sqrt(2 / n) at most.
    assert abs(share / rate - 1.0) < SIGMAS * math.sqrt(2.0 / num_cycles)
    # Looked at every 20th of a burst, pauses shorter than that join two, and bursts shorter are missed: 1 / 20 each.
    assert abs(length_s / burst_s - 1.0) < 0.1 + SIGMAS * math.sqrt(1.0 / num_bursts)


@given(
    mean_s=st.floats(min_value=1e-6, max_value=10.0), ratio=st.floats(min_value=0.5, max_value=1.0)
)
def test_jitter_of_two_ways_has_mean_and_deviation_of_the_round_trip(
    mean_s: float, ratio: float
) -> None:
    stddev_s = mean_s * (ratio * (1.0 - math.sqrt(0.5)) + math.sqrt(0.5))
    first_s, second_s = split_jitter(mean_s, stddev_s)
    assert first_s + second_s == pytest.approx(mean_s)
    assert math.hypot(first_s, second_s) == pytest.approx(stddev_s, rel=1e-6)
    assert first_s >= second_s >= -1e-12 * mean_s


def test_jitter_that_two_ways_cannot_have_keeps_its_mean() -> None:
    assert split_jitter(1.0, 5.0) == (1.0, 0.0)
    assert split_jitter(1.0, 0.1) == (0.5, 0.5)
    assert split_jitter(0.0, 0.1) == (0.0, 0.0)
