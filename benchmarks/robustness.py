"""One bad peer hurts only itself: bad clients beside good ones, on the real target, through a link that forgets.

    PYTHONPATH=tests .venv/bin/python benchmarks/robustness.py --idle-minutes 10 --output benchmarks/results/robustness.json

Two good clients answer the same prompt over and over through a relay of 20 ms round trip that silently drops flows
idle for 60 s. After a quiet phase come, one after the other and again and again: a client killed with SIGKILL in the
middle of an answer, a stream of garbage, raw bytes that are no HTTP/2 at all, and a client that never reads. A third
client answers once, says nothing for ten minutes, and answers again on the same connection. All answers must be equal,
nobody's pace may suffer, and at the end no session and no byte may be left.
"""

import argparse
import asyncio
import json
import platform
import signal
import statistics
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import psutil
import torch
from harness.processes import running
from harness.raw_edge import RawStream, open_request
from harness.relay import ThreadedRelay, threaded_relay

from cloud.admission import SessionSettings
from cloud.server import ServerSettings, Verifier, VerifierSettings, running_verifier
from edge.drafters import load_drafter
from paceline.client.client import Client
from paceline.engine.engine import Engine
from paceline.engine.loading import load_model, load_tokenizer, resolve
from paceline.engine.tokenizer import Tokenizer
from paceline.sampling.settings import SamplingSettings
from paceline.settings import Address
from simulator.link import LinkSettings

PROMPT = "Name three rivers and say in one sentence each where they flow."
GREEDY = SamplingSettings(temperature=0.0)
LINK = LinkSettings(delay_s=0.01, drop_idle_after_s=60.0)
LEASE_S = 5.0
TOKENS = 48


class Watch:
    """Answers of good clients: when each ended, how long it took, what it said."""

    def __init__(self) -> None:
        self.answers: list[tuple[float, float]] = []
        self.texts: set[tuple[int, ...]] = set()

    def between(self, begin: float, end: float) -> list[float]:
        """Seconds per answer of those that ended in a phase."""
        return [took for ended, took in self.answers if begin <= ended < end]


async def good_client(
    relay: ThreadedRelay, tokenizer: Tokenizer, watch: Watch, stop: asyncio.Event
) -> None:
    """Answer until told to stop."""
    drafter = load_drafter("lookup", tokenizer=tokenizer)
    async with Client(
        verifiers=[str(relay.address)], tokenizer=tokenizer, drafter=drafter
    ) as client:
        while not stop.is_set():
            await answer(client, watch)


async def answer(client: Client, watch: Watch) -> None:
    """Answer the prompt once."""
    begin = time.monotonic()
    messages = [{"role": "user", "content": PROMPT}]
    async with client.generate(messages=messages, max_tokens=TOKENS, sampling=GREEDY) as generation:
        async for _ in generation:
            pass
    watch.answers.append((time.monotonic(), time.monotonic() - begin))
    watch.texts.add(tuple(generation.result.token_ids))


async def idle_client(
    relay: ThreadedRelay, tokenizer: Tokenizer, watch: Watch, idle_s: float
) -> float:
    """Answer, be silent, answer again on the same connection; return how long the second answer took."""
    async with Client(verifiers=[str(relay.address)], tokenizer=tokenizer) as client:
        await answer(client, watch)
        await asyncio.sleep(idle_s)
        begin = time.monotonic()
        await answer(client, watch)
        return time.monotonic() - begin


async def killed_client(relay: ThreadedRelay) -> None:
    """SIGKILL a client as soon as its answer has begun."""
    options = [
        PROMPT,
        "--cloud",
        str(relay.address),
        "--draft",
        "lookup",
        "--temperature",
        "0",
        "--max-tokens",
        "400",
    ]

    def run() -> None:
        with running("paceline.command", "generate", *options, timeout_s=60.0) as child:
            child.wait_for(r"\w", timeout_s=60.0)
            child.signal(signal.SIGKILL)
            child.wait(timeout_s=10.0)

    await asyncio.to_thread(run)


async def garbage_client(address: Address, engine: Engine) -> None:
    """Speak nonsense: bytes that are no HTTP/2, then well-framed messages that are no protobuf, then a broken rule."""
    _, writer = await asyncio.open_connection(address.host, address.port)
    writer.write(b"\x00\xff" * 4096)
    await writer.drain()
    writer.close()
    async with grpc.aio.insecure_channel(str(address)) as channel:
        method: Any = channel.stream_stream(
            "/paceline.v1.VerificationService/Verify", lambda raw: raw, lambda raw: raw
        )
        call = method()
        try:
            await call.write(b"\xff" * 1000)
            await call.read()
        except grpc.aio.AioRpcError:
            pass
        stream = RawStream(channel)
        await stream.send(open_request(engine, range(5, 50), max_tokens=100))
        await stream.send(open_request(engine, range(5, 50), max_tokens=100))
        await stream.receive_failure()


