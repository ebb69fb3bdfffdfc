"""The demo as a user runs it: five programs, with a real model once and with a tiny one where the text is not looked at."""

import json
import re
import signal
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness.models import save_tiny
from harness.processes import is_running, running

START_S = 120.0
END_S = 60.0
ARGUMENTS = ("demo", "--rtt", "20ms", "--max-tokens", "12")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, ...]:
    return (*ARGUMENTS, "--target", str(save_tiny(tmp_path_factory.mktemp("model"))))


@pytest.mark.real
def test_the_demo_compares_two_answers_over_the_link(tmp_path: Path) -> None:
    with running("paceline.command", *ARGUMENTS, environment={"TMPDIR": str(tmp_path)}) as demo:
        assert demo.wait(timeout_s=START_S) == 0, demo.stderr
        output = demo.stdout
    assert "Identical text, with drafts and without: the same 12 tokens (float32)." in output
    assert "The same from the cloud alone" in output
    carried = re.findall(r"(\d+) bytes up, (\d+)", " ".join(output.split()))
    assert all(int(number) > 100 for pair in carried for number in pair), output
    assert "tokens/s" in output
    assert "acceptance" in output
    assert re.search(r"The fleet, live: http://127.0.0.1:\d+", output)
    # Twelve tokens may be over before the orchestrator has heard enough to plan; the demo that stays is planned for.
    assert re.search(
        r"(?m)^The orchestrator told this edge: (draft \d+ tokens? ahead: [^|]+?\.$|nothing: it answered too)",
        output,
    ), output
    assert list(tmp_path.iterdir()) == []


def test_a_demo_that_stays_answers_on(tiny: tuple[str, ...], tmp_path: Path) -> None:
    # Long enough for the edge to hear of a text while it is written, and to guess.
    arguments = (*tiny, "--max-tokens", "200", "--stay")
    with running("paceline.command", *arguments, environment={"TMPDIR": str(tmp_path)}) as demo:
        page = demo.wait_for(r"The fleet, live: (\S+)", timeout_s=START_S)[1]
        demo.wait_for("An OpenAI endpoint is at", timeout_s=START_S)
        # The edge of the comparison has gone; this is the one that stays.
        edge_of(page, until=lambda edge: edge["state"] == "online" and edge["tokens_per_s"])
        edge_of(page, until=lambda edge: edge["revision"] > 0)
        demo.signal(signal.SIGINT)
        assert demo.wait(timeout_s=END_S) == 130
    assert "Traceback" not in demo.stderr


def edge_of(page: str, *, until: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    """Return what the orchestrator says of the edge as soon as it is as wanted."""
    deadline_s = time.monotonic() + END_S
    while time.monotonic() < deadline_s:
        with urllib.request.urlopen(f"{page}/api/edges/demo", timeout=END_S) as response:
            edge: dict[str, Any] = json.load(response)
        if until(edge):
            return edge
        time.sleep(0.1)
    raise AssertionError(edge)


def test_the_demo_ends_with_all_its_programs(tiny: tuple[str, ...], tmp_path: Path) -> None:
    with running(
        "paceline.command", *tiny, ready="^> ", environment={"TMPDIR": str(tmp_path)}
    ) as demo:
        children = psutil.Process(demo.pid).children(recursive=True)
        assert children
        demo.signal(signal.SIGINT)
        assert demo.wait(timeout_s=END_S) == 130
    assert "Traceback" not in demo.stderr
    assert not [child for child in children if is_running(child.pid)]
    assert list(tmp_path.iterdir()) == []


def test_no_program_outlives_a_demo_that_was_killed(tiny: tuple[str, ...], tmp_path: Path) -> None:
    # The link and the edge have the same parent and the same lifeline as the verifier.
    with running("paceline.command", *tiny, environment={"TMPDIR": str(tmp_path)}) as demo:
        demo.wait_for_stderr("starting the verifier", timeout_s=START_S)
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.kill()
    gone, alive = psutil.wait_procs(children, timeout=END_S)
    assert gone
    assert not alive
