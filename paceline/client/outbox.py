"""What waits to be sent on a stream."""

import asyncio
from collections import deque

from paceline.messages import Close, EdgeMessage, Proposal


class Outbox:
    """A queue with one writer task. Bounded by the window: every proposal but the last has nodes in flight.

    An acknowledgement that was not sent yet is replaced by what follows it, which acknowledges more. After `Close`
    nothing is taken any more: it was decided before the end and carried out after it.
    """

    def __init__(self) -> None:
        self._messages: deque[EdgeMessage] = deque()
        self._is_closed = False
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """Messages that wait."""
        return len(self._messages)

    def post(self, message: EdgeMessage) -> None:
        """Add a message."""
        last = self._messages[-1] if self._messages else None
        if isinstance(last, Close):
            return
        if isinstance(last, Proposal) and not last.tokens:
            self._messages.pop()
        self._messages.append(message)
        self._changed.set()

    def clear(self) -> None:
        """Forget what waits: it was meant for a stream that is gone."""
        self._messages.clear()

    def close(self) -> None:
        """Let `take` return None once everything is taken."""
        self._is_closed = True
        self._changed.set()

    async def take(self) -> EdgeMessage | None:
        """Return the next message, or None when there will be no more."""
        while not self._messages:
            if self._is_closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        return self._messages.popleft()
