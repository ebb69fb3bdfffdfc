"""How busy a verifier was: windows that slide by the time that is passed in."""

import pytest

from cloud.load import NUM_SLICES, LoadWindow


def steps(window: LoadWindow, *, from_s: float, count: int, step_s: float) -> float:
    """So many steps one after the other; returns when the last one ended."""
    for _ in range(count):
        from_s += step_s
        window.add_step(ended_s=from_s, step_s=step_s, row_price_s=0.001)
    return from_s


def test_nothing_has_happened() -> None:
    load = LoadWindow(started_s=100.0).load(now_s=107.0)
    assert (load.step_s, load.queue_s, load.busy, load.row_price_s) == (0.0, 0.0, 0.0, 0.0)


def test_a_verifier_that_just_began_is_as_busy_as_it_was_since_then() -> None:
    window = LoadWindow(started_s=100.4)
    steps(window, from_s=100.4, count=2, step_s=0.05)
    assert window.load(now_s=100.6).busy == pytest.approx(0.5)


def test_means_are_over_the_last_seconds_only() -> None:
    window = LoadWindow(started_s=0.0)
    steps(window, from_s=100.0, count=10, step_s=0.1)
    steps(window, from_s=110.0, count=5, step_s=0.02)
    for queue_s in (0.01, 0.03):
        window.add_served(ended_s=110.2, queue_s=queue_s)
    load = window.load(now_s=111.0)
    assert load.step_s == pytest.approx(0.02)
    assert load.queue_s == pytest.approx(0.02)
    assert load.busy == pytest.approx(0.1 / NUM_SLICES, rel=0.3)


def test_an_idle_verifier_remembers_how_long_its_steps_were_and_nothing_else() -> None:
    window = LoadWindow(started_s=0.0)
    steps(window, from_s=10.0, count=3, step_s=0.1)
    window.add_served(ended_s=10.3, queue_s=1.0)
    load = window.load(now_s=1000.0)
    assert load.step_s == pytest.approx(0.1)
    assert (load.queue_s, load.busy, load.row_price_s) == (0.0, 0.0, 0.0)
    later = LoadWindow(started_s=0.0)
    steps(later, from_s=10.0, count=3, step_s=0.1)
    steps(later, from_s=20.0, count=1, step_s=0.3)  # forgets the first three without being asked
    assert later.load(now_s=30.0).step_s == pytest.approx(0.3)


def test_a_step_longer_than_the_window_is_no_more_than_busy() -> None:
    window = LoadWindow(started_s=0.0)
    window.add_step(ended_s=60.0, step_s=30.0, row_price_s=0.0)
    assert window.load(now_s=60.0).busy == 1.0


def test_memory_is_bounded_by_seconds_not_by_steps() -> None:
    window = LoadWindow(started_s=0.0)
    steps(window, from_s=0.0, count=20_000, step_s=0.001)
    assert len(window._slices) <= NUM_SLICES


def test_the_price_of_a_row_is_the_mean_over_the_steps_of_the_window() -> None:
    window = LoadWindow(started_s=0.0)
    for at_s, row_price_s in ((1.0, 0.5), (11.0, 0.002), (11.5, 0.004)):
        window.add_step(ended_s=at_s, step_s=0.01, row_price_s=row_price_s)
    assert window.load(now_s=12.0).row_price_s == pytest.approx(0.003)
