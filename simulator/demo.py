"""`paceline demo`: the whole system on one machine; one answer with drafts and one without.

generate (edge) --- link --- cloud (verifier)
      |                        |
      +------- broker ---------+
            (orchestrator)
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from paceline.console import LEGEND, progress
from paceline.settings import ADDRESS, BANDWIDTH, DURATION, Address, color_wanted
from simulator.asking import explained, keep_asking
from simulator.programs import ESCAPES, Program, ProgramError, running

PROMPT = (
    "Write this list again, sorted by age, youngest first, and nothing else: "
    "Alice is 42 years old. Bob is 35 years old. Carol is 28 years old. Dave is 51 years old."
)

LOAD_TIMEOUT_S = 600.0
"""Longest time to load and warm up the target; a large one comes from the network first."""

LINK_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 600.0
START_TIMEOUT_S = 60.0
"""Longest time for a program without a model to start."""

EDGE_ID = "demo"
NO_DRAFT = "none"
READ_BYTES = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoSettings:
    """What the demo shows."""

    prompt: str
    target: str
    draft: str
    dtype: str
    rtt_s: float
    bandwidth_bps: float | None
    max_tokens: int
    temperature: float
    seed: int
    device: str
    dashboard: Address
    """Where the orchestrator's page is."""
    stay: bool
    """Go on answering after the comparison."""


@dataclass(frozen=True, slots=True, kw_only=True)
class House:
    """What runs for as long as the demo does."""

    verifier: str
    broker: str
    dashboard: str
    environment: Mapping[str, str]
    """Of an edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """One answer as its reader saw it."""

    text: str
    token_ids: tuple[int, ...]
    statistics: str
    """The edge's own summary, one line."""
    streaming_s: float
    """From the first piece of text to the last."""
    up_bytes: int
    """Bytes of TCP payload over the link, handshake and headers of HTTP/2 included."""
    down_bytes: int


@click.command()
@click.option("--prompt", default=PROMPT, show_default=False, help="What to ask.  [sort a list]")
@click.option("--target", default="smollm2-135m", help="Model of the verifier.")
@click.option("--draft", default="lookup", help="What drafts at the edge: lookup, or a model.")
@click.option(
    "--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32", help="Arithmetic."
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    help="Where the target runs.",
)
@click.option("--rtt", "rtt_s", type=DURATION, default="60ms", help="Round trip time of the link.")
@click.option(
    "--bandwidth", "bandwidth_bps", type=BANDWIDTH, help="Of each way of the link.  [unlimited]"
)
@click.option("--max-tokens", type=click.IntRange(min=1), default=64, help="Most tokens to answer.")
@click.option("--temperature", type=click.FloatRange(min=0.0), default=0.0, help="0 is greedy.")
@click.option("--seed", type=click.IntRange(min=0), default=1, help="Of the draws.")
@click.option(
    "--dashboard",
    type=ADDRESS,
    default="127.0.0.1:0",
    help="Where the page of the orchestrator is; port 0 is any.",
)
@click.option(
    "--stay", is_flag=True, help="Then go on answering until Ctrl-C, with something to see there."
)
def demo(**options: Any) -> None:
    """Answer a prompt over an emulated link, with drafts and without.

    Starts a verifier, an orchestrator with its broker, an emulated wide-area link and an edge as separate processes, shows
    the answer as it comes, then the same from the cloud alone, and whether the texts are the same. Ctrl-C ends all of them.
    """
    asyncio.run(_show(DemoSettings(**options)))


async def _show(settings: DemoSettings) -> None:
    """Run the demo; a signal to end is the same as Ctrl-C."""
    task = asyncio.current_task()
    assert task is not None
    ended: list[signal.Signals] = []

    def stop(number: signal.Signals) -> None:
        ended.append(number)
        task.cancel()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, stop, number)
    try:
        # PyTorch leaves a cache in the folder for temporary files; what the children leave goes when we go.
        with tempfile.TemporaryDirectory(prefix="paceline-demo-") as folder:
            await _compare(settings, environment={"TMPDIR": folder})
    except asyncio.CancelledError:
        if not ended:
            raise
        raise click.Abort from None


