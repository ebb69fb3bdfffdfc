"""The demo as a user runs it: three programs and a real model."""

import re
import signal
from pathlib import Path

import psutil
import pytest
from harness.processes import is_running, running

START_S = 120.0
END_S = 60.0
ARGUMENTS = ("demo", "--rtt", "20ms", "--max-tokens", "12")

pytestmark = [pytest.mark.slow, pytest.mark.real]


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
    assert list(tmp_path.iterdir()) == []


def test_the_demo_ends_with_all_its_programs(tmp_path: Path) -> None:
    with running(
        "paceline.command", *ARGUMENTS, ready="^> ", environment={"TMPDIR": str(tmp_path)}
    ) as demo:
        children = psutil.Process(demo.pid).children(recursive=True)
        assert children
        demo.signal(signal.SIGINT)
        assert demo.wait(timeout_s=END_S) == 130
    assert "Traceback" not in demo.stderr
    assert not [child for child in children if is_running(child.pid)]
    assert list(tmp_path.iterdir()) == []


def test_no_program_outlives_a_demo_that_was_killed(tmp_path: Path) -> None:
    # The link and the edge have the same parent and the same lifeline as the verifier.
    with running("paceline.command", *ARGUMENTS, environment={"TMPDIR": str(tmp_path)}) as demo:
        demo.wait_for_stderr("starting the verifier", timeout_s=START_S)
        children = psutil.Process(demo.pid).children(recursive=True)
        demo.kill()
    gone, alive = psutil.wait_procs(children, timeout=END_S)
    assert gone
    assert not alive
