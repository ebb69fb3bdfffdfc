"""A verifier of our own: a `paceline cloud` child process on a free port of this machine."""

import asyncio
import contextlib
import logging
import os
import re
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Literal

from paceline.console import progress
from paceline.errors import ConfigError
from paceline.settings import Address, child_environment, parse_address

log = logging.getLogger(__name__)

READY = re.compile(r"paceline cloud ready on (\S+)")
READY_S = 600.0
"""Longest wait for weights to load, in seconds: from a slow disk, perhaps by way of the hub."""
STOP_S = 5.0
"""Time to end in order before the child is ended at once, in seconds."""
NUM_LAST_LINES = 20
MAX_LINE_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierSettings:
    """What the private verifier runs."""

    target: str
    dtype: Literal["float32", "bfloat16"] = "float32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: int | None = None
    token: str = field(repr=False)
    """What it asks of whoever connects, so that other users of this machine cannot."""

    @property
    def arguments(self) -> tuple[str, ...]:
        """The command line, `paceline` not included."""
        threads = () if self.threads is None else ("--threads", str(self.threads))
        return (
            *("--config", os.devnull, "cloud", "--listen", "127.0.0.1:0", "--target", self.target),
            *("--dtype", self.dtype, "--device", self.device, "--drain", "0"),
            *threads,
        )


@contextlib.asynccontextmanager
async def private_verifier(settings: VerifierSettings) -> AsyncIterator[Address]:
    """Run a verifier while the body runs; gives its address once it is ready.

    Raises:
        ConfigError: it could not start; says what it said.
    """
    process = await asyncio.create_subprocess_exec(
        # -P: a module of the folder the user happens to be in must not shadow one of ours.
        *(sys.executable, "-P", "-m", "edge.lifeline", *settings.arguments),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        # The token goes by the environment: command lines can be seen by everybody.
        env=child_environment({"PYTHONUNBUFFERED": "1", "PACELINE_CLOUD_TOKEN": settings.token}),
        limit=MAX_LINE_BYTES,
        # Ctrl-C at the terminal is ours: `chat` goes on after it, and the verifier with it.
        start_new_session=True,
    )
    last_lines: deque[str] = deque(maxlen=NUM_LAST_LINES)
    try:
        async with asyncio.TaskGroup() as group:
            listening = [group.create_task(_drain(process.stderr, last_lines))]
            try:
                with progress(f"starting a private verifier with {settings.target}"):
                    address = await _ready(process, last_lines)
                listening.append(group.create_task(_drain(process.stdout, last_lines)))
                yield address
            finally:
                await _stop(process)
                for task in listening:
                    task.cancel()
    except BaseExceptionGroup as failures:
        # The body's own error, not a report of tasks.
        raise failures.exceptions[0] from None


async def _ready(process: Process, last_lines: deque[str]) -> Address:
    """Wait for the line that says so."""
    assert process.stdout is not None
    try:
        async with asyncio.timeout(READY_S):
            async for line in _lines(process.stdout):
                if match := READY.search(line):
                    return parse_address(match[1])
            status = await process.wait()
    except TimeoutError as error:
        raise ConfigError(f"the private verifier was not ready within {READY_S:g} s") from error
    sentence = last_lines[-1].removeprefix("paceline: ") if last_lines else "it said nothing"
    raise ConfigError(f"the private verifier ended with status {status}: {sentence}")


async def _drain(stream: asyncio.StreamReader | None, last_lines: deque[str]) -> None:
    """Read what the child says, for the log and for the case that it fails."""
    assert stream is not None
    async for line in _lines(stream):
        last_lines.append(line)
        log.info("private verifier: %s", line)


async def _lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Give the lines that are not empty; a line beyond the limit is dropped."""
    while True:
        try:
            line = await stream.readline()
        except ValueError:
            continue
        if not line:
            return
        if text := line.decode(errors="replace").strip():
            yield text


async def _stop(process: Process) -> None:
    """End the child: asked first, then not asked."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_S):
                await process.wait()
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
