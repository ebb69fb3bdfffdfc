"""What 2,000 edges cost the orchestrator, and what a flood does to it. Real MQTT, real processes.

    PYTHONPATH=tests .venv/bin/python benchmarks/fleet_load.py --output benchmarks/results/fleet_load.json

Edges are simulated (their figures change and follow policies); a few connections carry many edges each, every edge tells its
telemetry every 5 s. Three phases for each broker (mosquitto, and amqtt inside the orchestrator's process): steady; with one
dashboard open; and a flood, in which another process sends malformed payloads and one edge's telemetry as fast as the broker takes
them, while the API is asked five times a second and a verifier drains and comes back every two seconds.
"""

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import paho.mqtt.client as paho
import psutil
from harness.brokers import MosquittoRig, running_rig
from harness.fleet_api import FleetApi, api_of, broker_of, orchestrator
from harness.fleet_world import SimulatedEdge, SimulatedVerifier, small_fleet
from harness.processes import Child
from paho.mqtt.enums import CallbackAPIVersion

from paceline.control.messages import EdgePolicy, Presence
from paceline.mqtt.link import ControlLink, control_link
from paceline.topics import EDGE_POLICY, EDGE_PRESENCE, EDGE_TELEMETRY, VERIFIER_STATUS

NUM_LINKS = 4
WARM_UP_S = 20.0
SLICE_S = 0.05
Figures = dict[str, Any]


class Fleet:
    """All edges, told over a few links."""

    def __init__(self, links: list[ControlLink], number: int, interval_s: float) -> None:
        self.edges = small_fleet(number)
        self.verifiers = [
            SimulatedVerifier(
                verifier_id=f"gpu-{letter}", address=f"gpu-{letter}:50051", max_sessions=2 * number
            )
            for letter in "ab"
        ]
        self._links = links
        self._interval_s = interval_s
        self._by_id = {edge.edge_id: edge for edge in self.edges}
        self._told_at: dict[str, float] = {}
        self.latencies: list[float] = []
        """From an edge's word to the policy that it got next, seconds."""

    async def tell(self) -> None:
        """Let every edge tell once per interval, evenly spread."""
        share = max(1, round(len(self.edges) * SLICE_S / self._interval_s))
        due = time.monotonic()
        for start in itertools.cycle(range(0, len(self.edges), share)):
            for index, edge in enumerate(self.edges[start : start + share]):
                link = self._links[(start + index) % len(self._links)]
                self._told_at[edge.edge_id] = time.monotonic()
                link.publish(EDGE_TELEMETRY, edge.edge_id, edge.advance(self._interval_s))
            due += SLICE_S * len(self.edges[start : start + share]) / share
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def tell_status(self) -> None:
        """Let the verifiers tell every 2 s."""
        while True:
            for verifier in self.verifiers:
                status = verifier.advance(2.0)
                self._links[0].publish(VERIFIER_STATUS, verifier.verifier_id, status)
            await asyncio.sleep(2.0)

    async def obey(self) -> None:
        """Let edges follow their policies."""
        async for received in self._links[0].messages():
            edge, policy = self._by_id.get(received.member), received.value
            if edge is None or not isinstance(policy, EdgePolicy):
                continue
            if policy.revision > edge.revision and edge.edge_id in self._told_at:
                self.latencies.append(time.monotonic() - self._told_at[edge.edge_id])
            edge.follow(policy)

    def appear(self) -> None:
        """Say that every edge is there."""
        for index, edge in enumerate(self.edges):
            online = Presence(online=True, incarnation=edge.incarnation, version="0.1.0")
            self._links[index % len(self._links)].publish(EDGE_PRESENCE, edge.edge_id, online)


async def measured(processes: dict[str, psutil.Process], seconds: float) -> Figures:
    """Return the share of one core that each process takes over some time, and its memory."""
    before = {name: process.cpu_times() for name, process in processes.items()}
    start = time.monotonic()
    await asyncio.sleep(seconds)
    took = time.monotonic() - start
    found: Figures = {}
    for name, process in processes.items():
        now, then = process.cpu_times(), before[name]
        spent = now.user + now.system - then.user - then.system
        found[f"{name}_core_share"] = round(spent / took, 4)
        found[f"{name}_rss_mib"] = round(process.memory_info().rss / 2**20, 1)
    return found


