"""Server-sent events for any number of browsers: each has a short queue, and one that falls behind is dropped.

A dropped browser connects again and gets everything anew, so nothing has to be kept for it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field

from paceline.errors import OverloadedError

MAX_READERS = 64
MAX_WAITING = 8
"""Events that wait for one reader, about as many seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeedStatistics:
    """Who reads."""

    num_readers: int
    num_dropped: int
    """Readers that were too slow."""


@dataclass(slots=True, kw_only=True)
class Reader:
    """One open stream."""

    drop: Callable[[], None]
    """Closes its connection at once; called when it is too slow."""
    waiting: asyncio.Queue[bytes] = field(default_factory=lambda: asyncio.Queue(MAX_WAITING))

    async def events(self) -> AsyncIterator[bytes]:
        """Give event after event, for ever."""
        while True:
            yield await self.waiting.get()


class Feed:
    """Hands every event to every reader without ever waiting for one."""

    def __init__(self) -> None:
        self._readers: list[Reader] = []
        self._num_dropped = 0
        self._has_joined = False

    @property
    def statistics(self) -> FeedStatistics:
        """Who reads."""
        return FeedStatistics(num_readers=len(self._readers), num_dropped=self._num_dropped)

    @property
    def is_read(self) -> bool:
        """Somebody reads, so events are worth making."""
        return bool(self._readers)

    def take_joined(self) -> bool:
        """Say whether somebody has begun to read since this was asked last."""
        joined, self._has_joined = self._has_joined, False
        return joined

    @contextlib.contextmanager
    def reading(self, drop: Callable[[], None]) -> Iterator[Reader]:
        """Read while the body runs.

        Raises:
            OverloadedError: too many read already.
        """
        if len(self._readers) >= MAX_READERS:
            raise OverloadedError(
                f"{MAX_READERS} pages follow the fleet already, which is the limit"
            )
        reader = Reader(drop=drop)
        self._readers.append(reader)
        self._has_joined = True
        try:
            yield reader
        finally:
            if reader in self._readers:
                self._readers.remove(reader)

    def publish(self, event: bytes) -> None:
        """Hand an event to all; whoever is too far behind is dropped and counted."""
        for reader in tuple(self._readers):
            try:
                reader.waiting.put_nowait(event)
            except asyncio.QueueFull:
                self._readers.remove(reader)
                self._num_dropped += 1
                reader.drop()


def sent_event(kind: str, text: str) -> bytes:
    """Return an event as it goes over the wire; the text is one line of JSON."""
    return f"event: {kind}\ndata: {text}\n\n".encode()
