"""An event loop in a thread of its own, for a program whose main thread waits for the keyboard."""

import asyncio
import concurrent.futures
import contextlib
import inspect
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

STOP_S = 5.0
"""Longest wait for calls to put everything away when their resource ends."""

_T = TypeVar("_T")
_R = TypeVar("_R")


class Background(Generic[_T]):
    """A resource that lives in the background loop; made by `in_background`."""

    def __init__(self, resource: _T, loop: asyncio.AbstractEventLoop) -> None:
        self.resource = resource
        self._loop = loop
        self._calls: set[asyncio.Task[Any]] = set()

    def call(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the loop and wait for it.

        Ctrl-C cancels it, waits until it has put everything away, and comes out as KeyboardInterrupt.
        """
        ended = threading.Event()

        async def announced() -> _R:
            task = asyncio.current_task()
            assert task is not None
            self._calls.add(task)
            try:
                return await work
            finally:
                self._calls.discard(task)
                ended.set()

        announcement = announced()
        try:
            return asyncio.run_coroutine_threadsafe(announcement, self._loop).result()
        except BaseException as error:
            if not isinstance(error, Exception):  # Ctrl-C, or the end of the program
                # It may have come while the call was handed over, when there was no future to cancel yet.
                asyncio.run_coroutine_threadsafe(self._cancel(), self._loop).result()
            if inspect.getcoroutinestate(announcement) == inspect.CORO_CREATED:
                # Never handed over: the loop has ended, and with it the resource, or the interrupt was quicker.
                announcement.close()
                work.close()
            else:
                ended.wait()
            raise

    async def _cancel(self) -> None:
        """Cancel every call; from within the loop."""
        await asyncio.sleep(0)  # what was handed over a moment ago begins first
        for call in tuple(self._calls):
            call.cancel()

    async def stop(self) -> None:
        """End what still uses the resource, before the resource ends; from within the loop."""
        calls = tuple(self._calls)
        for call in calls:
            call.cancel()
        if calls:
            await asyncio.wait(calls, timeout=STOP_S)


@contextlib.contextmanager
def in_background(resource: AbstractAsyncContextManager[_T]) -> Iterator[Background[_T]]:
    """Enter a resource in a background loop while the body runs; its errors come out here."""
    opened: concurrent.futures.Future[Background[_T]] = concurrent.futures.Future()
    tasks: list[asyncio.Task[Any]] = []

    async def hold() -> None:
        current = asyncio.current_task()
        assert current is not None
        tasks.append(current)
        async with resource as value:
            background = Background(value, asyncio.get_running_loop())
            opened.set_result(background)
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
            await background.stop()

    failures: list[BaseException] = []

    def work() -> None:
        try:
            asyncio.run(hold())
        except BaseException as error:  # noqa: BLE001 - it is raised in the other thread
            if opened.done():
                failures.append(error)
            else:
                opened.set_exception(error)

    thread = threading.Thread(target=work, name="background loop")

    def end() -> None:
        for task in tasks:
            with contextlib.suppress(RuntimeError):  # the loop is closed: it ended by itself
                task.get_loop().call_soon_threadsafe(task.cancel)
        thread.join()

    thread.start()
    try:
        yield opened.result()
    except Exception:
        end()
        if failures:  # the resource is gone; what the body met is what follows from that
            raise failures[0] from None
        raise
    finally:
        end()
    if failures:
        raise failures[0]
