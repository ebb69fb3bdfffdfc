"""Our own commands as child processes: started, waited for with a bound, and ended whatever happens."""

import asyncio
import contextlib
import re
import signal
import sys
from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from edge.private_verifier import lines
from paceline.errors import PacelineError
from paceline.settings import child_environment

END_TIMEOUT_S = 10.0
"""How long a program may take to end in order before it is killed."""

MAX_ERROR_LINES = 50

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")
"""Colours and movements of the cursor, which a program writes when it is told that a terminal listens."""


class ProgramError(PacelineError):
    """A program we started did not do what it should."""

    reason = "PROGRAM"


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """A running `paceline` sub-command."""

    name: str
    """What users call it, in the middle of a sentence."""
    process: asyncio.subprocess.Process
    errors: deque[str] = field(default_factory=lambda: deque(maxlen=MAX_ERROR_LINES))
    """The last lines it wrote to stderr."""
    _fell_silent: asyncio.Event = field(default_factory=asyncio.Event)
    """Its stderr has ended."""

    @property
    def output(self) -> asyncio.StreamReader:
        """Its standard output."""
        assert self.process.stdout is not None
        return self.process.stdout

    async def wait_for(self, pattern: str, *, timeout_s: float) -> re.Match[str]:
        """Return the first line of its output that matches.

        Raises:
            ProgramError: it ended, or was silent for too long.
        """
        try:
            async with asyncio.timeout(timeout_s):
                async for line in lines(self.output):
                    if match := re.search(pattern, line):
                        return match
                failure = await self.failure()
        except TimeoutError as error:
            raise ProgramError(f"{self.name} was not ready within {timeout_s:.0f} s") from error
        raise failure

    async def failure(self) -> ProgramError:
        """Return the error to raise when it has ended too early; its own last words explain."""
        last = (await self.last_words()).removeprefix("paceline: ")
        status = self.process.returncode
        return ProgramError(f"{self.name} ended with status {status}: {last}")

    async def last_words(self) -> str:
        """Return the last line it wrote to stderr, once it has ended."""
        await self.process.wait()
        await self._fell_silent.wait()
        return self.errors[-1] if self.errors else "it said nothing"

    async def end(self) -> str:
        """Ask it to end, wait until it has, and return the rest of its output."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGTERM)
        rest = await self.output.read()
        await self.process.wait()
        return rest.decode(errors="replace")

    async def collect_errors(self) -> None:
        """Read its stderr to the end, so that it never blocks on a full pipe."""
        assert self.process.stderr is not None
        async for line in lines(self.process.stderr):
            if text := ESCAPES.sub("", line).strip():
                self.errors.append(text)
        self._fell_silent.set()


@asynccontextmanager
async def running(
    name: str, *arguments: str, environment: Mapping[str, str] | None = None
) -> AsyncIterator[Program]:
    """Run `paceline` with these arguments; it has ended when the body is left.

    It gets a session of its own: Ctrl-C reaches us alone, and we end our children in order. Should we be killed, it
    notices by its standard input (see edge.lifeline).

    Args:
        name: what users call it, in the middle of a sentence.
        arguments: the sub-command and its options.
        environment: variables besides our own; PACELINE_ variables are not handed on.
    """
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",  # a module in the user's folder must not shadow one of ours
        "-m",
        "edge.lifeline",
        *arguments,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        start_new_session=True,
        env=child_environment({"PYTHONUNBUFFERED": "1", **(environment or {})}),
    )
    program = Program(name=name, process=process)
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(program.collect_errors())
            try:
                yield program
            finally:
                await _end(program)
    finally:
        # Reached with a living child only when we were interrupted again while it ended.
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()


async def _end(program: Program) -> None:
    """End it in order, or kill it when that takes too long or is interrupted."""
    if program.process.returncode is not None:
        return
    try:
        async with asyncio.timeout(END_TIMEOUT_S):
            await program.end()
    except TimeoutError:
        program.process.kill()
        await program.process.wait()
