"""An event loop in a thread of its own, for a program whose main thread waits for the keyboard."""

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AbstractAsyncContextManager
from typing import Any, Generic, TypeVar

_T = TypeVar("_T")
_R = TypeVar("_R")


class Background(Generic[_T]):
    """A resource that lives in the background loop; made by `in_background`."""

    def __init__(self, resource: _T, loop: asyncio.AbstractEventLoop) -> None:
        self.resource = resource
        self._loop = loop

    def call(self, work: Coroutine[Any, Any, _R]) -> _R:
        """Run a coroutine in the loop and wait for it.

        Ctrl-C cancels it, waits until it has put everything away, and comes out as KeyboardInterrupt.
        """
        ended = threading.Event()

        async def announced() -> _R:
            try:
                return await work
            finally:
                ended.set()

        try:
            future = asyncio.run_coroutine_threadsafe(announcement := announced(), self._loop)
        except RuntimeError:  # the loop has ended, and with it the resource
            announcement.close()
            work.close()
            raise
        try:
            return future.result()
        except BaseException:
            # Either it has failed, then this does nothing, or we were interrupted while waiting.
            future.cancel()
            ended.wait()
            raise


@contextlib.contextmanager
def in_background(resource: AbstractAsyncContextManager[_T]) -> Iterator[Background[_T]]:
    """Enter a resource in a background loop while the body runs; its errors come out here."""
    opened: concurrent.futures.Future[tuple[_T, asyncio.AbstractEventLoop]] = (
        concurrent.futures.Future()
    )
    tasks: list[asyncio.Task[Any]] = []

    async def hold() -> None:
        current = asyncio.current_task()
        assert current is not None
        tasks.append(current)
        async with resource as value:
            opened.set_result((value, asyncio.get_running_loop()))
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()

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
        value, loop = opened.result()
        yield Background(value, loop)
    except Exception:
        end()
        if failures:  # the resource is gone; what the body met is what follows from that
            raise failures[0] from None
        raise
    finally:
        end()
    if failures:
        raise failures[0]
