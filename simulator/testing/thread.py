"""An event loop in a thread of its own, so that a blocking test can hold what lives in a loop: relays, child processes."""

import asyncio
import concurrent.futures
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

from simulator.relay import precise_loop
from simulator.testing.steps import refuse_running_loop

T = TypeVar("T")

START_S = 10.0
END_S = 60.0
"""Longer than any program that is held takes to end, or to be killed."""


class Held(Generic[T]):
    """A context that was entered in the loop; one task enters it and leaves it."""

    def __init__(self) -> None:
        self.entered: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.entered.add_done_callback(_noticed)
        self._released = asyncio.Event()
        self._left = asyncio.Event()

    async def hold(self, context: AbstractAsyncContextManager[T]) -> None:
        """Enter it, wait until it is released, and leave it."""
        try:
            async with context as inner:
                self.entered.set_result(inner)
                await self._released.wait()
        except Exception as error:
            if self.entered.done():
                raise
            self.entered.set_exception(error)
        finally:
            self.entered.cancel()
            self._left.set()

    async def release(self) -> None:
        """Leave it; return when that is done."""
        self._released.set()
        await self._left.wait()


class LoopThread:
    """A loop that runs from `start` to `stop`."""

    def __init__(self) -> None:
        self._loop = precise_loop()
        self._thread = threading.Thread(target=self._run, name="paceline-testing", daemon=True)
        self._running = threading.Event()
        self._ended: asyncio.Event | None = None
        self._group: asyncio.TaskGroup | None = None
        self._holds: list[Held[Any]] = []
        self._works: set[asyncio.Task[None]] = set()
        self._broken: BaseException | None = None

    def start(self) -> None:
        """Start the thread; return when the loop runs."""
        self._thread.start()
        assert self._running.wait(START_S)

    def stop(self) -> None:
        """Leave everything that is held, the newest first, and end the thread.

        Raises:
            Exception: what broke something that was held.
        """
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(END_S)
            assert not self._thread.is_alive(), "the thread of the test's network does not end"
        if self._broken is not None:
            raise self._broken

    def call(self, coroutine: Coroutine[Any, Any, T], *, within_s: float) -> T:
        """Return what a coroutine returns in the loop.

        Raises:
            TimeoutError: not within that time.
            RuntimeError: it would block an event loop.
            Exception: what it raised, or what broke something that is held.
        """
        try:
            refuse_running_loop()
            self._check_alive()
        except BaseException:
            coroutine.close()
            raise
        future = asyncio.run_coroutine_threadsafe(_bounded(coroutine, within_s), self._loop)
        try:
            return future.result(within_s + END_S)
        except concurrent.futures.CancelledError as error:
            raise self._broken or RuntimeError("the network has ended") from error

    def do(self, action: Callable[[], T]) -> T:
        """Return what a function returns in the loop."""

        async def call() -> T:
            return action()

        return self.call(call(), within_s=START_S)

    async def hold(self, context: AbstractAsyncContextManager[T]) -> tuple[T, Held[T]]:
        """Enter a context in the loop and keep it until it is released, or the thread stops.

        Raises:
            Exception: what entering it raises.
        """
        assert self._group is not None
        held: Held[T] = Held()
        self._holds.append(held)
        self._group.create_task(held.hold(context))
        return await asyncio.shield(held.entered), held

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Let something go on in the loop until it is over or the thread stops; from inside of the loop."""
        assert self._group is not None
        self._works.add(task := self._group.create_task(work))
        task.add_done_callback(self._works.discard)

    def _check_alive(self) -> None:
        if not self._thread.is_alive():
            raise self._broken or RuntimeError("the network has ended: its test is over")

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:  # noqa: BLE001 - told to whoever stops the thread
            self._broken = error

    async def _main(self) -> None:
        self._ended = asyncio.Event()
        try:
            async with asyncio.TaskGroup() as self._group:
                self._running.set()
                await self._ended.wait()
                for work in self._works:
                    work.cancel()
                for held in reversed(self._holds):
                    await held.release()
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    def _end(self) -> None:
        assert self._ended is not None
        self._ended.set()


async def _bounded(coroutine: Coroutine[Any, Any, T], within_s: float) -> T:
    bound = asyncio.timeout(within_s)
    try:
        async with bound:
            return await coroutine
    except TimeoutError as error:
        if not bound.expired():
            raise
        raise TimeoutError(f"it did not come within {within_s:g} s") from error


def _noticed(entered: asyncio.Future[Any]) -> None:
    """Take the error of a context whose caller has given up waiting for it."""
    if not entered.cancelled():
        entered.exception()
