"""The verifier as an application of Ray Serve: each replica is a verifier, and Serve's ingress is their gRPC server.

    serve deploy deploy/ray-serve.yaml      or      paceline cloud --ray

A replica runs the same sessions, steps and service as `cloud.server`. A session lives on one replica; a stream that
comes back through the ingress may meet another one, which does not know it, and the edge then opens it there in full.
"""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import click
import grpc
from grpc_health.v1 import health_pb2
from ray import serve
from ray.serve import Application

from cloud.account import VerifierStatistics
from cloud.command import cloud
from cloud.core import Core, running_core
from cloud.program import load, verifier_settings
from cloud.ray_call import IngressCall, IngressContext, is_from_this_machine, no_requests, refuse
from cloud.ray_stop import is_being_stopped
from cloud.server import SERVICE_NAME, VerifierSettings
from cloud.stepper import ModelThread
from paceline.errors import ConfigError
from paceline.logs import LEVELS, configure_logging
from paceline.v1 import verification_pb2 as pb

log = logging.getLogger(__name__)

LOOK_S = 0.1
"""How often a replica looks whether it is being stopped; Serve has no way to tell it."""
DRAIN_MARGIN_S = 5.0
"""How much longer than a drain Serve waits for a replica before it kills it."""
HEALTH_PERIOD_S = 5.0
HEALTH_TIMEOUT_S = 30.0
"""How long a step may take before the model thread counts as dead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplicaReport:
    """What one replica says of itself."""

    replica: str
    """Serve's id of it."""
    pid: int
    """Its process, on its node."""
    statistics: VerifierStatistics


class VerifierReplica:
    """One verifier. Its gRPC methods are reached through the ingress, the others through a handle.

    Args:
        options: those of `paceline cloud`, by parameter names.
    """

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, options: Mapping[str, Any]
    ) -> None:
        configure_logging(options.get("log_level", "warning"))
        self._settings = replica_settings(options)
        # Weights are loaded on a thread too, so that Serve can ask the replica how it is meanwhile.
        loading = ModelThread()
        try:
            self._engine = await loading.run(load, options)
        finally:
            loading.close()
        started: asyncio.Future[Core] = asyncio.get_running_loop().create_future()
        # Serve owns the loop and calls us in tasks of its own, so there is no group that this one could belong to.
        self._life = asyncio.create_task(self._live(started))  # noqa: TID251
        await asyncio.wait((self._life, started), return_when=asyncio.FIRST_COMPLETED)
        if not started.done():
            await (
                self._life
            )  # raises why it never came to that; Serve would wait for `started` for ever
        self._core = started.result()

    async def _live(self, started: asyncio.Future[Core]) -> None:
        """Serve until Serve stops this replica; then let edges move, and end the rest."""
        settings = self._settings
        async with running_core(
            self._engine,
            sessions=settings.sessions,
            scheduler=settings.scheduler,
            worker=settings.worker,
            tenants=settings.tenants,
        ) as core:
            started.set_result(core)
            while not is_being_stopped():  # noqa: ASYNC110 - nobody sets an event
                await asyncio.sleep(LOOK_S)
            await core.drain(within_s=settings.server.drain_s, hurry=asyncio.Event())

    async def Describe(  # noqa: N802 - gRPC's name
        self, request: bytes, grpc_context: IngressContext
    ) -> pb.DescribeResponse:
        """See the schema."""
        self._check_call(grpc_context)
        call = IngressCall(
            grpc_context, requests=no_requests(), decode=pb.DescribeRequest.FromString
        )
        return await self._core.service.Describe(pb.DescribeRequest.FromString(request), call)

    async def Verify(  # noqa: N802 - gRPC's name
        self, requests: AsyncIterator[bytes], grpc_context: IngressContext
    ) -> AsyncIterator[pb.VerifyResponse]:
        """See the schema."""
        self._check_call(grpc_context)
        call = IngressCall(grpc_context, requests=requests, decode=pb.VerifyRequest.FromString)
        async for response in call.responses(lambda call: self._core.service.Verify(None, call)):
            yield response

    async def Check(  # noqa: N802 - gRPC's name
        self, request: bytes, grpc_context: IngressContext
    ) -> health_pb2.HealthCheckResponse:
        """Answer the standard gRPC health check for one replica; Serve asks each by `check_health`."""
        service = health_pb2.HealthCheckRequest.FromString(request).service
        if service not in {"", SERVICE_NAME}:
            refuse(grpc_context, grpc.StatusCode.NOT_FOUND, f"health: no service {service!r} here")
        serving = not (self._life.done() or self._core.registry.is_draining)
        status = health_pb2.HealthCheckResponse
        return status(status=status.SERVING if serving else status.NOT_SERVING)

    async def check_health(self) -> None:
        """Raise unless steps are being run; Serve then replaces this replica.

        Raises:
            RuntimeError: they are not.
        """
        if self._life.done():
            raise RuntimeError(f"the verifier has ended: {self._life.exception()}")
        if not self._core.registry.is_draining:
            await self._core.answers()

    async def report(self) -> ReplicaReport:
        """Return what this replica has done and holds."""
        context = serve.get_replica_context()
        return ReplicaReport(
            replica=context.replica_tag, pid=os.getpid(), statistics=self._core.statistics
        )

    def _check_call(self, context: IngressContext) -> None:
        """Refuse a call that must not or cannot be served."""
        server = self._settings.server
        if (
            server.listen.is_loopback
            and not server.is_insecure_allowed
            and not is_from_this_machine(context.peer())
        ):
            # Ray's ingress listens on every address, whatever it is told.
            refuse(
                context,
                grpc.StatusCode.PERMISSION_DENIED,
                "stream: this verifier serves its own machine only; its operator has to say --listen and --insecure, or to "
                "put a server that does TLS before it",
            )
        if self._life.done():
            refuse(
                context, grpc.StatusCode.UNAVAILABLE, "stream: this replica has ended; try again"
            )


