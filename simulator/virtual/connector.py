"""An edge's way into a simulated network; see `paceline.client.link.Connector`."""

import asyncio
from collections.abc import Collection, Mapping

import grpc
from google.protobuf.message import DecodeError

from paceline.client.link import VerifierInfo
from paceline.client.settings import ConnectionSettings
from paceline.client.status import error_of_status
from paceline.clock import Clock
from paceline.codec import decode_identity, decode_limits, read_description
from paceline.errors import LinkClosed, LinkTimeout, RemoteProtocolError
from paceline.settings import Address
from simulator.virtual.call import VirtualLink
from simulator.virtual.channel import Channel, Path


class VirtualConnector:
    """Makes links over paths.

    Args:
        paths: to each verifier that can be reached at all.
        settings: how to connect.
        clock: of the edge.
    """

    def __init__(
        self, paths: Mapping[Address, Path], *, settings: ConnectionSettings, clock: Clock
    ) -> None:
        self._paths = paths
        self._settings = settings
        self._clock = clock

    async def connect(self, address: Address) -> VirtualLink:
        """See `Connector`."""
        channel = await self._channel(address)
        return VirtualLink(
            channel.call("Verify"),
            address=address,
            silence_s=self._settings.silence_s,
            on_silence=channel.suspect,
        )

    async def describe(self, address: Address) -> VerifierInfo:
        """See `Connector`."""
        channel = await self._channel(address)
        call = channel.call("Describe")
        started_s = self._clock.now_s()
        try:
            async with asyncio.timeout(self._settings.connect_s):
                while call.status is None:
                    await call.at_edge.changed()
        except TimeoutError as error:
            channel.suspect()
            raise LinkTimeout(
                f"{address}: no answer within {self._settings.connect_s:g} s"
            ) from error
        finally:
            call.up.send(0, call.end_verifier)
        code, details = call.status
        if code is not grpc.StatusCode.OK:
            raise error_of_status(code, f"{address}: {details or code.name}")
        try:
            answer = read_description(call.at_edge.take())
        except DecodeError as error:
            raise RemoteProtocolError(f"{address}: got bytes that are no description") from error
        return VerifierInfo(
            address=address,
            target=decode_identity(answer.target),
            limits=decode_limits(answer.limits),
            protocol_version=answer.protocol_version,
            rtt_s=self._clock.now_s() - started_s,
        )

    async def keep_only(self, addresses: Collection[Address]) -> None:
        """Connections cost nothing here and are kept."""

    async def close(self) -> None:
        """Close every connection, in order."""
        for path in self._paths.values():
            path.edge_died()

    async def _channel(self, address: Address) -> Channel:
        path = self._paths.get(address)
        if path is None:
            raise LinkClosed(f"{address}: no way there")
        return await path.connected(address, self._settings)