async def ask_all_the_time(api: FleetApi, times: list[float]) -> None:
    """Ask the API five times a second."""
    while True:
        start = time.monotonic()
        await api.get("/api/edges/laptop-01")
        times.append(time.monotonic() - start)
        await asyncio.sleep(0.2)


async def change_all_the_time(api: FleetApi, link: ControlLink, times: list[float]) -> None:
    """Let a verifier drain and come back; time how long until the API shows it."""
    verifier = SimulatedVerifier(verifier_id="gpu-z", address="gpu-z:50051")
    for is_draining in itertools.cycle((True, False)):
        verifier.draining = is_draining
        start = time.monotonic()
        link.publish(VERIFIER_STATUS, "gpu-z", verifier.advance(2.0))
        wanted = ("gpu-z", "draining" if is_draining else "online")

        def is_shown(now: Figures, wanted: tuple[str, str] = wanted) -> bool:
            return any((row["id"], row["state"]) == wanted for row in now["verifiers"])

        while not is_shown(await api.fleet()):  # noqa: ASYNC110 - it asks another process
            await asyncio.sleep(0.05)
        times.append(time.monotonic() - start)
        await asyncio.sleep(1.0)


def spread(values: list[float], *, digits: int = 4) -> Figures:
    """Return median, 99th percentile, largest and how many."""
    ordered = sorted(values)
    if not ordered:
        return {"num": 0}
    return {
        "num": len(ordered),
        "median_s": round(statistics.median(ordered), digits),
        "p99_s": round(ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))], digits),
        "max_s": round(ordered[-1], digits),
    }


@contextlib.asynccontextmanager
async def background(*work: Any) -> AsyncIterator[None]:
    """Run coroutines while the body runs."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(item) for item in work]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()


async def steady_phase(
    fleet: Fleet, api: FleetApi, processes: dict[str, psutil.Process], seconds: float
) -> Figures:
    fleet.latencies.clear()
    before = (await api.fleet())["orchestrator"]
    found = await measured(processes, seconds)
    own = (await api.fleet())["orchestrator"]
    return found | {
        "messages_per_s": round((own["num_received"] - before["num_received"]) / seconds, 1),
        "policies": own["num_published"] - before["num_published"],
        "shed": own["num_shed"] - before["num_shed"],
        "decision_latency_own_median_s": own["decision_latency_median_s"],
        "decision_latency_own_p99_s": own["decision_latency_p99_s"],
        "decision_latency_seen_by_edges": spread(fleet.latencies),
    }


async def flood_phase(
    fleet: Fleet,
    api: FleetApi,
    child: Child,
    processes: dict[str, psutil.Process],
    seconds: float,
) -> Figures:
    before = (await api.fleet())["orchestrator"]
    address = broker_of(child).address
    flood = await asyncio.create_subprocess_exec(
        *(sys.executable, __file__, "--flood", str(address), "--seconds", str(seconds + 2.0)),
        stdout=asyncio.subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": "tests"},
    )
    assert flood.stdout is not None
    await flood.stdout.readline()
    answers: list[float] = []
    changes: list[float] = []
    fleet.latencies.clear()
    async with (
        control_link(broker_of(child), name="changing") as link,
        background(ask_all_the_time(api, answers), change_all_the_time(api, link, changes)),
    ):
        await asyncio.sleep(1.0)
        answers.clear()
        found = await measured(processes, seconds)
        shown = await api.fleet()
    sent = json.loads(await flood.stdout.readline())
    await flood.wait()
    own = shown["orchestrator"]
    return found | {
        "sent_by_flood_per_s": round(sent["num"] / sent["seconds"]),
        "read": own["num_received"] - before["num_received"],
        "shed": own["num_shed"] - before["num_shed"],
        "malformed": own["num_malformed"] - before["num_malformed"],
        "edges_online": shown["totals"]["num_online"],
        "api_answer": spread(answers),
        "status_change_shown": spread(changes),
        "decision_latency_seen_by_edges": spread(fleet.latencies),
    }


async def run(broker: str, options: argparse.Namespace) -> Figures:
    """Run all phases on one broker."""
    async with contextlib.AsyncExitStack() as stack:
        where: str | None = None
        processes: dict[str, psutil.Process] = {}
        if broker == "mosquitto":
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            rig = MosquittoRig(folder)
            await stack.enter_async_context(running_rig(rig))
            where = str(rig.address)
            children = psutil.Process().children()
            processes["broker"] = next(one for one in children if one.name() == "mosquitto")
        apart = ("--own-telemetry-connection",) if where is not None else ()
        child = stack.enter_context(orchestrator(*apart, broker=where))
        processes["orchestrator"] = psutil.Process(child.pid)
        api = await stack.enter_async_context(api_of(child))
        links = [
            await stack.enter_async_context(
                control_link(
                    broker_of(child),
                    name=f"edges-{index}",
                    subscriptions=(EDGE_POLICY,) if index == 0 else (),
                )
            )
            for index in range(NUM_LINKS)
        ]
        fleet = Fleet(links, options.edges, options.interval)
        fleet.appear()
        await stack.enter_async_context(background(fleet.tell(), fleet.tell_status(), fleet.obey()))
        await asyncio.sleep(WARM_UP_S)
        found: Figures = {"steady": await steady_phase(fleet, api, processes, options.seconds)}
        async with background(api.until(lambda _: False, timeout_s=1e6)):
            found["one_page_open"] = await steady_phase(fleet, api, processes, options.seconds / 2)
        found["flood"] = await flood_phase(fleet, api, child, processes, options.seconds / 2)
        await asyncio.sleep(2.0)
        found["after"] = await measured(processes, options.seconds / 2)
        return found


def flood(address: str, seconds: float) -> None:
    """Send malformed payloads and one edge's telemetry as fast as the broker takes them."""
    host, _, port = address.rpartition(":")
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id="flood")
    client.connect(host, int(port))
    client.loop_start()
    edge = SimulatedEdge(edge_id="flood-valid")
    valid = edge.advance(5.0)
    print("flooding", flush=True)
    start, number = time.monotonic(), 0
    while time.monotonic() - start < seconds:
        for index in range(50):
            name = EDGE_TELEMETRY.name(f"flood-{index % 20}")
            client.publish(name, os.urandom(64) if index % 2 else b"\xff" * 2000, qos=0)
        newer = replace(valid, sequence=number + 2)
        payload = EDGE_TELEMETRY.encode(newer)
        for _ in range(50):
            client.publish(EDGE_TELEMETRY.name("flood-valid"), payload, qos=0)
        number += 100
        while client.want_write() and time.monotonic() - start < seconds:
            time.sleep(0.001)
    took = time.monotonic() - start
    client.loop_stop()
    client.disconnect()
    print(json.dumps({"num": number, "seconds": took}), flush=True)