def add_to_ingress(servicer: Any, server: Any) -> None:
    """Make Serve's gRPC proxy take our calls; named in its option `grpc_servicer_functions`.

    Requests stay bytes up to the replica: one that cannot be parsed is then answered as by every other verifier, and
    not by the proxy, which would end the call as if the edge had gone.
    """
    for service, handlers in (
        (
            SERVICE_NAME,
            {
                "Describe": grpc.unary_unary_rpc_method_handler(servicer.Describe),
                "Verify": grpc.stream_stream_rpc_method_handler(servicer.Verify),
            },
        ),
        (
            "grpc.health.v1.Health",
            {"Check": grpc.unary_unary_rpc_method_handler(servicer.Check)},
        ),
    ):
        handler = grpc.method_handlers_generic_handler(service, handlers)
        server.add_generic_rpc_handlers((handler,))


def application(arguments: dict[str, Any]) -> Application:
    """Return the application: `import_path: cloud.replicas:application` with `args` of a Serve configuration.

    Args:
        arguments: options of `paceline cloud` without the dashes, `target` or `max-sessions` for example, and
            `num-replicas` and `log-level`. Files they name are read where a replica runs.

    Raises:
        ConfigError: an option is unknown, wrong, or does not go with Ray.
    """
    words = {name.replace("_", "-"): value for name, value in arguments.items()}
    words["replicas"] = words.pop("num-replicas", 1)
    log_level = words.pop("log-level", "warning")
    if log_level not in LEVELS:
        raise ConfigError(f"log-level: got {log_level!r}, expected one of {', '.join(LEVELS)}")
    options = parse_options(words)
    if options["metrics_listen"] is not None:
        raise ConfigError(
            "metrics-listen: an application has no process of its own to be scraped; leave it out, or deploy with "
            "`paceline cloud --ray`"
        )
    return deployment({**options, "log_level": log_level})


def deployment(options: Mapping[str, Any]) -> Application:
    """Return the application for parsed options.

    Raises:
        ConfigError: an option does not go with Ray.
    """
    settings = replica_settings(options)
    # Streams, those that come back before the old one has ended, and round trips, as for the verifier's own server.
    num_calls = 4 * settings.sessions.max_sessions + 64
    configured = serve.deployment(name="verifier")(VerifierReplica).options(
        num_replicas=options["replicas"],
        max_ongoing_requests=num_calls,
        # Beyond that a call is refused (RESOURCE_EXHAUSTED) instead of waiting unseen.
        max_queued_requests=num_calls,
        graceful_shutdown_timeout_s=settings.server.drain_s + DRAIN_MARGIN_S,
        graceful_shutdown_wait_loop_s=LOOK_S,
        health_check_period_s=HEALTH_PERIOD_S,
        health_check_timeout_s=HEALTH_TIMEOUT_S,
        max_constructor_retry_count=2,
        ray_actor_options={
            "num_cpus": options["threads"] or 1,
            "num_gpus": 1 if options["device"] == "cuda" else 0,
        },
    )
    return configured.bind(dict(options))


def replica_settings(options: Mapping[str, Any]) -> VerifierSettings:
    """Return what the options say, as far as it holds for a replica.

    Raises:
        ConfigError: an option is wrong, or does not go with Ray.
    """
    for name in ("tls_cert", "tls_key", "client_ca"):
        if options[name] is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: the ingress of Ray Serve does no TLS; leave it out and put a server that "
                "does before it, or run `paceline cloud` without --ray"
            )
    for name in ("broker", "verifier_id", "advertise"):
        if options[name] is not None:
            raise ConfigError(
                f"--{name.replace('_', '-')}: replicas behind Ray Serve do not take part in the fleet yet; leave it out and "
                "name the ingress by --cloud at the edges, or run `paceline cloud` without --ray"
            )
    if not (options["listen"].is_loopback or options["insecure"]):
        raise ConfigError(
            f"--listen: {options['listen']} can be reached from other machines, and the ingress of Ray Serve does no TLS; "
            "listen on 127.0.0.1 and put a server that does TLS before it, or give --insecure in a closed network"
        )
    return verifier_settings(options)


def parse_options(words: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of `paceline cloud` by parameter names, the defaults included.

    Args:
        words: their values by option names without the dashes; true and false for those that take no value.

    Raises:
        ConfigError: one is unknown or wrong.
    """
    line: list[str] = []
    for name, value in words.items():
        if isinstance(value, bool):
            line.append(f"--{name}" if value else f"--no-{name}")
        else:
            line += [f"--{name}", str(value)]
    try:
        return dict(cloud.make_context("cloud", line, resilient_parsing=False).params)
    except click.UsageError as error:
        raise ConfigError(f"args: {error.format_message()}") from error
