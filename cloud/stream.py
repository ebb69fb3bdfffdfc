"""One stream of an edge, as far as the registry and the stream's own writer share it."""

import asyncio

from cloud.tenants import Peer
from paceline.errors import PacelineError


class Stream:
    """Wakes its writer, and carries how it ends. Belongs to the event loop.

    There is no queue: the writer asks the session for what the stream has not been sent yet, so that an edge which
    does not read costs nothing.
    """

    def __init__(self, *, number: int, peer: Peer) -> None:
        self.number = number
        self.peer = peer
        self.over = asyncio.Event()
        """It ends now."""
        self.error: PacelineError | None = None
        """Why it ends; None if it ends in peace."""
        self.drain_deadline_s: float | None = None
        """When the verifier will end it, by its clock; None while it is not draining."""
        self._changed = asyncio.Event()

    @property
    def is_over(self) -> bool:
        """It ends now."""
        return self.over.is_set()

    def wake(self) -> None:
        """Let the writer look again."""
        self._changed.set()

    def end(self, error: PacelineError | None = None) -> None:
        """End it; the first reason counts."""
        if not self.is_over:
            self.error = error
            self.over.set()
            self._changed.set()

    def drain(self, deadline_s: float) -> None:
        """Tell the edge to move."""
        self.drain_deadline_s = deadline_s
        self._changed.set()

    async def wait(self) -> None:
        """Wait until something may have changed since the last call."""
        await self._changed.wait()
        self._changed.clear()
