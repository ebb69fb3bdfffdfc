"""Nothing lost: broker, orchestrator and one of two verifiers killed and restarted in turn while answers run.

    PYTHONPATH=tests .venv/bin/python benchmarks/restarts.py --output benchmarks/results/restarts.json

Two verifiers, an orchestrator, a broker of its own (mosquitto) and an edge, all real processes. Twenty answers, two at a time; as
long as they run, every few seconds one of the four is killed with SIGKILL and started again at its old address. Told are whether
every text is the one of an undisturbed answer, the longest silence that a reader of the stream met after each kill (time to go on),
and how long after its return the orchestrator had heard of the edge and both verifiers again.
"""

import argparse
import itertools
import json
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import torch
from harness.processes import Child, free_port, running

COMMAND = "paceline.command"
EDGE = "bench"
LOAD_S = 300.0
ANSWERS = 20
AT_A_TIME = 2
PAUSE_S = 2.5
"""Between a program's return and the next kill."""
PROMPTS = (
    "Tell me a long story about a river and the people who live on its banks.",
    "Explain step by step how bread is baked.",
    "Write a Python function that sorts a list of names, and explain it.",
    "List ten animals and say where each of them lives.",
)


@dataclass(slots=True, kw_only=True)
class Program:
    """A program that can be killed and started again at the same place."""

    name: str
    start: Callable[[], Any]
    _running: Any = None
    child: Child | None = None

    def up(self) -> None:
        """Start it and wait until it is ready."""
        self._running = self.start()
        self.child = self._running.__enter__()

    def kill(self) -> None:
        """End it without asking."""
        assert self.child is not None
        self.child.kill()
        self.down()

    def down(self) -> None:
        """End it."""
        running_, self._running = self._running, None
        if running_ is not None:
            running_.__exit__(None, None, None)