async def _compare(settings: DemoSettings, *, environment: Mapping[str, str]) -> None:
    console = Console(no_color=not color_wanted(), highlight=False)
    async with contextlib.AsyncExitStack() as stack:
        house = await _build(settings, stack, environment=environment)
        console.print(f"The fleet, live: {house.dashboard}", soft_wrap=True)
        console.print(Text(f"\n> {settings.prompt}\n", style="bold"))
        drafted = await _answer(settings, house=house, draft=settings.draft)
        explanation = await explained(house.dashboard, EDGE_ID)
        console.print(Text("\nThe same from the cloud alone, over the same link:\n", style="bold"))
        plain = await _answer(settings, house=house, draft=NO_DRAFT)
        console.print(_side_by_side(drafted, plain, settings))
        said = verdict(drafted.token_ids, plain.token_ids, dtype=settings.dtype)
        console.print(Text(said, style="bold"))
        console.print(Text(f"\nThe orchestrator told this edge: {explanation}."))
        if settings.stay:
            console.print(f"\nAnswering on until Ctrl-C; look at {house.dashboard}", soft_wrap=True)
            await _stay(settings, house)


async def _build(
    settings: DemoSettings,
    stack: contextlib.AsyncExitStack,
    *,
    environment: Mapping[str, str],
) -> House:
    """Start what stays: orchestrator with broker, and verifier."""
    orchestrator = await stack.enter_async_context(
        running(
            "the orchestrator",
            *("orchestrator", "serve", "--listen", str(settings.dashboard)),
            *("--broker-listen", "127.0.0.1:0"),
        )
    )
    with progress("starting the orchestrator"):
        pattern = r"ready on (\S+) with broker (\S+)"
        page = await orchestrator.wait_for(pattern, timeout_s=START_TIMEOUT_S)
    arguments = ["cloud", "--target", settings.target, "--listen", "127.0.0.1:0"]
    arguments += ["--dtype", settings.dtype, "--device", settings.device, *_threads()]
    arguments += ["--broker", page[2], "--verifier-id", EDGE_ID]
    verifier = await stack.enter_async_context(
        running("the verifier", *arguments, environment=environment)
    )
    with progress(f"starting the verifier, loading {settings.target}"):
        ready = await verifier.wait_for(r"ready on (\S+)", timeout_s=LOAD_TIMEOUT_S)
    return House(
        verifier=ready[1],
        broker=page[2],
        dashboard=page[1],
        environment={**environment, **_terminal_environment()},
    )


@contextlib.asynccontextmanager
async def _link(settings: DemoSettings, house: House) -> AsyncIterator[tuple[Program, str]]:
    """Run an emulated link to the verifier; give it, and where an edge connects."""
    arguments = ["link", "--json", "--to", house.verifier, "--rtt", f"{settings.rtt_s * 1e3:f}ms"]
    if settings.bandwidth_bps is not None:
        arguments += ["--bandwidth", f"{settings.bandwidth_bps:f}bit"]
    async with running("the link", *arguments) as link:
        listening = await link.wait_for(r"listening.*", timeout_s=LINK_TIMEOUT_S)
        port = re.search(r'"port": (\d+)', listening[0])
        assert port is not None
        yield link, f"127.0.0.1:{port[1]}"


async def _answer(settings: DemoSettings, *, house: House, draft: str) -> Answer:
    """Answer over a fresh link, so that its bytes are those of this answer."""
    async with _link(settings, house) as (link, address):
        file = Path(house.environment["TMPDIR"]) / "answer.json"
        arguments = ["generate", *_edge_arguments(settings, house, address=address, draft=draft)]
        arguments += ["--json-file", str(file)]
        arguments += ["--max-tokens", str(settings.max_tokens)]
        arguments += ["--temperature", str(settings.temperature), "--seed", str(settings.seed)]
        async with running(
            "the edge", *arguments, "--", settings.prompt, environment=house.environment
        ) as edge:
            text, streaming_s = await _stream(edge)
            statistics = await edge.last_words()
            click.echo(statistics, err=True)
        carried = json.loads((await link.end()).splitlines()[-1])
    return Answer(
        text=text,
        token_ids=tuple(json.loads(file.read_text(encoding="utf-8"))["token_ids"]),
        statistics=statistics,
        streaming_s=streaming_s,
        up_bytes=carried["up_bytes"],
        down_bytes=carried["down_bytes"],
    )


