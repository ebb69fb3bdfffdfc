"""Work that dies by SIGKILL in the middle, as on a machine that loses power: nothing is cleaned up."""

from __future__ import annotations

import multiprocessing
import os
import re
import signal
import sys
from collections.abc import Callable
from typing import Any

from edge.distillation.progress import Progress

KILLED_S = 60.0
"""Longest time until the work is where it dies."""


def killed(work: Callable[..., object], *args: Any, **named: Any) -> None:
    """Run work that kills its own process, in a process of its own; fail if it does not."""
    child = multiprocessing.get_context("fork").Process(target=work, args=args, kwargs=named)
    child.start()
    child.join(KILLED_S)
    assert child.exitcode == -signal.SIGKILL


def killed_on_open(pattern: str, times: int, work: Callable[..., object], *args: Any) -> None:
    """Run work in a process of its own until a file whose path matches is opened for that time, and kill it then."""

    def watched() -> None:
        left = times

        def watch(event: str, details: tuple[object, ...]) -> None:
            nonlocal left
            if event == "open" and re.search(pattern, str(details[0])):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        work(*args)

    killed(watched)


class KillingProgress(Progress):
    """Kills its own process after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self._left = steps

    def advance(self, count: int) -> None:
        super().advance(count)
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
