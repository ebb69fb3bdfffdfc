"""`paceline cloud --ray`: start or join Ray, deploy the replicas, serve until a signal, drain, and leave nothing behind."""

import asyncio
import logging
import os
import signal
import socket
import subprocess
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import grpc
import torch
from grpc_health.v1 import health_pb2, health_pb2_grpc

from cloud.program import check_port
from paceline.clock import MonotonicClock
from paceline.console import progress
from paceline.engine.loading import resolve
from paceline.errors import ConfigError, ModelError, TransportError
from paceline.metrics.serving import METRICS_PATH, serving_metrics
from paceline.settings import Address, set_default_environment

if TYPE_CHECKING:
    from cloud.ray_reports import Reports

log = logging.getLogger(__name__)

APPLICATION = "paceline"
INGRESS = "cloud.replicas.add_to_ingress"
WATCH_S = 2.0
"""How often it is asked whether the replicas are still there."""
READY_S = 20.0
"""How long the ingress may take once the replicas serve."""
END_S = 10.0
"""How long a killed process of Ray may take to be gone."""
TRIES = 3
"""To start Ray. About one start in fifty hangs for Ray's own half a minute, also the one after another that did."""
LOOK_S = 0.1
MAX_MESSAGE_BYTES = 4 << 20
"""As the verifier's own server takes; Serve would take 2 GiB from anybody."""

_REFUSALS = (ConnectionError, RuntimeError, ValueError, OSError)
"""What Ray raises if it cannot be started or joined."""

ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_SERVE_GRPC_MAX_MESSAGE_SIZE": str(MAX_MESSAGE_BYTES),
    # One event loop per replica: messages need not change threads, and gRPC for Python wants no second loop.
    "RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD": "0",
    # Between proxy and replica gRPC instead of actor calls: 0.6 ms less per round trip (benchmarks/ray_latency.py).
    "RAY_SERVE_USE_GRPC_BY_DEFAULT": "1",
    "RAY_SERVE_LOG_TO_STDERR": "0",
}
"""Read by Ray's own processes when they start; what the user has set stays."""

JOINING_ENVIRONMENT = ENVIRONMENT | {"RAY_AUTH_MODE": "token"}
"""The same for a cluster that is joined. One that `ray start` made asks for its token; a Ray that is started here sees to
that by itself."""


def run(options: Mapping[str, Any]) -> None:
    """Serve as the command's options say.

    Raises:
        ConfigError: Ray is not installed, an option is wrong, or the address is in use.
        ModelError: the replicas could not be started.
    """
    # Before Ray is imported.
    set_default_environment(ENVIRONMENT if options["ray_address"] is None else JOINING_ENVIRONMENT)
    try:
        from cloud import replicas  # noqa: PLC0415 - an extra
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"--ray: the Python module {error.name!r} is not installed; install Ray with: pip install 'paceline[ray]'"
        ) from error
    options = _for_other_processes(options)
    settings = replicas.replica_settings(options)
    listen = settings.server.listen
    if listen.port == 0:  # Serve has to be told one
        listen = Address(host=listen.host, port=_free_port(listen.host))
    if options["ray_address"] is None:
        resolve(options["target"])  # tells now what the replicas would tell in a traceback
        check_port(listen)
    metrics_listen = options["metrics_listen"]
    if metrics_listen is not None:
        check_port(metrics_listen, option="--metrics-listen")
    with running_ray(options):
        with progress(f"starting {options['replicas']} x {options['target']}"):
            deploy(replicas.deployment({**options, "listen": listen}), listen)
        asyncio.run(_serve(listen, metrics_listen))


@contextmanager
def running_ray(options: Mapping[str, Any]) -> Iterator[None]:
    """Start Ray on this machine, or join a cluster; leave both as they were found."""
    import ray  # noqa: PLC0415 - an extra

    is_verbose = logging.getLogger("cloud").isEnabledFor(logging.INFO)
    level = logging.INFO if is_verbose else logging.ERROR
    logs: dict[str, Any] = {"logging_level": level, "log_to_driver": is_verbose}
    if options["ray_address"] is not None:
        _begin(lambda: ray.init(address=options["ray_address"], **logs))
    else:
        num_cpus = options["replicas"] * (options["threads"] or 1)
        # Replicas of a small machine share its cores instead of waiting for more of them.
        cpus = max(num_cpus, os.cpu_count() or 1)
        local = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
        _begin(lambda: ray.init(**local, **logs))
    logging.getLogger("ray").setLevel(level)
    try:
        yield
    finally:
        ray.shutdown()


def _begin(init: Callable[[], object]) -> None:
    """Start or join Ray. Now and then one of its processes does not come up in time: so it is tried a few times.

    Raises:
        ConfigError: it did not work.
    """
    import ray  # noqa: PLC0415 - an extra

    for left in reversed(range(TRIES)):
        try:
            init()
        except Exception as error:
            if not (_is_timeout(error) or isinstance(error, _REFUSALS)):
                raise
            if _is_timeout(error):
                _end_half_started(error)
                ray.shutdown()
            if not left or not _is_timeout(error):
                raise ConfigError(f"--ray: Ray cannot be started or joined: {error}") from error
        else:
            return


def _is_timeout(error: Exception) -> bool:
    """Whether a process of Ray came too late: that has no type of its own."""
    return type(error) is Exception or (
        type(error) is RuntimeError and str(error).startswith("Timed out")
    )


def _end_half_started(error: Exception) -> None:
    """End the processes of a node that never came up: Ray forgets it, and they would run as long as this program."""
    from ray._private.node import Node  # noqa: PLC0415 - an extra

    for frame, _ in traceback.walk_tb(error.__traceback__):
        node = frame.f_locals.get("self")
        if isinstance(node, Node):  # known to nobody else
            started = [info.process for infos in node.all_processes.values() for info in infos]
            node.kill_all_processes(check_alive=False, wait=True)
            for process in started:
                with suppress(
                    subprocess.TimeoutExpired
                ):  # stuck in the kernel; the next try need not wait for it
                    process.wait(END_S)


def deploy(application: Any, listen: Address) -> None:
    """Start the ingress, unless the cluster has one, and the replicas; wait until all of them serve.

    Raises:
        ModelError: a replica could not be started.
    """
    from ray import serve  # noqa: PLC0415 - an extra

    logging.getLogger("ray.serve").setLevel(logging.getLogger("ray").level)
    serve.start(
        proxy_location="EveryNode",
        # Serve insists on HTTP; nothing of ours can be reached through it.
        http_options={"host": "127.0.0.1", "port": _free_port("127.0.0.1")},
        grpc_options={
            "port": listen.port,
            "grpc_servicer_functions": [INGRESS],
            "enable_reflection": False,
        },
    )
    try:
        # Without a prefix, which is HTTP's, Serve does not tell its gRPC proxy of the application either.
        serve.run(application, name=APPLICATION, route_prefix=f"/{APPLICATION}")
    except RuntimeError as error:
        log.info("deployment failed", extra={"error": str(error)})
        raise ModelError(f"--ray: the replicas did not start: {_last_line(error)}") from error
    _await_ingress(listen)


def _await_ingress(listen: Address) -> None:
    """Wait until a call gets through: the ingress hears of the application a little later than we.

    Raises:
        TransportError: none did.
    """
    host = "127.0.0.1" if listen.host in {"0.0.0.0", "localhost"} else listen.host  # noqa: S104 - a comparison
    options = (("grpc.enable_http_proxy", 0),)
    with grpc.insecure_channel(str(Address(host=host, port=listen.port)), options) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        clock = MonotonicClock()
        deadline_s = clock.now_s() + READY_S
        while (left_s := deadline_s - clock.now_s()) > 0.0:
            try:
                answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=left_s)
            except grpc.RpcError as error:
                log.debug("no answer yet", extra={"error": str(error)})
            else:
                if answer.status == health_pb2.HealthCheckResponse.SERVING:
                    return
            time.sleep(LOOK_S)
    raise TransportError(
        f"--ray: {listen} did not answer within {READY_S:g} s; if Serve ran on this Ray cluster before, it keeps its port and "
        "its services: use that port, or stop it with `serve shutdown`"
    )


async def _serve(listen: Address, metrics_listen: Address | None) -> None:
    """Serve until a signal; drain; a second signal ends at once.

    Raises:
        TransportError: the application or the Ray cluster is gone.
    """
    from cloud.ray_reports import Reports  # noqa: PLC0415 - an extra

    asked, hurry = asyncio.Event(), asyncio.Event()

    def on_signal() -> None:
        (hurry if asked.is_set() else asked).set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, on_signal)
    reports = Reports(APPLICATION)
    async with serving_metrics(reports.registry, metrics_listen) as metrics:
        if metrics is not None:
            click.echo(f"paceline cloud metrics on http://{metrics}{METRICS_PATH}")
        click.echo(f"paceline cloud ready on {listen}")
        await _watch(asked, reports if metrics is not None else None)
        await _drain(hurry)


async def _watch(asked: asyncio.Event, reports: "Reports | None") -> None:
    """Return when a signal asks to stop.

    Raises:
        TransportError: the application or the Ray cluster is gone.
    """
    while not asked.is_set():
        if not await asyncio.to_thread(_is_deployed):
            raise TransportError(
                f"--ray: the application {APPLICATION!r} is gone; somebody has deleted it, or the Ray cluster has ended"
            )
        if reports is not None:
            await asyncio.to_thread(reports.refresh)
        with suppress(TimeoutError):
            async with asyncio.timeout(WATCH_S):
                await asked.wait()


async def _drain(hurry: asyncio.Event) -> None:
    """Have Serve stop the replicas, which lets their edges move; return when they are gone, or somebody is in a hurry."""
    from ray import serve  # noqa: PLC0415 - an extra

    log.info("draining")
    serve.delete(APPLICATION, _blocking=False)
    while not hurry.is_set() and await asyncio.to_thread(_is_deployed):  # noqa: ASYNC110 - Serve sets no event
        await asyncio.sleep(LOOK_S)


def _is_deployed() -> bool:
    from ray import serve  # noqa: PLC0415 - an extra

    try:
        return APPLICATION in serve.status().applications
    except Exception as error:  # noqa: BLE001 - whatever Ray says when it is gone
        log.info("no status", extra={"error": str(error)})
        return False


def _last_line(error: RuntimeError) -> str:
    """Return what matters of Serve's error, which holds the replica's whole traceback."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = [line for line in lines if "paceline.errors." in line]
    return (told or lines or ["no reason given"])[-1]


def _for_other_processes(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options that mean the same in the replicas: with whole paths, and the device of this machine."""
    whole = {
        name: value.absolute() if isinstance(value, Path) else value
        for name, value in options.items()
    }
    target = Path(whole["target"]).expanduser()
    if target.exists():
        whole["target"] = str(target.absolute())
    if whole["ray_address"] is None and whole["device"] == "auto":
        whole["device"] = "cuda" if torch.cuda.is_available() else "cpu"
    verbose = logging.getLogger("cloud").getEffectiveLevel()
    return {**whole, "log_level": logging.getLevelName(verbose).lower()}


def _free_port(host: str) -> int:
    """Return a port that was free a moment ago."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port
