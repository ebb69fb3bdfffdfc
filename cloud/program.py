"""The verifier as a process: from options to settings, a loaded model, and serving until a signal."""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import click
import torch

from cloud.account import VerifierStatistics
from cloud.admission import SessionSettings
from cloud.announcing import AnnouncementSettings, announcing
from cloud.metrics import verifier_registry
from cloud.scheduler import RaceDrafting, Schedule, SchedulerSettings
from cloud.server import (
    ServerSettings,
    TlsSettings,
    Verifier,
    VerifierSettings,
    running_verifier,
)
from cloud.tenants import TenantSettings, read_tokens
from cloud.worker import WorkerSettings
from paceline.console import progress
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, resolve
from paceline.engine.rows import EngineSettings
from paceline.errors import ConfigError
from paceline.metrics.serving import METRICS_PATH, serving_metrics
from paceline.mqtt.options import broker_settings
from paceline.settings import Address

log = logging.getLogger(__name__)

LOCAL_NAMESPACE = "local"
"""Whose prefixes peers share that need not say who they are, where only this machine can connect."""
NUM_LOADING_STAGES = 5


def run(options: Mapping[str, Any]) -> None:
    """Serve as the command's options say.

    Raises:
        ConfigError: an option is wrong, or the address is in use; told before weights are loaded.
        ModelError: the model cannot be loaded.
    """
    settings = verifier_settings(options)
    check_port(settings.server.listen)
    operations = operation_settings(options)
    if operations.metrics_listen is not None:
        check_port(operations.metrics_listen, option="--metrics-listen")
    engine = load(options)
    asyncio.run(_serve(engine, settings, operations))


@dataclass(frozen=True, slots=True, kw_only=True)
class OperationSettings:
    """How a verifier is watched and found."""

    metrics_listen: Address | None
    announcement: AnnouncementSettings | None


def operation_settings(options: Mapping[str, Any]) -> OperationSettings:
    """Return what the options say.

    Raises:
        ConfigError: an option is wrong, or does not go with another.
    """
    broker = broker_settings(options)
    if broker is None and options["verifier_id"] is not None:
        raise ConfigError(
            "--verifier-id: got it without --broker, expected both or none: it is the name in the fleet"
        )
    return OperationSettings(
        metrics_listen=options["metrics_listen"],
        announcement=None
        if broker is None
        else AnnouncementSettings(
            broker=broker,
            listen=options["listen"],
            verifier_id=options["verifier_id"],
            advertise=options["advertise"],
        ),
    )


def verifier_settings(options: Mapping[str, Any]) -> VerifierSettings:
    """Return what the options say.

    Raises:
        ConfigError: an option is wrong, or does not go with another.
    """
    listen: Address = options["listen"]
    tokens = _tokens(options)
    return VerifierSettings(
        server=ServerSettings(
            listen=listen,
            advertise=options["advertise"],
            tls=_tls(options),
            has_tokens=bool(tokens),
            is_insecure_allowed=options["insecure"],
            drain_s=options["drain"],
        ),
        sessions=SessionSettings(
            window=options["window"],
            max_lead=options["max_lead"],
            lease_s=options["lease"],
            max_sessions=options["max_sessions"],
            max_sessions_per_tenant=options["max_sessions_per_tenant"] or options["max_sessions"],
        ),
        scheduler=SchedulerSettings(
            row_budget=options["row_budget"],
            race=options["race"],
            patience_s=options["race_patience"],
            schedule=Schedule(options["schedule"]),
            max_slowdown=options["max_slowdown"],
            race_drafts=RaceDrafting(options["race_drafts"]),
        ),
        worker=WorkerSettings(
            max_draft_rows=min(options["window"], options["row_budget"] - 1),
            min_step_s=options["min_step"],
        ),
        tenants=TenantSettings(
            tokens=tokens, anonymous_namespace=LOCAL_NAMESPACE if listen.is_loopback else ""
        ),
    )


def _tokens(options: Mapping[str, Any]) -> dict[str, str]:
    tokens: dict[str, str] = {}
    if options["token_file"] is not None:
        tokens |= read_tokens(options["token_file"])
    if options["token"]:
        tokens[options["token"]] = "default"
    return tokens


