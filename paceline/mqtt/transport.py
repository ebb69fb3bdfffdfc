"""What a link stands on: connections to a broker, one after the other.

There are two: `paceline.mqtt.connection` over sockets, and the one of the simulator, in memory. All that a link promises (queues,
newest value wins, subscribing and publishing again) is above this line and the same with both.
"""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Protocol

from paceline.mqtt.lanes import Letter

QOS = 1
"""At least once, for every message: what is not acknowledged in time shows that the broker is stuck."""

MAX_UNACKNOWLEDGED = 8
"""Most messages under way to the broker; it answers for one of them before the next goes out."""

Deliver = Callable[[str, bytes], None]
"""Called with name and payload of each message, in the event loop; must not wait or raise."""


class Conversation(Protocol):
    """One connection, from CONNECT to its end. Whatever waits here is bounded by the broker's time-out."""

    async def subscribe(self, filters: tuple[tuple[str, int], ...]) -> None:
        """Subscribe to filters, each with its quality of service; what is retained comes at once.

        Raises:
            LinkClosed: the connection broke.
            LinkTimeout: the broker does not answer.
            UnauthenticatedError: it refuses one of them.
        """
        ...

    async def publish(self, letter: Letter) -> None:
        """Say something, and wait until the broker has it. Letters go out in the order of the calls.

        Raises:
            LinkClosed: the connection broke.
            LinkTimeout: the broker does not answer.
        """
        ...

    async def until_lost(self) -> None:
        """Wait until the connection breaks; raise why."""
        ...


class Transport(Protocol):
    """Makes connections to one broker."""

    def connect(
        self, *, identifier: str, will: Letter | None, deliver: Deliver
    ) -> AbstractAsyncContextManager[Conversation]:
        """Connect; disconnect in order when the body ends, and without a word, so that the will is published, when it fails.

        Args:
            identifier: of the client; a connection under the same one ends.
            will: what the broker publishes when it loses us.
            deliver: is given what comes.

        Raises:
            LinkClosed: the broker cannot be reached, or the connection broke.
            LinkTimeout: it does not answer.
            UnauthenticatedError: it does not let us in.
        """
        ...
