"""What Ray Serve's ingress costs: a round trip through it against one to the verifier's own server.

    PYTHONPATH=tests .venv/bin/python benchmarks/ray_latency.py --output benchmarks/results/ray_latency.json

Two programs serve the same tiny model: `paceline cloud`, and `paceline cloud --ray` with one replica. Calls to the one
and to the other alternate, so that what else the machine does falls on both. Two round trips are timed: Describe, a unary
call; and proposal to commit on an open stream, with a verifier that waits for drafts (--no-race), which includes a step
of the tiny model. Compare within one run.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import grpc
from harness.models import save_tiny
from harness.processes import running
from harness.raw_edge import TINY_PROMPT, RawStream

from paceline.codec import encode_edge
from paceline.engine.loading import load_tokenizer, resolve
from paceline.messages import Close, CloseReason, Commit, Open, Opened, Proposal
from paceline.sampling.settings import SamplingSettings
from paceline.session.edge import EdgeSession
from paceline.session.events import Drafted, FromCloud, LinkUp, Send
from paceline.tokens import TokenId
from paceline.v1 import verification_pb2 as pb
from paceline.v1 import verification_pb2_grpc as pb_grpc

READY = r"ready on (\S+)$"
SWITCHES = ("RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD", "RAY_SERVE_USE_GRPC_BY_DEFAULT")
"""Of Ray Serve, on which its latency depends."""
TOKENS = 400


class Walker:
    """A session that is driven one proposal at a time; a new one takes over when it is over."""

    def __init__(self, channel: grpc.aio.Channel, fingerprint: bytes) -> None:
        self._channel = channel
        self._request = Open(
            tokenizer_fingerprint=fingerprint,
            prompt=tuple(TokenId(token) for token in TINY_PROMPT),
            sampling=SamplingSettings(temperature=0.0),
            max_tokens=TOKENS,
        )

    async def open(self) -> None:
        """Begin a session."""
        self._session = EdgeSession(request=self._request, draft_length=1, window=64)
        self._stream = RawStream(self._channel)
        for effect in self._session.handle(LinkUp(holds_session=True)):
            if isinstance(effect, Send):
                await self._stream.send(effect.message)
        await self._until_commit()

    async def round_trip_ms(self) -> float:
        """Send one draft token and wait for what the verifier says to it."""
        while (request := self._session.draft_request) is None:
            if self._session.is_over:
                await self._stream.call.done_writing()
                await self.open()
            else:  # nothing to guess before the last token
                await self._until_commit()
        drafted = Drafted(position=request.position, tokens=(*request.path, TokenId(7)))
        proposals = [
            effect.message
            for effect in self._session.handle(drafted)
            if isinstance(effect, Send) and isinstance(effect.message, Proposal)
        ]
        begin = time.perf_counter()
        for proposal in proposals:
            await self._stream.send(proposal)
        await self._until_commit()
        return (time.perf_counter() - begin) * 1e3

    async def close(self) -> None:
        """End it."""
        await self._stream.call.write(encode_edge(Close(reason=CloseReason.CANCELLED)))
        await self._stream.call.done_writing()

    async def _until_commit(self) -> None:
        while True:
            message = await self._stream.receive()
            assert isinstance(message, Opened | Commit), message
            for effect in self._session.handle(FromCloud(message=message)):
                if isinstance(effect, Send):
                    await self._stream.send(effect.message)
            if isinstance(message, Commit):
                return


async def describe_ms(channel: grpc.aio.Channel) -> float:
    stub: Any = pb_grpc.VerificationServiceStub(channel)
    begin = time.perf_counter()
    await stub.Describe(pb.DescribeRequest())
    return (time.perf_counter() - begin) * 1e3


async def measure(addresses: dict[str, str], model: Path, num_trips: int) -> dict[str, Any]:
    fingerprint = load_tokenizer(resolve(str(model))).fingerprint
    channels = {name: grpc.aio.insecure_channel(address) for name, address in addresses.items()}
    walkers = {name: Walker(channel, fingerprint) for name, channel in channels.items()}
    times: dict[str, dict[str, list[float]]] = {
        what: {name: [] for name in addresses} for what in ("describe_ms", "proposal_to_commit_ms")
    }
    for walker in walkers.values():
        await walker.open()
    for number in range(num_trips + 20):
        for name, channel in channels.items():
            trips = {
                "describe_ms": await describe_ms(channel),
                "proposal_to_commit_ms": await walkers[name].round_trip_ms(),
            }
            if number >= 20:  # the first ones warm up
                for what, took_ms in trips.items():
                    times[what][name].append(took_ms)
    for walker in walkers.values():
        await walker.close()
    for channel in channels.values():
        await channel.close(None)
    return {what: summary(each) for what, each in times.items()}


def summary(times: dict[str, list[float]]) -> dict[str, Any]:
    figures: dict[str, Any] = {
        name: {
            "median": round(statistics.median(each), 3),
            "p99": round(statistics.quantiles(each, n=100)[98], 3),
            "smallest": round(min(each), 3),
        }
        for name, each in times.items()
    }
    direct, through = figures["direct"], figures["ray"]
    return figures | {
        "ratio_of_medians": round(through["median"] / direct["median"], 2),
        "added_by_the_ingress": round(through["median"] - direct["median"], 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trips", type=int, default=1000)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = save_tiny(Path(folder))
        options = (
            *("--target", str(model), "--listen", "127.0.0.1:0", "--threads", "1"),
            *("--no-race", "--race-patience", "10s", "--drain", "1s"),
        )
        program = "paceline.command"
        with (
            running(program, "cloud", *options, ready=READY) as direct,
            running(program, "cloud", "--ray", *options, ready=READY) as ray,
        ):
            assert direct.ready is not None
            assert ray.ready is not None
            load_before = os.getloadavg()[0]
            addresses = {"direct": direct.ready[1], "ray": ray.ready[1]}
            figures = asyncio.run(measure(addresses, model, arguments.trips))
            for child in (direct, ray):
                child.terminate()
    result = {
        "command": "benchmarks/ray_latency.py",
        "trips": arguments.trips,
        "machine": platform.platform(),
        "cores": os.cpu_count(),
        "load_before": round(load_before, 2),
        "load_after": round(os.getloadavg()[0], 2),
        "versions": {name: version(name) for name in ("ray", "grpcio", "torch")},
        "switches": {name: os.environ.get(name, "as paceline sets it") for name in SWITCHES},
        **figures,
    }
    print(json.dumps(result, indent=2))
    if arguments.output is not None:
        arguments.output.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
