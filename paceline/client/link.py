"""The stream to a verifier, as the rest of the client sees it. Over gRPC: `grpc_link`; within a process: `memory`.

A link carries messages in order in both directions. Every wait is bounded: by `connect_s` until it is up, by
`silence_s` from then on.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

from paceline.messages import CloudMessage, EdgeMessage, Limits, ModelIdentity
from paceline.settings import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierInfo:
    """What a verifier serves, and how far away it is."""

    address: Address
    target: ModelIdentity
    limits: Limits
    protocol_version: int
    rtt_s: float
    """How long this question took; an upper bound of the round trip, the connection's set-up not included."""


class Link(Protocol):
    """One stream. One task may send while another receives. After any error only `close` is left."""

    @property
    def payload_bytes_up(self) -> int:
        """Bytes of serialised messages sent so far."""
        ...

    @property
    def payload_bytes_down(self) -> int:
        """Bytes of serialised messages received so far."""
        ...

    async def send(self, message: EdgeMessage) -> None:
        """Send a message; waits while the peer takes nothing.

        Raises:
            LinkClosed: the stream is over.
            LinkTimeout: the peer took nothing for too long.
            PacelineError: the verifier ended the stream with a status that says why.
        """
        ...

    async def receive(self) -> CloudMessage:
        """Return the next message.

        Raises:
            LinkClosed: the stream is over, on either side.
            LinkTimeout: the peer said nothing for too long.
            RemoteProtocolError: the message is not what the protocol allows.
            PacelineError: the verifier ended the stream with a status that says why.
        """
        ...

    async def finish(self) -> None:
        """Say that nothing more will be sent; what the peer still says can be received."""
        ...

    async def close(self) -> None:
        """End the stream at once, also while another task sends or receives. Closing twice does nothing."""
        ...


class Connector(Protocol):
    """Makes links."""

    async def connect(self, address: Address) -> Link:
        """Return a new stream to a verifier.

        Raises:
            TransportError: it cannot be reached.
        """
        ...

    async def describe(self, address: Address) -> VerifierInfo:
        """Ask a verifier what it serves, and measure the round trip.

        Raises:
            TransportError: it cannot be reached.
            PacelineError: it refuses, and says why.
        """
        ...

    async def keep_only(self, addresses: Collection[Address]) -> None:
        """Close the connections to other verifiers; streams that are open come to their end first."""
        ...

    async def close(self) -> None:
        """Close every connection."""
        ...
