"""One event loop for all tests of a process that use gRPC: grpc.aio misbehaves with several (grpc/grpc#25364)."""

import asyncio
import atexit
from collections.abc import Coroutine
from functools import cache
from typing import Any, TypeVar

T = TypeVar("T")

TIMEOUT_S = 30.0
"""A test that waits longer has gone wrong."""


def run_async(coroutine: Coroutine[Any, Any, T], *, timeout_s: float = TIMEOUT_S) -> T:
    """Run a test's coroutine on the shared loop."""

    async def bounded() -> T:
        async with asyncio.timeout(timeout_s):
            return await coroutine

    return _runner().run(bounded())


@cache
def _runner() -> asyncio.Runner:
    runner = asyncio.Runner()
    atexit.register(runner.close)
    return runner
