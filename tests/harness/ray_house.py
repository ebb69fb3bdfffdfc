"""Verifiers behind Ray Serve, for tests: a real Ray on this machine, as `paceline cloud --ray` starts it."""

import asyncio
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from harness.processes import free_port
from ray import serve
from ray.exceptions import RayActorError

from cloud.ray_program import APPLICATION, ENVIRONMENT, deploy, running_ray
from cloud.replicas import ReplicaReport, application, deployment, parse_options
from paceline.settings import Address, set_default_environment


@dataclass(frozen=True, slots=True, kw_only=True)
class RayHouse:
    """An application that runs."""

    address: Address
    """Of the ingress."""
    handle: Any
    options: dict[str, Any]

    async def reports(self) -> Sequence[ReplicaReport]:
        """What every running replica says of itself."""
        return await asyncio.to_thread(self._reports)

    async def until(
        self, condition: Callable[[Sequence[ReplicaReport]], bool], *, timeout_s: float = 30.0
    ) -> Sequence[ReplicaReport]:
        """Wait until the reports are so; nobody announces it, and a replica that has died does not report."""
        deadline_s = time.monotonic() + timeout_s
        while True:
            try:
                reports = await self.reports()
            except RayActorError:
                reports = ()
            if reports and condition(reports):
                return reports
            assert time.monotonic() < deadline_s, reports
            await asyncio.sleep(0.05)

    def redeploy(self) -> None:
        """Replace all replicas, one after the other; returns when the new ones serve."""
        serve.run(deployment(self.options), name=APPLICATION, route_prefix=f"/{APPLICATION}")

    def _reports(self) -> Sequence[ReplicaReport]:
        reports: Sequence[ReplicaReport] = self.handle.broadcast("report").results(timeout_s=20.0)
        return reports


@contextmanager
def ray_house(model: Path, **words: Any) -> Iterator[RayHouse]:
    """Replicas on a tiny model; `words` are further options."""
    set_default_environment(ENVIRONMENT)
    listen = Address(host="127.0.0.1", port=free_port())
    arguments = {"target": model, "listen": listen, "threads": 1, **words}
    dashed = {name.replace("_", "-"): value for name, value in arguments.items()}
    options = parse_options({**dashed, "ray": True})
    started: list[subprocess.Popen[bytes]] = []
    try:
        with running_ray(options):
            node = ray._private.worker._global_node
            started += [info.process for infos in node.all_processes.values() for info in infos]
            deploy(application({**arguments, "num_replicas": options["replicas"]}), listen)
            handle = serve.get_app_handle(APPLICATION)
            yield RayHouse(
                address=listen, handle=handle, options={**options, "log_level": "warning"}
            )
    finally:
        # Ray kills its processes and leaves them to whoever collects its garbage, which warns.
        for process in started:
            process.wait(20.0)
