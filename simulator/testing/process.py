"""One of our programs as a child process that a test kills and starts again, always at the same port."""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from simulator.programs import Program, running
from simulator.testing.diary import Diary
from simulator.testing.thread import Held, LoopThread

READY_S = 300.0
"""Loading a large model takes long."""

END_S = 30.0
READY = r"(?:ready|listening) on (?:http://)?([^\s/]+)(?:\S* with (\S+))?"


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """What runs."""

    name: str
    arguments: tuple[str, ...]
    """Of `paceline`, without `--listen`."""
    folder: Path
    """For its temporary files."""


class Process:
    """See the module.

    Args:
        settings: what runs.
        thread: holds it.
        diary: told when it starts and ends.
    """

    def __init__(self, settings: ProcessSettings, *, thread: LoopThread, diary: Diary) -> None:
        self.settings = settings
        self.address = "127.0.0.1:0"
        """Where it listens, once it was ready."""
        self.model = ""
        """What an edge calls its model."""
        self.num_lives = 0
        self._thread = thread
        self._diary = diary
        self._program: Program | None = None
        self._loading: Program | None = None
        self._held: Held[Program] | None = None
        self._is_ready = asyncio.Event()
        self._turn = asyncio.Lock()

    @staticmethod
    def start_all(processes: Sequence["Process"]) -> None:
        """Start several at once; return when all are ready.

        Raises:
            ProgramError: one could not start.
        """

        async def start() -> None:
            try:
                async with asyncio.TaskGroup() as group:
                    for process in processes:
                        group.create_task(process._start())  # noqa: SLF001 - our own class
            except BaseExceptionGroup as failures:
                raise failures.exceptions[0] from None

        processes[0]._thread.call(start(), within_s=READY_S + END_S)  # noqa: SLF001 - the same

    @property
    def is_running(self) -> bool:
        """It was started and not killed."""
        return self._program is not None

    @property
    def errors(self) -> Sequence[str]:
        """The last lines that it wrote to stderr in this life."""
        return () if self._program is None else tuple(self._program.errors)

    def start(self) -> None:
        """Start it, unless it runs; return when it is ready.

        Raises:
            ProgramError: it could not start; says what it said.
        """
        self.start_all([self])

    def kill(self) -> None:
        """End it with SIGKILL, unless it does not run."""
        if self._held is not None:
            self._thread.call(self._kill(), within_s=END_S)

    async def ready(self) -> None:
        """Return when it runs; from inside of the thread's loop."""
        await self._is_ready.wait()

    async def _start(self) -> None:
        async with self._turn:
            if self._program is None:
                self._program = await self._started()
                self._is_ready.set()

    async def _started(self) -> Program:
        """Return the program once it is ready."""
        settings = self.settings
        program, self._held = await self._thread.hold(
            running(
                settings.name,
                *("--config", os.devnull),
                *(*settings.arguments, "--listen", self.address),
                environment={"TMPDIR": str(settings.folder)},
            )
        )
        self._loading = program
        try:
            ready = await program.wait_for(READY, timeout_s=READY_S)
        finally:
            self._loading = None
        self.address, self.model = ready[1], ready[2] or ""
        self.num_lives += 1
        self._diary.tell(settings.name, "started", life=self.num_lives, address=self.address)
        return program

    async def _kill(self) -> None:
        loading = self._loading
        if loading is not None and loading.process.returncode is None:
            loading.process.kill()  # whoever waits for it is told; a test that is interrupted does not wait
        async with self._turn:
            if self._program is None or self._held is None:
                return
            program, self._program = self._program, None
            self._is_ready.clear()
            self._diary.tell(self.settings.name, "killed")
            if program.process.returncode is None:
                program.process.kill()
            await program.process.wait()
            await self._held.release()
