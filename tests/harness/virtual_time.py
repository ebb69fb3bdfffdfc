"""Virtual time, as the product has it, under the names that the tests of the client know."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from simulator.virtual import loop

Result = TypeVar("Result")

LONGEST_S = 3600.0
"""A test that waits longer than this waits for nothing."""


class LoopClock:
    """The running loop's time, virtual or not."""

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end in virtual time."""
    return loop.run_virtually(main, longest_s=LONGEST_S)
