"""Says how far a stage is: a bar with the time left on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)
from transformers.utils import logging

from paceline.clock import Clock, MonotonicClock


@contextmanager
def without_bars() -> Iterator[None]:
    """Keep transformers from drawing progress bars of its own."""
    enabled = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if enabled:
            logging.enable_progress_bar()


class Progress:
    """Writes to stderr; close it with `end`."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or MonotonicClock()
        self._console = Console(stderr=True, highlight=False)
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._name = ""
        self._total = 0
        self._started_s = 0.0
        self._first = 0
        self._settled = 0
        self._since = 0

    def note(self, text: str) -> None:
        """Say something once."""
        self._console.print(text, soft_wrap=True, markup=False)

    def begin(self, name: str, *, total: int, done: int) -> None:
        """Start a stage that is at `done` of `total` already."""
        self._name, self._total = name, total
        self._first = self._settled = done
        self._since = 0
        self._started_s = self._clock.now_s()
        if sys.stderr.isatty():
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
            )
            self._bar = Bar(*columns, console=self._console, speed_estimate_period=300.0)
            self._task = self._bar.add_task(name, total=total, completed=done)
            self._bar.start()

    def advance(self, count: int) -> None:
        """Some more is done, though it may not last."""
        self._since += count
        if self._bar is not None:
            self._bar.update(self._task, completed=self._settled + self._since)

    def settle(self, done: int, text: str) -> None:
        """So much is done for good; `text` says what that was."""
        self._settled, self._since = done, 0
        took_s = max(1e-9, self._clock.now_s() - self._started_s)
        speed = (done - self._first) / took_s
        left_min = max(0, self._total - done) / max(speed, 1e-9) / 60
        self.note(
            f"{self._name} {done}/{self._total} ({speed:.0f}/s, {left_min:.0f} min left): {text}"
        )
        if self._bar is not None:
            self._bar.update(self._task, completed=done)

    def end(self) -> None:
        """The stage is over."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
