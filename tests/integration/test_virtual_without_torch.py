"""Worlds of toy models do without PyTorch, which takes seconds to import: schedules of faults, and tests of users."""

import subprocess
import sys

import pytest

PROGRAM = """
import sys

sys.modules.update(torch=None, transformers=None)

from simulator.virtual.campaign import campaign

report = campaign(first=0, count=2, num_processes=1)
assert not report.failures, report
print(report.num_tokens)
"""


@pytest.mark.slow
def test_schedules_are_tried_without_pytorch() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60.0, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 2 * (64 + 32)
