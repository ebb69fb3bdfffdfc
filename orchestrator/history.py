"""The history beside the event loop: a bounded buffer in, one thread that writes and reads.

When the disk is slower than the fleet, the oldest rows that wait are shed and counted. A write that fails is counted and told at a
bounded rate; the orchestrator goes on without it.
"""

import asyncio
import contextlib
import logging
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from orchestrator.history_file import Decision, EdgePoint, HistoryBounds, HistoryFile, Sample

log = logging.getLogger(__name__)

MAX_WAITING = 50_000
"""Rows that wait to be written; about two minutes of 2,000 edges."""

MAX_ROWS_PER_WRITE = 5_000
MAX_POINTS = 600
"""Points of one chart, more than its pixels can tell apart."""

TELL_EVERY = 60
"""One of so many failed writes is told in the log."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryStatistics:
    """What became of the rows."""

    num_written: int
    num_shed: int
    """Never written, because too many waited."""
    num_failed: int
    """Not written, because the file could not be."""
    num_waiting: int


class FileThread(Protocol):
    """The one thread that the file belongs to; a simulation brings its own."""

    async def run(self, function: Callable[[], _T], /) -> _T:
        """Return what it returns, called there."""
        ...


class _OwnThread:
    """A real one."""

    def __init__(self, executor: ThreadPoolExecutor) -> None:
        self._executor = executor

    async def run(self, function: Callable[[], _T], /) -> _T:
        """See `FileThread`."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


class History:
    """Takes samples without waiting, and answers what was. Made by `open_history`."""

    def __init__(
        self, file: HistoryFile, *, thread: FileThread, max_waiting: int = MAX_WAITING
    ) -> None:
        self._file = file
        self._thread = thread
        self._waiting: deque[Sample] = deque()
        self._max_waiting = max_waiting
        self._filled = asyncio.Event()
        self._num_written = self._num_shed = self._num_failed = self._num_failures = 0

    @property
    def statistics(self) -> HistoryStatistics:
        """How it is doing."""
        return HistoryStatistics(
            num_written=self._num_written,
            num_shed=self._num_shed,
            num_failed=self._num_failed,
            num_waiting=len(self._waiting),
        )

    def record(self, samples: Iterable[Sample]) -> None:
        """Add rows; they are written soon. The oldest are shed when too many wait."""
        self._waiting.extend(samples)
        while len(self._waiting) > self._max_waiting:
            self._waiting.popleft()
            self._num_shed += 1
        if self._waiting:
            self._filled.set()

    async def edge(self, edge: str, *, since_s: float) -> tuple[EdgePoint, ...]:
        """Return the points of an edge's charts from a moment on, oldest first, at most MAX_POINTS."""
        return await self._ask(
            lambda: self._file.edge(edge, since_s=since_s, max_points=MAX_POINTS)
        )

    async def decisions(self, edge: str, *, since_s: float, limit: int) -> tuple[Decision, ...]:
        """Return the newest decisions about an edge, newest first."""
        return await self._ask(
            lambda: self._file.decisions(edge, since_s=since_s, limit=min(limit, MAX_POINTS))
        )

    async def pins(self) -> dict[str, int]:
        """Return the draft lengths that operators have fixed, by edge."""
        return await self._ask(self._file.pins)

    async def pin(self, edge: str, *, draft_length: int | None) -> None:
        """Keep an operator's order, or its end, for the next start; if that fails it still holds until then."""
        try:
            await self._ask(lambda: self._file.pin(edge, draft_length=draft_length))
        except sqlite3.Error as error:
            self._num_failed += 1
            self._tell(error)

    async def write_for_ever(self) -> None:
        """Write what is recorded, until cancelled."""
        while True:
            await self._filled.wait()
            await self.flush()

    async def flush(self) -> None:
        """Write what waits now."""
        self._filled.clear()
        while self._waiting:
            rows = [
                self._waiting.popleft() for _ in range(min(len(self._waiting), MAX_ROWS_PER_WRITE))
            ]
            try:
                await self._ask(lambda rows=rows: self._file.write(rows))  # type: ignore[misc]
            except sqlite3.Error as error:
                self._num_failed += len(rows)
                self._tell(error)
            else:
                self._num_written += len(rows)

    async def _ask(self, call: Callable[[], _T]) -> _T:
        return await self._thread.run(call)

    def _tell(self, error: sqlite3.Error) -> None:
        if self._num_failures % TELL_EVERY == 0:
            log.warning("history cannot be written", extra={"cause": str(error)})
        self._num_failures += 1


@contextlib.asynccontextmanager
async def open_history(
    path: Path | None, *, bounds: HistoryBounds | None = None, max_waiting: int = MAX_WAITING
) -> AsyncIterator[History]:
    """Give a history while the body runs, written to a file or kept in memory; what waits is written in the end.

    Raises:
        ConfigError: the file cannot be used as a history.
    """
    # SQLite's connection belongs to the thread that made it.
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="history") as executor:
        thread = _OwnThread(executor)
        file = await thread.run(lambda: HistoryFile(path, bounds=bounds or HistoryBounds()))
        history = History(file, thread=thread, max_waiting=max_waiting)
        try:
            async with asyncio.TaskGroup() as group:
                writer = group.create_task(history.write_for_ever())
                try:
                    yield history
                finally:
                    writer.cancel()
        finally:
            await history.flush()
            await thread.run(file.close)