def _tls(options: Mapping[str, Any]) -> TlsSettings | None:
    certificate, key = options["tls_cert"], options["tls_key"]
    if (certificate is None) != (key is None):
        missing = "--tls-key" if key is None else "--tls-cert"
        raise ConfigError(
            f"{missing}: got none, expected both --tls-cert and --tls-key, or neither"
        )
    authority = options["client_ca"]
    if certificate is None:
        if authority is not None:
            raise ConfigError("--client-ca: needs TLS; give --tls-cert and --tls-key as well")
        return None
    pieces = TlsSettings(
        certificate=_read("--tls-cert", certificate),
        key=_read("--tls-key", key),
        client_authority=None if authority is None else _read("--client-ca", authority),
    )
    # gRPC takes anything and fails at every handshake; OpenSSL tells now.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # An empty password: an encrypted key is refused instead of asked about on the terminal.
        context.load_cert_chain(certificate, key, password="")
        if authority is not None:
            context.load_verify_locations(authority)
    except (ssl.SSLError, ValueError) as error:
        raise ConfigError(
            f"--tls-cert, --tls-key, --client-ca: {error}; expected PEM files, and the key of this certificate without "
            "a password"
        ) from error
    return pieces


def _read(option: str, path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{option}: cannot read {path}: {error.strerror}") from error


def check_port(listen: Address, *, option: str = "--listen") -> None:
    """Raise if the address cannot be listened at: loading weights first would only waste time.

    Raises:
        ConfigError: it cannot.
    """
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, where = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
    except OSError as error:
        raise ConfigError(
            f"{option}: cannot listen on {listen}: {error.strerror or error}; choose another address or port, or port 0 for any"
        ) from error


def load(options: Mapping[str, Any]) -> Engine:
    """Return the engine, warmed up.

    Raises:
        ModelError: the model cannot be loaded.
    """
    if options["threads"]:
        torch.set_num_threads(options["threads"])
    source = resolve(options["target"])
    with progress(f"loading {source.name}") as step:
        stages: list[str] = []

        def tell(stage: str) -> None:
            stages.append(stage)
            step.advance(min(len(stages), NUM_LOADING_STAGES), NUM_LOADING_STAGES + 1)

        engine = load_model(
            source,
            dtype=options["dtype"],
            device=_device(options["device"]),
            settings=EngineSettings(
                memory_bytes=options["memory"] << 20,
                sharing="all" if options["share_prefixes_between_tenants"] else "tenant",
            ),
            progress=tell,
        )
    with progress("warming up"):
        engine.warm_up()
    return engine


def _device(name: str) -> Literal["cpu", "cuda"]:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return cast('Literal["cpu", "cuda"]', name)


async def _serve(engine: Engine, settings: VerifierSettings, operations: OperationSettings) -> None:
    """Serve until a signal; drain; a second signal ends at once."""
    asked, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if asked.is_set() else asked).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    async with (
        running_verifier(engine, settings) as verifier,
        _metrics(verifier, operations.metrics_listen) as metrics,
        announcing(verifier, operations.announcement, row_budget=settings.scheduler.row_budget),
    ):
        if metrics is not None:
            click.echo(f"paceline cloud metrics on http://{metrics}{METRICS_PATH}")
        click.echo(f"paceline cloud ready on {verifier.address}")
        await asked.wait()
        await verifier.drain(within_s=settings.server.drain_s, hurry=hurry)
        log.info("served", extra=_summary(verifier.statistics))


@asynccontextmanager
async def _metrics(verifier: Verifier, listen: Address | None) -> AsyncIterator[Address | None]:
    """Serve the verifier's figures, if anywhere."""
    registry = verifier_registry(lambda: verifier.statistics, target=verifier.registry.target)
    async with serving_metrics(registry, listen) as address:
        yield address


def _summary(statistics: VerifierStatistics) -> dict[str, object]:
    """Return the figures worth a line in the log."""
    steps = statistics.steps
    per_step_ms = 1e-6 / max(1, steps.num_steps)
    return {
        "num_steps": steps.num_steps,
        "num_rows": steps.num_rows,
        "step_ms": steps.total_ns * per_step_ms,
        "forward_ms": steps.forward_ns * per_step_ms,
        "sampling_ms": steps.sampling_ns * per_step_ms,
        "queue_ms": statistics.queue_ns * 1e-6 / max(1, statistics.num_served),
    }
