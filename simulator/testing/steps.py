"""A virtual loop that a test drives step by step: time passes only while the test waits for something."""

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, TypeVar

from simulator.virtual.loop import VirtualLoop

T = TypeVar("T")

LONGEST_S = 30 * 86_400.0
"""Of virtual time, over all steps of a test."""

HOW_IF_ASYNC = (
    "this call blocks, and an event loop runs in this thread: from an async test, "
    "write `await asyncio.to_thread(...)`"
)


class Steps:
    """Runs a program that goes on over many calls.

    Args:
        story: returns what happened lately, in lines, for the message of an error.
    """

    def __init__(self, *, story: Callable[[], Sequence[str]]) -> None:
        self._loop = VirtualLoop(longest_s=LONGEST_S, story=story)
        self._runner = asyncio.Runner(loop_factory=lambda: self._loop)
        self._program: asyncio.Task[None] | None = None

    @property
    def now_s(self) -> float:
        """The virtual time."""
        return self._loop.time()

    def begin(self, program: Coroutine[Any, Any, None]) -> None:
        """Start the program; it goes on within every call of `run`."""

        async def start() -> None:
            self._program = asyncio.get_running_loop().create_task(program)

        self.run(start(), within_s=LONGEST_S)

    def run(self, coroutine: Coroutine[Any, Any, T], *, within_s: float) -> T:
        """Return what a coroutine returns; virtual time passes until then.

        Raises:
            TimeoutError: not over after `within_s` of virtual time, which pass at once where nothing else happens;
                tells which task waits where, and the story so far.
            StandstillError: the program goes in circles, or the test has used up all its time.
            Exception: what the coroutine raised, or what broke the program.
        """
        try:
            refuse_running_loop()
            bounded = self._bounded(coroutine, within_s)
        except BaseException:
            coroutine.close()
            raise
        return self._runner.run(bounded)

    def do(self, action: Callable[[], T]) -> T:
        """Return what a function returns that must be called inside of the loop; from there it is just called."""
        if _running_loop() is self._loop:
            return action()

        async def call() -> T:
            return action()

        return self.run(call(), within_s=LONGEST_S)

    def after(self, delay_s: float, action: Callable[[], object]) -> None:
        """Call a function later; it must not wait."""
        self.do(lambda: self._loop.call_later(delay_s, action))

    def close(self) -> list[Exception]:
        """End everything that is left; return the errors that nobody took."""
        self._runner.close()
        return self._loop.lost

    async def _bounded(self, coroutine: Coroutine[Any, Any, T], within_s: float) -> T:
        program, work = self._program, asyncio.get_running_loop().create_task(coroutine)
        waited = {work} if program is None else {work, program}
        try:
            await asyncio.wait(waited, timeout=within_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            if program is not None and program.done():
                program.result()  # raises what broke it
                raise RuntimeError("the world has ended: its test is over")
            late = f"it did not come within {within_s:g} s of virtual time"
            raise TimeoutError("\n".join([late, *self._loop.whereabouts()]))
        finally:
            work.cancel()


def refuse_running_loop() -> None:
    """Refuse to block an event loop.

    Raises:
        RuntimeError: one runs in this thread; says what to write.
    """
    if _running_loop() is not None:
        raise RuntimeError(HOW_IF_ASYNC)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
