"""One event loop for all tests of a process that use gRPC: grpc.aio misbehaves with several (grpc/grpc#25364)."""

import asyncio
import atexit
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

TIMEOUT_S = 30.0
"""A test that waits longer has gone wrong."""


LEFT_OVER_S = 5.0
"""What a test has begun must have ended so long after it; grpc takes a moment for the ends of its calls."""


def run_async(coroutine: Coroutine[Any, Any, T], *, timeout_s: float = TIMEOUT_S) -> T:
    """Run a test's coroutine on the shared loop.

    Raises:
        AssertionError: it left tasks behind, which would be found in another test otherwise.
    """

    async def bounded() -> T:
        try:
            async with asyncio.timeout(timeout_s):
                return await coroutine
        finally:
            left = asyncio.all_tasks() - {asyncio.current_task()}
            if left:
                _, left = await asyncio.wait(left, timeout=LEFT_OVER_S)
                for task in left:
                    task.cancel()
            assert not left, f"left behind: {left}"

    return _runner().run(bounded())


@cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner
