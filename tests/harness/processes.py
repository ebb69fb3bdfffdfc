"""Python programs as child processes: started, waited for with a bound, and always ended."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

READY_TIMEOUT_S = 60.0
END_TIMEOUT_S = 20.0


class Child:
    """A running program. Its output is collected while it runs, so that it never blocks on a full pipe."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.ready: re.Match[str] | None = None
        """What the ready pattern matched on standard output."""
        self._lines: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._changed = threading.Condition()
        self._open_streams = 2
        assert process.stdout is not None
        assert process.stderr is not None
        self._readers = [
            threading.Thread(target=self._collect, args=("stdout", process.stdout), daemon=True),
            threading.Thread(target=self._collect, args=("stderr", process.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stdout(self) -> str:
        with self._changed:
            return "".join(self._lines["stdout"])

    @property
    def stderr(self) -> str:
        with self._changed:
            return "".join(self._lines["stderr"])

    def wait_for(self, pattern: str, *, timeout_s: float = READY_TIMEOUT_S) -> re.Match[str]:
        """Wait until standard output has a line that matches; fail with all output if it does not come."""
        return self._wait_for(pattern, stream="stdout", timeout_s=timeout_s)

    def wait_for_stderr(self, pattern: str, *, timeout_s: float = READY_TIMEOUT_S) -> re.Match[str]:
        """The same for standard error."""
        return self._wait_for(pattern, stream="stderr", timeout_s=timeout_s)

    def _wait_for(self, pattern: str, *, stream: str, timeout_s: float) -> re.Match[str]:
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while True:
                for line in self._lines[stream]:
                    if match := re.search(pattern, line):
                        return match
                left_s = deadline_s - time.monotonic()
                if left_s <= 0.0 or self._open_streams == 0:
                    what = "ended" if self._open_streams == 0 else f"was silent for {timeout_s} s"
                    raise AssertionError(
                        f"{self.process.args!r} {what} before {pattern!r}\n"
                        f"stdout: {''.join(self._lines['stdout'])}\nstderr: {''.join(self._lines['stderr'])}"
                    )
                self._changed.wait(left_s)

    def wait(self, *, timeout_s: float = READY_TIMEOUT_S) -> int:
        """Wait until it has ended by itself, with all its output; return its exit status."""
        status = self.process.wait(timeout_s)
        for reader in self._readers:
            reader.join(timeout_s)
        return status

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        self.process.send_signal(number)

    def terminate(self, *, timeout_s: float = END_TIMEOUT_S) -> int:
        """Ask it to end, wait until it has, and return its exit status."""
        self.process.terminate()
        return self.wait(timeout_s=timeout_s)

    def kill(self) -> None:
        """End it without asking, and wait until it is gone."""
        self.process.kill()
        self.wait(timeout_s=END_TIMEOUT_S)

    def _collect(self, name: str, stream: IO[str]) -> None:
        with stream:
            for line in stream:
                with self._changed:
                    self._lines[name].append(line)
                    self._changed.notify_all()
        with self._changed:
            self._open_streams -= 1
            self._changed.notify_all()


@contextmanager
def running(
    module: str,
    *arguments: str,
    ready: str | None = None,
    environment: Mapping[str, str] | None = None,
    timeout_s: float = READY_TIMEOUT_S,
) -> Iterator[Child]:
    """Run `python -m module arguments`; ended when left, whatever happens.

    Args:
        module: for example "paceline.command".
        arguments: of the program.
        ready: pattern of a line on standard output that is waited for first.
        environment: variables besides those of the tests; PACELINE_ variables are not handed on.
        timeout_s: how long `ready` may take.
    """
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("PACELINE_")}
    process = subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        env=inherited | {"PYTHONUNBUFFERED": "1"} | dict(environment or {}),
    )
    child = Child(process)
    try:
        if ready is not None:
            child.ready = child.wait_for(ready, timeout_s=timeout_s)
        yield child
    finally:
        if process.poll() is None:
            child.kill()
        for reader in child._readers:
            reader.join(END_TIMEOUT_S)


def free_port() -> int:
    """Return a port of 127.0.0.1 that was free a moment ago; prefer port 0 where a program offers it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_running(pid: int) -> bool:
    """Return whether a process still runs; one that ended but was not waited for does not."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"