def shown(results: dict[str, Figures]) -> None:
    """Print a table."""
    for broker, phases in results.items():
        print(f"\n{broker}")
        for phase, figures in phases.items():
            print(f"  {phase}")
            for name, value in figures.items():
                print(f"    {name:34} {value}")


def mosquitto_version() -> str:
    told = subprocess.run(
        ["/usr/sbin/mosquitto", "-h"], capture_output=True, text=True, check=False
    ).stdout
    return told.partition("\n")[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--edges", type=int, default=2000)
    parser.add_argument("--interval", type=float, default=5.0)
    parser.add_argument("--seconds", type=float, default=40.0)
    parser.add_argument("--brokers", nargs="*", default=["mosquitto", "embedded"])
    parser.add_argument("--output", type=Path)
    parser.add_argument("--flood")
    options = parser.parse_args()
    if options.flood:
        flood(options.flood, options.seconds)
        return
    load_before = os.getloadavg()[0]
    results = {broker: asyncio.run(run(broker, options)) for broker in options.brokers}
    shown(results)
    if options.output:
        about = {
            "command": "PYTHONPATH=tests python benchmarks/fleet_load.py "
            f"--edges {options.edges} --interval {options.interval:g} --seconds {options.seconds:g}",
            "machine": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
            "load_average": {"before": load_before, "after": os.getloadavg()[0]},
            "python": platform.python_version(),
            "versions": {
                name: version(name) for name in ("aiomqtt", "amqtt", "aiohttp", "protobuf")
            }
            | {"mosquitto": mosquitto_version()},
        }
        text = json.dumps({"about": about, "results": results}, indent=1)
        options.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
