"""How connections are made: TLS, mutual TLS, credentials, keepalive."""

import asyncio
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from harness.certificates import Certificates, make_certificates
from harness.event_loop import run_async
from harness.link_rigs import PeerService, serving
from harness.relay import threaded_relay

from paceline.client import channel
from paceline.client.channel import channel_options
from paceline.client.grpc_link import GrpcConnector, describe
from paceline.client.settings import ConnectionSettings, DraftingSettings
from paceline.errors import ConfigError, LinkClosed, LinkTimeout
from paceline.messages import Commit
from paceline.settings import Address
from paceline.tokens import Position, TokenId
from paceline.v1 import verification_pb2 as pb
from simulator.link import LinkSettings
from simulator.relay import CutMode


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return make_certificates(tmp_path_factory.mktemp("certificates"))


def _credentials(made: Certificates, *, is_mutual: bool = False) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(made.server_key.read_bytes(), made.server.read_bytes())],
        root_certificates=made.authority.read_bytes() if is_mutual else None,
        require_client_auth=is_mutual,
    )


def _described(credentials: grpc.ServerCredentials | None, connection: ConnectionSettings) -> int:
    """Return what `describe` gives: 7, as the rig's service says."""

    async def main() -> int:
        async with serving(PeerService(), credentials=credentials) as address:
            return (await describe(address, connection=connection)).protocol_version

    return run_async(main())


def test_loopback_needs_no_tls() -> None:
    assert _described(None, ConnectionSettings()) == 7


def test_a_certificate_that_is_trusted(made: Certificates) -> None:
    assert _described(_credentials(made), ConnectionSettings(ca_file=made.authority)) == 7


def test_a_certificate_that_is_not_trusted(made: Certificates) -> None:
    with pytest.raises(LinkClosed, match="agree on TLS"):
        _described(_credentials(made), ConnectionSettings(ca_file=made.client))


def test_mutual_tls(made: Certificates) -> None:
    both = ConnectionSettings(
        ca_file=made.authority, cert_file=made.client, key_file=made.client_key
    )
    assert _described(_credentials(made, is_mutual=True), both) == 7
    with pytest.raises(LinkClosed):
        _described(_credentials(made, is_mutual=True), ConnectionSettings(ca_file=made.authority))


def test_tls_is_never_dropped_for_other_machines() -> None:
    # A server without TLS that is not at a loopback address, as far as the client can tell from its name.
    async def main() -> None:
        async with serving(PeerService()) as address:
            elsewhere = Address(host="0.0.0.0", port=address.port)
            with pytest.raises(LinkClosed):
                await describe(elsewhere, connection=ConnectionSettings())
            asked_for = ConnectionSettings(insecure=True)
            assert (await describe(elsewhere, connection=asked_for)).protocol_version == 7

    run_async(main())


def test_the_token_goes_with_every_call_and_is_not_shown() -> None:
    settings = ConnectionSettings(token="a-secret")
    assert "a-secret" not in repr(settings)

    async def main() -> list[str | None]:
        service = PeerService()
        async with serving(service) as address:
            connector = GrpcConnector(settings)
            await connector.describe(address)
            link = await connector.connect(address)
            (await service.peers.get()).end()
            with pytest.raises(LinkClosed):
                await link.receive()
            await connector.close()
        return [metadata.get("authorization") for metadata in service.metadata]

    assert run_async(main()) == ["Bearer a-secret"] * 2


def test_streams_share_a_connection_and_a_broken_one_is_replaced() -> None:
    async def main() -> None:
        connector = GrpcConnector(ConnectionSettings())
        service = PeerService()
        async with serving(service) as address:
            first = await connector.connect(address)
            second = await connector.connect(address)
            assert len(connector._current) == 1
            channel = connector._current[address].channel
        for link in (first, second):
            with pytest.raises(LinkClosed):
                await link.receive()
        with pytest.raises(LinkClosed, match="no connection"):
            await connector.connect(address)
        assert address not in connector._current
        assert channel.get_state() is grpc.ChannelConnectivity.SHUTDOWN
        await connector.close()

    run_async(main())


class SlowService(PeerService):
    """Answers what it serves when the test lets it."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = asyncio.Event()
        self.may_answer = asyncio.Event()

    async def Describe(self, request: Any, context: Any) -> pb.DescribeResponse:  # noqa: N802
        self.asked.set()
        await self.may_answer.wait()
        return await super().Describe(request, context)


def test_a_question_under_way_keeps_its_connection() -> None:
    # Closing the channel would cancel the task that asks, which then ends without a word.
    async def main() -> None:
        connector = GrpcConnector(ConnectionSettings())
        service = SlowService()
        async with serving(service) as address, asyncio.timeout(10.0), asyncio.TaskGroup() as group:
            asking = group.create_task(connector.describe(address))
            await service.asked.wait()
            await connector.keep_only(())
            service.may_answer.set()
            assert (await asking).protocol_version == 7
            await connector.keep_only(())
            assert connector._retired == []
            await connector.close()

    run_async(main())


@pytest.mark.slow
def test_a_flow_that_a_nat_has_forgotten_is_not_used_again() -> None:
    settings = LinkSettings(drop_idle_after_s=0.2)
    commit = Commit(position=Position(1), tokens=(TokenId(2),))

    async def main() -> None:
        service = PeerService()
        connector = GrpcConnector(ConnectionSettings(silence_s=0.6))
        async with serving(service) as address:
            with threaded_relay(address, settings=settings) as relay:
                forgotten = await connector.connect(relay.address)
                await service.peers.get()
                with pytest.raises(LinkTimeout):
                    await forgotten.receive()
                # The old connection still looks alive: no ping has failed yet.
                fresh = await connector.connect(relay.address)
                peer = await service.peers.get()
                await peer.send(commit)
                assert await fresh.receive() == commit
                await connector.close()

    run_async(main())


@pytest.mark.slow
def test_a_link_that_is_a_black_hole_is_noticed_by_pings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "PING_TIMEOUT_MS", 500)

    async def main() -> float:
        service = PeerService()
        connector = GrpcConnector(ConnectionSettings(silence_s=30.0, keepalive_s=0.5))
        async with serving(service) as address:
            with threaded_relay(address) as relay:
                link = await connector.connect(relay.address)
                await service.peers.get()
                relay.cut(CutMode.BLACK_HOLE)
                started_s = time.monotonic()
                with pytest.raises(LinkClosed, match="ping"):
                    await link.receive()
                noticed_s = time.monotonic() - started_s
                await connector.close()
                relay.heal()
        return noticed_s

    # Keepalive and the ping's own time, 1 s together; without the second option gRPC takes a minute.
    assert run_async(main()) < 10.0


def test_no_answer_to_the_handshake_is_a_time_out() -> None:
    async def main() -> None:
        async def mute(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writers.append(writer)
            await reader.read(1)

        writers: list[asyncio.StreamWriter] = []
        listener = await asyncio.start_server(mute, "127.0.0.1", 0)
        async with listener:
            port = listener.sockets[0].getsockname()[1]
            address = Address(host="127.0.0.1", port=port)
            with pytest.raises(LinkTimeout, match=r"within 0\.2 s"):
                await describe(address, connection=ConnectionSettings(connect_s=0.2))
        for writer in writers:
            writer.close()
            await writer.wait_closed()

    run_async(main())


def test_pings_keep_connections_alive_between_streams() -> None:
    options = dict(channel_options(ConnectionSettings(keepalive_s=25.0)))
    assert options["grpc.keepalive_time_ms"] == 25_000
    assert options["grpc.keepalive_permit_without_calls"] == 1
    assert options["grpc.http2.max_pings_without_data"] == 0


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"cert_file": Path("a")}, "cert_file, key_file"),
        ({"token": "caf\u00e9"}, "token: it has"),
        ({"token": "two\nlines"}, "token: it has"),
        ({"connect_s": 0.0}, "connect_s"),
        ({"silence_s": -1.0}, "silence_s"),
        ({"keepalive_s": 0.0}, "keepalive_s"),
    ],
)
def test_connection_settings_out_of_range_are_refused(
    settings: dict[str, object], field: str
) -> None:
    with pytest.raises(ConfigError, match=field):
        ConnectionSettings(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "settings", [{"draft_length": -1}, {"window": 0}, {"tokens_per_message": 0}]
)
def test_drafting_settings_out_of_range_are_refused(settings: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match=next(iter(settings))):
        DraftingSettings(**settings)  # type: ignore[arg-type]


def test_a_certificate_that_is_not_there() -> None:
    with pytest.raises(ConfigError, match="ca_file: cannot read /nowhere"):
        GrpcConnector(ConnectionSettings(ca_file=Path("/nowhere.pem")))