def _edge_arguments(settings: DemoSettings, house: House, *, address: str, draft: str) -> list[str]:
    """Return what every edge of the demo is told. The plan decides how far it drafts, but the link is the one shown."""
    models = ["--target", settings.target, "--draft", draft, "--dtype", settings.dtype]
    control = ["--broker", house.broker, "--edge-id", EDGE_ID, "--no-follow-verifiers"]
    return ["--cloud", address, *models, *control, "--telemetry-interval", "1s", *_threads()]


async def _stay(settings: DemoSettings, house: House) -> None:
    """Serve as a lasting edge does, and ask it one thing after the other."""
    async with _link(settings, house) as (_, address):
        arguments = _edge_arguments(settings, house, address=address, draft=settings.draft)
        async with running(
            "the edge", "edge", *arguments, "--listen", "127.0.0.1:0", environment=house.environment
        ) as edge:
            ready = await edge.wait_for(r"ready on (\S+) with (\S+)", timeout_s=LOAD_TIMEOUT_S)
            click.echo(f"An OpenAI endpoint is at {ready[1]}")
            await keep_asking(ready[1], model=ready[2], max_tokens=settings.max_tokens)


async def _stream(edge: Program) -> tuple[str, float]:
    """Show what the edge writes as it comes; return it without colours, and how long it came."""
    loop = asyncio.get_running_loop()
    received: list[bytes] = []
    times_s: list[float] = []
    async with asyncio.timeout(ANSWER_TIMEOUT_S):
        with contextlib.ExitStack() as waiting:
            waiting.enter_context(progress("starting the edge"))
            while data := await edge.output.read(READ_BYTES):
                waiting.close()
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
                received.append(data)
                times_s.append(loop.time())
        if await edge.process.wait() != 0:
            raise await edge.failure()
    if not received:
        raise ProgramError("the edge gave no answer")
    text = ESCAPES.sub("", b"".join(received).decode(errors="replace"))
    return text.strip("\n"), times_s[-1] - times_s[0]


def _threads() -> list[str]:
    """Return the option that gives verifier and edge half of the cores each: they compute at the same time."""
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return ["--threads", str(max(1, cores // 2))]


def verdict(drafted: Sequence[int], plain: Sequence[int], *, dtype: str) -> str:
    """Return the one line that says whether the two texts are the same, token by token, and which precision ran."""
    if drafted == plain:
        return f"Identical text, with drafts and without: the same {len(plain)} tokens ({dtype})."
    pairs = zip(drafted, plain, strict=False)
    same = next(
        (index for index, (left, right) in enumerate(pairs) if left != right),
        min(len(drafted), len(plain)),
    )
    promised = (
        "this is a bug, in float32 it must be identical"
        if dtype == "float32"
        else f"{dtype} promises the same distribution, and rounding can flip a token"
    )
    return f"Different text from token {same + 1} on ({dtype}): {promised}."


def _side_by_side(drafted: Answer, plain: Answer, settings: DemoSettings) -> Table:
    title = f"{settings.target} in {settings.dtype} over {settings.rtt_s * 1e3:.0f} ms"
    table = Table(title=title, show_lines=True)
    for heading in ("", f"drafts: {settings.draft}", "cloud alone"):
        table.add_column(Text(heading), ratio=1 if heading else None)

    def row(name: str, *cells: str) -> None:
        # Text, not markup: a model's words are not ours to interpret.
        table.add_row(name, *(Text(cell) for cell in cells))

    row("answer", drafted.text, plain.text)
    row("text streamed in", f"{drafted.streaming_s:.2f} s", f"{plain.streaming_s:.2f} s")
    row("statistics", *(each.statistics.replace(" | ", "\n") for each in (drafted, plain)))
    row(
        "over the link",
        *(f"{answer.up_bytes} bytes up, {answer.down_bytes} down" for answer in (drafted, plain)),
    )
    if _on_terminal():
        table.caption = LEGEND
    return table


def _terminal_environment() -> dict[str, str]:
    """Return what makes the edge, which writes to us, colour its text for the terminal that we write to."""
    return {"FORCE_COLOR": "1", "TERM": "xterm-256color"} if _on_terminal() else {}


def _on_terminal() -> bool:
    return sys.stdout.isatty() and color_wanted()
