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


class PrivateVerifier:
    """A child that starts; made by `private_verifier`."""

    def __init__(self, process: Process, *, target: str) -> None:
        self._process = process
        self._target = target
        self._last_lines: deque[str] = deque(maxlen=NUM_LAST_LINES)
        self._address: asyncio.Future[Address | None] = asyncio.get_running_loop().create_future()
        self._fell_silent = asyncio.Event()
        self._is_wanted = True

    async def ready(self) -> Address:
        """Return its address once it serves.

        Raises:
            ConfigError: it could not start; says what it said.
        """
        try:
            with progress(f"starting a private verifier with {self._target}"):
                async with asyncio.timeout(READY_S):
                    address = await asyncio.shield(self._address)
                    if address is None:
                        raise await self._failure()
        except TimeoutError as error:
            raise ConfigError(f"the private verifier was not ready within {READY_S:g} s") from error
        return address

    async def _failure(self) -> ConfigError:
        status = await self._process.wait()
        await self._fell_silent.wait()
        last = self._last_lines[-1] if self._last_lines else "it said nothing"
        sentence = last.removeprefix("paceline: ")
        return ConfigError(f"the private verifier ended with status {status}: {sentence}")

    async def read_output(self) -> None:
        """Read its standard output to the end, for the line that says it is ready.

        Raises:
            ConfigError: it was ready, and then ended by itself. It does not come back.
        """
        assert self._process.stdout is not None
        async for line in lines(self._process.stdout):
            if (match := READY.search(line)) and not self._address.done():
                self._address.set_result(parse_address(match[1]))
        if not self._address.done():
            self._address.set_result(None)
        elif self._is_wanted:
            raise await self._failure()

    async def stop(self) -> None:
        """End the child: asked first, then not asked."""
        self._is_wanted = False
        await _stop(self._process)

    async def read_errors(self) -> None:
        """Read its standard error to the end, for the log and for the case that it fails."""
        assert self._process.stderr is not None
        async for line in lines(self._process.stderr):
            self._last_lines.append(line)
            log.info("private verifier: %s", line)
        self._fell_silent.set()


@contextlib.asynccontextmanager
async def private_verifier(settings: VerifierSettings) -> AsyncIterator[PrivateVerifier]:
    """Run a verifier while the body runs. It loads its model while the body does other things."""
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
    verifier = PrivateVerifier(process, target=settings.target)
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(verifier.read_output()),
                group.create_task(verifier.read_errors()),
            ]
            try:
                yield verifier
            finally:
                await verifier.stop()
                for task in tasks:
                    task.cancel()
    except BaseExceptionGroup as failures:
        # The body's own error, or why the child is gone, not a report of tasks.
        raise failures.exceptions[0] from None


async def lines(stream: asyncio.StreamReader) -> AsyncIterator[str]:
    """Give the lines that are not empty; one beyond the stream's bound, a bar that never ends it, is dropped."""
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
