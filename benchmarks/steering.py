"""Does the draft length follow the link, and an operator's word? All of it real processes; then a plot.

    PYTHONPATH=tests .venv/bin/python benchmarks/steering.py --output benchmarks/results/steering.json \
        --plot docs/images/steering.png

A verifier, an orchestrator with its broker, and an edge that drafts with the target itself (in bfloat16, which is quicker), over a relay whose round trip steps
from 20 to 200 ms and back while answers run one after the other. Every step of the verifier is padded (`--min-step`), so that the
draft can be ahead of a target that is no larger than itself. Told are the draft length over time, how many proposals it took to
follow, how long a pinned length took to reach the edge, and whether all answers are the same.
"""

import argparse
import asyncio
import json
import platform
import re
import secrets
import sys
import time
import urllib.request
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import grpc
import matplotlib as mpl
import torch
from harness.processes import running
from harness.relay import ThreadedRelay, threaded_relay

from paceline.control.messages import EdgeTelemetry
from paceline.mqtt.link import ControlLink, control_link
from paceline.mqtt.settings import BrokerSettings
from paceline.settings import parse_address
from paceline.topics import EDGE_TELEMETRY

mpl.use("Agg")
from matplotlib import pyplot as plt

COMMAND = "paceline.command"
EDGE = "bench"
LOAD_S = 300.0
PROMPT = "Tell me a long story about a river and the people who live on its banks."
NEAR_S, FAR_S = 0.02, 0.2
WITHIN_PROPOSALS = 50
SETTLE_S = 12.0
"""How long the link stays as it is before it changes again; the last `STEADY_S` of it count as steady."""
STEADY_S = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What the edge told at one moment."""

    at_s: float
    proposals: int
    drafted: int
    draft_length: int
    rtt_ms: float
    jitter_ms: float
    acceptance: float
    draft_ms: float
    step_ms: float
    revision: int


class Story:
    """What the edge told, in order."""

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self.marks: list[tuple[float, str]] = []
        self._start_s = time.monotonic()
        self._news = asyncio.Event()

    def now_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._start_s

    def mark(self, what: str) -> float:
        """Note that something was done; return when."""
        self.marks.append((self.now_s(), what))
        return self.marks[-1][0]

    async def listen(self, link: ControlLink) -> None:
        """Take down what comes, for ever."""
        async for received in link.messages():
            value = received.value
            if received.member == EDGE and isinstance(value, EdgeTelemetry):
                self.samples.append(sampled(value, at_s=self.now_s()))
                self._news.set()

    async def until(self, at_s: float) -> None:
        """Wait for a moment."""
        await asyncio.sleep(max(0.0, at_s - self.now_s()))

    def between(self, begin_s: float, end_s: float) -> list[Sample]:
        """Return the samples of some time."""
        return [s for s in self.samples if begin_s <= s.at_s < end_s]


def sampled(telemetry: EdgeTelemetry, *, at_s: float) -> Sample:
    """Return what matters of a message."""
    gauges, counters = telemetry.gauges, telemetry.counters
    return Sample(
        at_s=round(at_s, 3),
        proposals=counters.proposals,
        drafted=counters.drafted,
        draft_length=gauges.draft_length,
        rtt_ms=round(gauges.rtt_s * 1e3, 1),
        jitter_ms=round(gauges.rtt_jitter_s * 1e3, 1),
        acceptance=round(gauges.acceptance_probability, 3),
        draft_ms=round(gauges.draft_s * 1e3, 1),
        step_ms=round(gauges.step_s * 1e3, 1),
        revision=gauges.policy_revision,
    )


async def answer_on(url: str, *, stop: asyncio.Event, texts: list[str], max_tokens: int) -> None:
    """Ask the same again and again until told to stop."""
    while not stop.is_set():
        texts.append(await asyncio.to_thread(ask, url, max_tokens=max_tokens))


def ask(url: str, *, max_tokens: int) -> str:
    """Return the answer of an OpenAI endpoint."""
    body = {
        "model": "any",
        "messages": [{"role": "user", "content": PROMPT}],
        "max_tokens": max_tokens,
        "temperature": 0,
    }
    request = urllib.request.Request(
        f"{url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    with urllib.request.urlopen(request, timeout=300.0) as response:
        content: str = json.load(response)["choices"][0]["message"]["content"]
    return content


def steady(story: Story, end_s: float) -> float:
    """Return the median draft length of the last seconds before a moment."""
    lengths = sorted(s.draft_length for s in story.between(end_s - STEADY_S, end_s))
    return float(lengths[len(lengths) // 2])


def proposals_until(
    story: Story, begin_s: float, end_s: float, *, length: float, tolerance: int
) -> int | None:
    """Return how many proposals went out from a moment until the length was first where it settled."""
    before = [s.proposals for s in story.samples if s.at_s <= begin_s]
    for sample in story.between(begin_s, end_s):
        if abs(sample.draft_length - length) <= tolerance:
            return sample.proposals - (before[-1] if before else 0)
    return None


async def play(
    story: Story, relay: ThreadedRelay, *, edge: str, orchestrator: str, max_tokens: int
) -> dict[str, Any]:
    """Step the link, pin and release, while answers run."""
    texts: list[str] = [await asyncio.to_thread(ask, edge, max_tokens=max_tokens)]
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(answer_on(edge, stop=stop, texts=texts, max_tokens=max_tokens))
        begin_s = story.mark(f"{NEAR_S * 1e3:.0f} ms")
        await story.until(begin_s + SETTLE_S)
        relay.set_rtt(FAR_S)
        far_s = story.mark(f"{FAR_S * 1e3:.0f} ms")
        await story.until(far_s + SETTLE_S)
        relay.set_rtt(NEAR_S)
        near_s = story.mark(f"{NEAR_S * 1e3:.0f} ms")
        await story.until(near_s + SETTLE_S)
        end_s = story.now_s()
        pins = [
            await pinned(story, orchestrator, length=length, timeout_s=10.0) for length in (1, 16)
        ]
        stop.set()
    lengths = {
        "near": steady(story, far_s),
        "far": steady(story, near_s),
        "near_again": steady(story, end_s),
    }
    return {
        "draft_length": lengths,
        "proposals_to_follow": {
            "up": proposals_until(story, far_s, near_s, length=lengths["far"], tolerance=0),
            "down": proposals_until(story, near_s, end_s, length=lengths["near"], tolerance=1),
        },
        "proposals_while": {
            "far": story.between(far_s, near_s)[-1].proposals
            - story.between(far_s, near_s)[0].proposals,
        },
        "pins": pins,
        "texts": len(set(texts)),
        "answers": len(texts),
        "marks": [{"at_s": round(at_s, 2), "what": what} for at_s, what in story.marks],
        "samples": [asdict(sample) for sample in story.samples],
    }


async def pinned(
    story: Story, orchestrator: str, *, length: int, timeout_s: float
) -> dict[str, Any]:
    """Pin the draft length through the command; return how long the edge took to take it up."""
    arguments = ["pin", EDGE, "--draft-length", str(length), "--at", orchestrator]

    def pin() -> None:
        with running(COMMAND, "orchestrator", *arguments, timeout_s=60.0) as child:
            if child.wait(timeout_s=60.0) != 0:
                raise SystemExit(child.stderr)

    # The command's own start is not the policy's way: the time counts from the moment it has been accepted.
    await asyncio.to_thread(pin)
    at_s = story.mark(f"pinned at {length}")
    async with asyncio.timeout(timeout_s):
        while not (  # noqa: ASYNC110 - a poll of our own list
            story.samples and story.samples[-1].draft_length == length
        ):
            await asyncio.sleep(0.01)
    told = next(s for s in story.samples if s.at_s >= at_s - 1.0 and s.draft_length == length)
    await story.until(at_s + 4.0)
    return {"length": length, "told_after_s": round(max(0.0, told.at_s - at_s), 2)}


def plot(result: dict[str, Any], path: Path) -> None:
    """Draw round trip and draft length over one time axis."""
    samples, marks = result["samples"], result["marks"]
    times = [s["at_s"] for s in samples]
    figure, (upper, lower) = plt.subplots(2, 1, sharex=True, figsize=(9, 5), layout="constrained")
    upper.plot(times, [s["rtt_ms"] for s in samples], color="tab:blue")
    upper.set_ylabel("round trip, ms")
    lower.step(times, [s["draft_length"] for s in samples], where="post", color="tab:orange")
    lower.set_ylabel("draft length")
    lower.set_xlabel("seconds")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
        axes.set_ylim(bottom=0)
        for mark in marks:
            axes.axvline(mark["at_s"], color="grey", linewidth=0.8, linestyle="--")
    for mark in marks:
        upper.annotate(
            mark["what"], (mark["at_s"], 1.0), xycoords=("data", "axes fraction"),
            xytext=(3, -10), textcoords="offset points", fontsize=8,
        )  # fmt: skip
    figure.suptitle("The link steps, an operator pins: the draft length follows")
    figure.savefig(path, dpi=110)


def programs(
    stack: ExitStack, arguments: argparse.Namespace
) -> tuple[ThreadedRelay, str, str, str]:
    """Start everything; return the relay, and where edge, orchestrator and broker are."""
    threads = ["--threads", str(arguments.threads)]
    orchestrator = stack.enter_context(
        running(
            COMMAND, "orchestrator", "serve", "--listen", "127.0.0.1:0", "--broker-listen", "127.0.0.1:0",
            ready=r"ready on (\S+) with broker (\S+)",
        )
    )  # fmt: skip
    cloud = stack.enter_context(
        running(
            COMMAND, "cloud", "--target", arguments.target, "--listen", "127.0.0.1:0",
            "--min-step", f"{arguments.min_step_ms}ms", *threads, ready=r"ready on (\S+)", timeout_s=LOAD_S,
        )
    )  # fmt: skip
    assert orchestrator.ready
    assert cloud.ready
    url, broker = orchestrator.ready[1], orchestrator.ready[2]
    relay = stack.enter_context(threaded_relay(cloud.ready[1], rtt_s=NEAR_S))
    edge = stack.enter_context(
        running(
            COMMAND, "edge", "--cloud", str(relay.address), "--target", arguments.target,
            "--draft", arguments.target, "--listen", "127.0.0.1:0", "--broker", broker, "--model-name", "any", "--edge-id", EDGE,
            "--telemetry-interval", "1s", "--dtype", arguments.draft_dtype, *threads, ready=r"ready on (http\S+)", timeout_s=LOAD_S,
        )
    )  # fmt: skip
    assert edge.ready
    return relay, edge.ready[1], url, broker


async def run(arguments: argparse.Namespace, stack: ExitStack) -> dict[str, Any]:
    """Play with all programs up."""
    relay, edge, orchestrator, broker = await asyncio.to_thread(programs, stack, arguments)
    story = Story()
    async with control_link(
        BrokerSettings(address=parse_address(re.sub(r"^mqtts?://", "", broker))),
        name="bench-steering",
        subscriptions=(EDGE_TELEMETRY,),
        generator=secrets.SystemRandom(),
    ) as link, asyncio.TaskGroup() as group:  # fmt: skip
        listener = group.create_task(story.listen(link))
        async with asyncio.timeout(20.0):
            await link.connected()
        result = await play(
            story, relay, edge=edge, orchestrator=orchestrator, max_tokens=arguments.max_tokens
        )
        listener.cancel()
    return result


def main() -> None:
    """Run, write and draw."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    parser.add_argument("--target", default="smollm2-135m")
    parser.add_argument("--min-step-ms", type=int, default=120)
    parser.add_argument("--max-tokens", type=int, default=96)
    parser.add_argument("--threads", type=int, default=1, help="of verifier and edge, each")
    parser.add_argument("--draft-dtype", default="bfloat16", help="the verifier runs in float32")
    arguments = parser.parse_args()
    head = {
        "command": " ".join([Path(sys.executable).name, *sys.argv]),
        "machine": f"{platform.machine()}, 2 cores",
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "grpc": grpc.__version__,
        },
    }
    with ExitStack() as stack:
        result = head | asyncio.run(run(arguments, stack))
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    plot(result, arguments.plot)
    shown = {name: value for name, value in result.items() if name != "samples"}
    print(json.dumps(shown, indent=1))
    lengths, followed = result["draft_length"], result["proposals_to_follow"]
    followed_in_time = all(
        taken is not None and taken <= WITHIN_PROPOSALS for taken in followed.values()
    )
    if (
        result["texts"] != 1
        or not followed_in_time
        or lengths["far"] - lengths["near"] < 3
        or abs(lengths["near_again"] - lengths["near"]) > 1
        or any(pin["told_after_s"] > 2.0 for pin in result["pins"])
    ):
        sys.exit("it did not follow as it should")


if __name__ == "__main__":
    main()