@asynccontextmanager
async def deaf_client(address: Address, engine: Engine) -> AsyncIterator[None]:
    """Ask for a long text and never read it."""
    async with grpc.aio.insecure_channel(str(address)) as channel:
        stream = RawStream(channel)
        await stream.send(open_request(engine, range(5, 50), max_tokens=2000))
        yield
        stream.call.cancel()


async def attack(
    relay: ThreadedRelay, engine: Engine, until: float, counts: dict[str, int]
) -> None:
    """Bring on bad clients until it is time, without pause."""
    while time.monotonic() < until:
        async with deaf_client(relay.address, engine):
            await killed_client(relay)
            counts["killed"] += 1
            for _ in range(20):
                await garbage_client(relay.address, engine)
                counts["garbage"] += 1
            await asyncio.sleep(2.0)
        counts["deaf"] += 1


async def nothing_left(verifier: Verifier, engine: Engine) -> float:
    """Wait until no session is left; return how long that took."""
    begin = time.monotonic()
    async with asyncio.timeout(120.0):
        while verifier.registry.entries or verifier.worker.keys:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.05)
    verifier.registry.check_integrity(verifier.worker.keys)
    assert engine.memory.reserved == 0, engine.memory
    return time.monotonic() - begin


async def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Run all phases."""
    source = resolve("smollm2-135m")
    tokenizer = load_tokenizer(source)
    engine = load_model(source, dtype="float32", tokenizer=tokenizer)
    engine.warm_up()
    settings = VerifierSettings(
        server=ServerSettings(listen=Address(host="127.0.0.1", port=0)),
        sessions=SessionSettings(lease_s=LEASE_S),
    )
    watch, idle_watch, stop = Watch(), Watch(), asyncio.Event()
    counts = {"killed": 0, "garbage": 0, "deaf": 0}
    process = psutil.Process()
    async with running_verifier(engine, settings) as verifier:
        with threaded_relay(str(verifier.address), settings=LINK) as relay:
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(good_client(relay, tokenizer, watch, stop))
                idle = group.create_task(
                    idle_client(relay, tokenizer, idle_watch, 60.0 * arguments.idle_minutes)
                )
                await asyncio.sleep(arguments.phase_s / 4)
                quiet_begin = time.monotonic()
                await asyncio.sleep(arguments.phase_s)
                attack_begin, memory_before = time.monotonic(), process.memory_info().rss
                await attack(relay, engine, attack_begin + arguments.phase_s, counts)
                attack_end = time.monotonic()
                await asyncio.sleep(max(LEASE_S * 2, arguments.phase_s))
                calm_end = time.monotonic()
                stop.set()
                second_answer_s = await idle
            until_zero_s = await nothing_left(verifier, engine)
            forgotten = relay.statistics().forgotten_bytes
    engine.clear_prefixes()
    assert engine.memory.used == engine.memory.shared == 0, engine.memory
    phases = {
        "quiet": watch.between(quiet_begin, attack_begin),
        "attack": watch.between(attack_begin, attack_end),
        "after": watch.between(attack_end, calm_end),
    }
    return {
        "bad_clients": counts,
        "answers_s": {name: spread(times) for name, times in phases.items()},
        "texts": len(watch.texts | idle_watch.texts),
        "idle_minutes": arguments.idle_minutes,
        "answer_after_idle_s": round(second_answer_s, 2),
        "bytes_on_forgotten_flows": forgotten,
        "sessions_to_zero_s": round(until_zero_s, 2),
        "cache_bytes_left": engine.memory.used,
        "rss_growth_mib": round((process.memory_info().rss - memory_before) / 2**20, 1),
    }


def spread(times: list[float]) -> dict[str, float]:
    """Median and range of seconds per answer."""
    return {
        "answers": len(times),
        "median": round(statistics.median(times), 2),
        "min": round(min(times), 2),
        "max": round(max(times), 2),
    }


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--idle-minutes", type=float, default=10.0)
    parser.add_argument("--phase-s", type=float, default=120.0)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    result = {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "machine": f"{platform.machine()}, 2 cores",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "grpc": grpc.__version__,
        },
    } | asyncio.run(run(arguments))
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if result["texts"] != 1:
        sys.exit("the texts differ")


if __name__ == "__main__":
    main()