@dataclass(slots=True)
class Reader:
    """Streams answers and notes when pieces came."""

    pieces_s: list[float] = field(default_factory=list)
    texts: list[tuple[int, str]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def stream(url: str, prompt: str, *, max_tokens: int, reader: Reader) -> str:
    """Return a streamed answer."""
    body = {
        "model": "any",
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": max_tokens,
        "temperature": 0,
        "stream": True,
    }
    request = urllib.request.Request(
        f"{url}/chat/completions",
        data=json.dumps(body).encode(),
        headers={"Content-Type": "application/json"},
    )
    text = ""
    with urllib.request.urlopen(request, timeout=300.0) as response:
        for line in response:
            if not line.startswith(b"data: ") or line.strip() == b"data: [DONE]":
                continue
            event = json.loads(line[6:])
            if "error" in event:
                raise RuntimeError(event["error"])
            choices = event["choices"]
            if choices and (piece := choices[0]["delta"].get("content")):
                reader.pieces_s.append(time.monotonic())
                text += piece
    return text


def answer_all(url: str, *, max_tokens: int, readers: list[Reader]) -> None:
    """Ask for all answers, some at a time."""
    numbers = iter(range(ANSWERS))
    lock = threading.Lock()

    def work(reader: Reader) -> None:
        while True:
            with lock:
                number = next(numbers, None)
            if number is None:
                return
            which = number % len(PROMPTS)
            try:
                text = stream(url, PROMPTS[which], max_tokens=max_tokens, reader=reader)
            except (OSError, RuntimeError) as error:
                reader.errors.append(repr(error))
            else:
                reader.texts.append((which, text))

    threads = [threading.Thread(target=work, args=(reader,)) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def mosquitto(place: str, folder: Path) -> Iterator[Child]:
    """Run a broker that keeps nothing over a restart: the programs must say all again."""
    configuration = folder / "mosquitto.conf"
    port = place.rpartition(":")[2]
    lines = (f"listener {port} 127.0.0.1", "allow_anonymous true", "persistence false")
    configuration.write_text("\n".join(lines) + "\n")
    process = subprocess.Popen(
        [shutil.which("mosquitto") or "/usr/sbin/mosquitto", "-c", str(configuration)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    child = Child(process)
    try:
        child.wait_for_stderr(r"running")
        yield child
    finally:
        if process.poll() is None:
            child.kill()


def in_fleet(orchestrator: str, up_s: float, *, timeout_s: float = 60.0) -> float | None:
    """Return how long after a program's return the orchestrator had heard of edge and both verifiers again."""
    up_unix_s = time.time() - (time.monotonic() - up_s)
    while time.monotonic() < up_s + timeout_s:
        try:
            with urllib.request.urlopen(f"{orchestrator}/api/fleet", timeout=2.0) as response:
                if is_complete(json.load(response), since_unix_s=up_unix_s):
                    return round(time.monotonic() - up_s, 2)
        except OSError:
            pass
        time.sleep(0.05)
    return None


def is_complete(fleet: dict[str, Any], *, since_unix_s: float) -> bool:
    """Whether the edge and both verifiers are there and have been heard since."""
    members = [*(e for e in fleet["edges"] if e["id"] == EDGE), *fleet["verifiers"]]
    heard = [m for m in members if m["state"] == "online" and m["heard_at_s"] >= since_unix_s]
    return bool(fleet["orchestrator"]["is_connected"]) and len(heard) == 3


def silence_after(pieces_s: list[float], at_s: float) -> float | None:
    """Return how long a reader waited for the piece that came next after a moment, from the piece before it."""
    before = [piece for piece in pieces_s if piece <= at_s]
    after = [piece for piece in pieces_s if piece > at_s]
    return after[0] - before[-1] if before and after else None


def programs(
    arguments: argparse.Namespace, folder: Path, places: dict[str, str]
) -> dict[str, Program]:
    """Return every program that can be killed, each at its place."""
    broker = places["broker"]

    def verifier(name: str) -> Program:
        return Program(
            name=name,
            start=lambda: running(
                COMMAND, "cloud", "--target", arguments.target, "--listen", places[name],
                "--broker", broker, "--verifier-id", name.replace(" ", "-"), "--threads", "1",
                "--min-step", f"{arguments.min_step_ms}ms", ready=r"ready on", timeout_s=LOAD_S,
            ),
        )  # fmt: skip

    orchestrator = Program(
        name="orchestrator",
        start=lambda: running(
            COMMAND, "orchestrator", "serve", "--listen", places["orchestrator"], "--broker", broker,
            ready=r"ready on",
        ),
    )  # fmt: skip
    return {
        "broker": Program(name="broker", start=lambda: mosquitto(broker, folder)),
        "orchestrator": orchestrator,
        "verifier 1": verifier("verifier 1"),
        "verifier 2": verifier("verifier 2"),
    }


def disturb(
    everything: dict[str, Program], orchestrator: str, *, over: threading.Event
) -> list[dict[str, Any]]:
    """Kill and restart one program after the other until all answers are there."""
    kills: list[dict[str, Any]] = []
    for name in itertools.cycle(("verifier 1", "broker", "orchestrator")):
        if over.wait(PAUSE_S):
            return kills
        program = everything[name]
        killed_s = time.monotonic()
        program.kill()
        program.up()
        up_s = time.monotonic()
        kills.append(
            {
                "program": name,
                "killed_s": killed_s,
                "down_for_s": round(up_s - killed_s, 2),
                "heard_again_after_s": in_fleet(orchestrator, up_s),
            }
        )
    return kills


def run(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Answer undisturbed, then disturbed."""
    names = ("broker", "orchestrator", "verifier 1", "verifier 2")
    places = {name: f"127.0.0.1:{free_port()}" for name in names}
    everything = programs(arguments, folder, places)
    orchestrator = f"http://{places['orchestrator']}"
    with ExitStack() as stack:
        for program in everything.values():
            program.up()
            stack.callback(program.down)
        edge = stack.enter_context(
            running(
                COMMAND, "edge", "--cloud", places["verifier 1"], "--cloud", places["verifier 2"],
                "--target", arguments.target, "--draft", "lookup", "--listen", "127.0.0.1:0",
                "--broker", places["broker"], "--model-name", "any", "--edge-id", EDGE, "--threads", "1",
                ready=r"ready on (http\S+)", timeout_s=LOAD_S,
            )
        )  # fmt: skip
        assert edge.ready
        url = edge.ready[1]
        quiet = Reader()
        expected = {
            which: stream(url, prompt, max_tokens=arguments.max_tokens, reader=quiet)
            for which, prompt in enumerate(PROMPTS)
        }
        gaps = [b - a for a, b in itertools.pairwise(quiet.pieces_s)]
        readers = [Reader() for _ in range(AT_A_TIME)]
        over = threading.Event()
        kills: list[dict[str, Any]] = []
        disturber = threading.Thread(
            target=lambda: kills.extend(disturb(everything, orchestrator, over=over))
        )
        disturber.start()
        answer_all(url, max_tokens=arguments.max_tokens, readers=readers)
        over.set()
        disturber.join()
    return told(readers, kills, expected=expected, gaps=gaps)


def told(
    readers: list[Reader],
    kills: list[dict[str, Any]],
    *,
    expected: dict[int, str],
    gaps: list[float],
) -> dict[str, Any]:
    """Return the result."""
    texts = [text for reader in readers for text in reader.texts]
    for kill in kills:
        silences = [silence_after(reader.pieces_s, kill["killed_s"]) for reader in readers]
        known = [silence for silence in silences if silence is not None]
        kill["time_to_go_on_s"] = round(max(known), 2) if known else None
        del kill["killed_s"]
    by_program: dict[str, Any] = {}
    for name in ("verifier 1", "broker", "orchestrator"):
        of_it = [kill for kill in kills if kill["program"] == name]
        by_program[name] = {
            "kills": len(of_it),
            "time_to_go_on_s": spread([k["time_to_go_on_s"] for k in of_it]),
            "down_for_s": spread([k["down_for_s"] for k in of_it]),
            "heard_again_after_s": spread([k["heard_again_after_s"] for k in of_it]),
        }
    return {
        "answers": len(texts),
        "identical": sum(text == expected[which] for which, text in texts),
        "errors": [error for reader in readers for error in reader.errors],
        "undisturbed_gap_s": spread(gaps),
        "programs": by_program,
        "kills": kills,
    }


def spread(values: Sequence[float | None]) -> dict[str, float] | None:
    """Median and range."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    return {
        "median": round(statistics.median(known), 3),
        "min": round(min(known), 3),
        "max": round(max(known), 3),
    }


def main() -> None:
    """Run and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--target", default="smollm2-135m")
    parser.add_argument("--min-step-ms", type=int, default=60)
    parser.add_argument("--max-tokens", type=int, default=96)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "command": " ".join([Path(sys.executable).name, *sys.argv]),
            "machine": f"{platform.machine()}, 2 cores",
            "versions": {
                "python": platform.python_version(),
                "torch": torch.__version__,
                "grpc": grpc.__version__,
            },
        } | run(arguments, Path(folder))
    arguments.output.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    if result["identical"] != ANSWERS or result["errors"]:
        sys.exit("an answer was lost or altered")


if __name__ == "__main__":
    main()
