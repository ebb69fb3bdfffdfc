"""`chat` at a terminal: colours, Ctrl-C, Ctrl-D."""

import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from harness.models import save_tiny
from harness.processes import running

from paceline.settings import child_environment

PATIENCE_S = 60.0
CTRL_C, CTRL_D = b"\x03", b"\x04"


class Terminal:
    """What a user sees and types."""

    def __init__(self, master: int) -> None:
        self._master = master
        self.seen = b""

    def type(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def press_until(self, key: bytes, words: bytes) -> None:
        """Press a key, again every second, until the words appear; then forget them and what came before.

        A Ctrl-C in the instant between the prompt and readline's own wait is noticed with the next key only.
        """
        deadline_s = time.monotonic() + PATIENCE_S
        while words not in self.seen:
            assert time.monotonic() < deadline_s, self.seen
            self.type(key)
            while select.select([self._master], [], [], 1.0)[0] and words not in self.seen:
                self.seen += os.read(self._master, 4096)
        self.wait_for(words)

    def wait_for(self, words: bytes) -> bytes:
        """Read until the words appear; returns what came up to them, which is then forgotten."""
        deadline_s = time.monotonic() + PATIENCE_S
        while words not in self.seen:
            readable, _, _ = select.select([self._master], [], [], deadline_s - time.monotonic())
            assert readable, self.seen
            self.seen += os.read(self._master, 4096)
        before, _, self.seen = self.seen.partition(words)
        return before


@contextmanager
def at_a_terminal(*arguments: str) -> Iterator[tuple[Terminal, "subprocess.Popen[bytes]"]]:
    """A command whose terminal is ours."""
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "paceline.command", *arguments],
        env=child_environment({"TERM": "xterm-256color", "COLUMNS": "200"}),
        # Makes Ctrl-C a signal to this process. It calls nothing that threads of ours could hold a lock of.
        preexec_fn=lambda: os.login_tty(slave),  # noqa: PLW1509
    )
    os.close(slave)
    try:
        yield Terminal(master), process
    finally:
        process.kill()
        process.wait()
        os.close(master)


@pytest.mark.slow
def test_ctrl_c_stops_an_answer_and_ctrl_d_leaves(tmp_path_factory: pytest.TempPathFactory) -> None:
    target = str(save_tiny(tmp_path_factory.mktemp("target")))
    # 450 steps of 30 ms leave plenty of time to press a key.
    serve = ("cloud", "--target", target, "--listen", "127.0.0.1:0", "--min-step", "30ms")
    with running("paceline.command", *serve, ready=r"ready on (\S+)") as cloud:
        assert cloud.ready is not None
        talk = ("chat", "--cloud", cloud.ready[1], "--target", target, "--max-tokens", "450")
        with at_a_terminal(*talk) as (terminal, process):
            terminal.wait_for(b"Ctrl-D leaves")
            terminal.wait_for(b"green: drafted here and accepted")
            terminal.wait_for(b"> ")
            terminal.type(b"Hello\r")
            terminal.wait_for(b"Hello\r\n")
            terminal.wait_for(b"reading the prompt")
            terminal.wait_for(b"\x1b[?25h")  # the bar is gone: the answer begins
            terminal.type(CTRL_C)
            terminal.wait_for(b"> ")
            terminal.press_until(CTRL_C, b"(Ctrl-D leaves)")
            terminal.wait_for(b"> ")
            terminal.type(b"/help\r")
            terminal.wait_for(b"/new")
            terminal.wait_for(b"> ")
            terminal.type(CTRL_D)
            assert process.wait(PATIENCE_S) == 0
