"""Runs a command's coroutine so that Ctrl-C and SIGTERM put everything away first."""

import asyncio
import signal
from collections.abc import Coroutine
from typing import TypeVar

_T = TypeVar("_T")

STATUS_TERMINATED = 128 + signal.SIGTERM
"""Exit status as shells report it."""


def run(work: Coroutine[None, None, _T]) -> _T:
    """Run to the end and return the result. SIGTERM cancels it, like Ctrl-C.

    Raises:
        KeyboardInterrupt: the user pressed Ctrl-C.
        SystemExit: SIGTERM came, with STATUS_TERMINATED.
    """
    terminated = False

    async def watched() -> _T:
        nonlocal terminated
        task = asyncio.current_task()
        assert task is not None

        def terminate() -> None:
            nonlocal terminated
            terminated = True
            task.cancel()

        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, terminate)
        return await work

    try:
        return asyncio.run(watched())
    except asyncio.CancelledError:
        if terminated:
            raise SystemExit(STATUS_TERMINATED) from None
        raise
