"""The gRPC server around the service: addresses, TLS, keepalive, health, drain."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud.account import VerifierStatistics
from cloud.admission import SessionSettings
from cloud.core import Core, running_core
from cloud.health import HealthService
from cloud.scheduler import SchedulerSettings
from cloud.tenants import TenantSettings
from cloud.worker import WorkerSettings
from paceline.engine.engine import Engine
from paceline.errors import ConfigError, DrainingError
from paceline.settings import Address
from paceline.v1 import verification_pb2_grpc as pb_grpc

SERVICE_NAME = "paceline.v1.VerificationService"
STOP_GRACE_S = 1.0
"""How long goodbyes may take once all sessions are ended."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsSettings:
    """Certificates, PEM."""

    certificate: bytes
    """The server's, with its chain."""
    key: bytes = field(repr=False)
    client_authority: bytes | None = None
    """Demand client certificates that this authority has signed (mutual TLS)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """How the server listens.

    Raises:
        ConfigError: a field is out of its range, or strangers could reach a server that lets everybody in.
    """

    listen: Address
    """Port 0 takes any free one."""

    advertise: Address | None = None
    """Where edges come back to a session if it is not the address that they dialled, a balancer's for example."""

    tls: TlsSettings | None = None

    has_tokens: bool = False
    """Peers have to show a bearer token."""

    is_insecure_allowed: bool = False
    """Listen beyond this machine without TLS and without asking who calls."""

    ping_interval_s: float = 20.0
    """Silence on a connection after which it is pinged, in seconds; 1 to 3600. Must be shorter than the idle timeout of
    any NAT or balancer in between (60 s is common); shorter costs a few bytes and wakes sleeping radios."""

    ping_timeout_s: float = 10.0
    """A connection whose ping is not answered for this long is dead, in seconds; 1 to 600. A silently dropped flow is
    noticed after at most the sum of both."""

    max_message_bytes: int = 4 << 20
    """Largest message taken, in bytes; 65536 to 64 MiB. The largest honest one is `open`: 5 bytes per token of the context.
    4 MiB is gRPC's own default and hold 800k tokens, so that a prompt too long for any model is still told so by name."""

    drain_s: float = 30.0
    """How long running sessions may go on once the server is asked to stop, in seconds; 0 to 3600."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name, value, low, high in (
            ("ping_interval_s", self.ping_interval_s, 1.0, 3600.0),
            ("ping_timeout_s", self.ping_timeout_s, 1.0, 600.0),
            ("max_message_bytes", self.max_message_bytes, 65536, 64 << 20),
            ("drain_s", self.drain_s, 0.0, 3600.0),
        ):
            if not low <= value <= high:
                raise ConfigError(f"{name}: got {value}, expected {low:g} to {high:g}")
        if self.listen.is_loopback or self.is_insecure_allowed:
            return
        names_peers = self.has_tokens or (self.tls is not None and self.tls.client_authority)
        if self.tls is None or not names_peers:
            raise ConfigError(
                f"--listen: {self.listen} can be reached from other machines, which needs TLS (--tls-cert, --tls-key) and "
                "a way to know who calls (--token-file or --client-ca); or listen on 127.0.0.1, or give --insecure"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSettings:
    """Everything a verifier can be told."""

    server: ServerSettings
    sessions: SessionSettings = SessionSettings()  # noqa: RUF009 - frozen
    scheduler: SchedulerSettings = SchedulerSettings()  # noqa: RUF009 - frozen
    worker: WorkerSettings = WorkerSettings()  # noqa: RUF009 - frozen
    tenants: TenantSettings = TenantSettings()  # noqa: RUF009 - frozen


class Verifier:
    """A verifier that serves; made by `running_verifier`."""

    def __init__(self, *, server: grpc.aio.Server, address: Address, core: Core) -> None:
        self.address = address
        """Where it listens, with the real port."""
        self.registry = core.registry
        self.worker = core.worker
        self.health = HealthService()
        self._core = core
        self._server = server

    @property
    def statistics(self) -> VerifierStatistics:
        """What it has done so far and holds now."""
        return self._core.statistics

    async def drain(self, *, within_s: float, hurry: asyncio.Event) -> None:
        """Refuse new sessions, let running ones finish or move, end the rest, and listen no more.

        Args:
            within_s: how long that may take.
            hurry: set to end at once.
        """
        await self.health.enter_graceful_shutdown()
        await self._core.drain(within_s=within_s, hurry=hurry)
        await self._server.stop(STOP_GRACE_S)


@asynccontextmanager
async def running_verifier(engine: Engine, settings: VerifierSettings) -> AsyncIterator[Verifier]:
    """Serve until left; then end every session and free everything.

    Raises:
        ConfigError: the address cannot be listened at, or a certificate is bad.
    """
    server = grpc.aio.server(
        options=_options(settings),
        # Bounds what all connections together can hold open: sessions, reconnects, health checks.
        maximum_concurrent_rpcs=4 * settings.sessions.max_sessions + 64,
    )
    address = _bind(server, settings.server)
    async with running_core(
        engine,
        sessions=settings.sessions,
        scheduler=settings.scheduler,
        worker=settings.worker,
        tenants=settings.tenants,
        address=str(settings.server.advertise or ""),
    ) as core:
        verifier = Verifier(server=server, address=address, core=core)
        pb_grpc.add_VerificationServiceServicer_to_server(core.service, server)
        health_pb2_grpc.add_HealthServicer_to_server(verifier.health, server)
        try:
            await server.start()
            await verifier.health.set(SERVICE_NAME, health_pb2.HealthCheckResponse.SERVING)
            yield verifier
        finally:
            core.registry.end_all(DrainingError("stream: this verifier has shut down"))
            await server.stop(STOP_GRACE_S)


def _options(settings: VerifierSettings) -> list[tuple[str, int]]:
    """Return gRPC's own settings, each with its reason."""
    server = settings.server
    return [
        # Two servers must not share a port by accident.
        ("grpc.so_reuseport", 0),
        ("grpc.max_receive_message_length", server.max_message_bytes),
        # Pings both ways, with or without a call, so that flows which a NAT has dropped are noticed.
        ("grpc.keepalive_time_ms", int(server.ping_interval_s * 1000)),
        ("grpc.keepalive_timeout_ms", int(server.ping_timeout_s * 1000)),
        # Without this one a ping that is not answered is waited for a whole minute, whatever the line above says.
        ("grpc.http2.ping_timeout_ms", int(server.ping_timeout_s * 1000)),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        # Edges may ping every 5 s; the default of 5 min would end their connections for it.
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 5_000),
        # Bounds calls per connection: one stream per session, and room for health checks and reconnects.
        ("grpc.max_concurrent_streams", 2 * settings.sessions.max_sessions + 16),
    ]


def _bind(server: grpc.aio.Server, settings: ServerSettings) -> Address:
    """Listen, and return where."""
    try:
        if settings.tls is None:
            port = server.add_insecure_port(str(settings.listen))
        else:
            tls = settings.tls
            credentials = grpc.ssl_server_credentials(
                [(tls.key, tls.certificate)],
                root_certificates=tls.client_authority,
                require_client_auth=tls.client_authority is not None,
            )
            port = server.add_secure_port(str(settings.listen), credentials)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(
            f"--listen: cannot listen on {settings.listen}: {error}; is the port in use, or a certificate not right? "
            "Choose another port, or 0 for any"
        ) from error
    return Address(host=settings.listen.host, port=port)
