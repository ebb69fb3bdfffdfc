"""An event loop whose clock jumps to the next timer when nothing else is left to do: a minute passes in no time.

Only for coroutines that wait for timers and for each other. Threads and sockets do not fit in.
"""

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")

LONGEST_S = 3600.0
"""A test that waits longer than this waits for nothing."""


class _JumpingSelector(selectors.DefaultSelector):
    """Instead of sleeping until the next timer, moves the loop's clock there."""

    now_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise AssertionError("every task waits for another one: nothing will ever happen")
        self.now_s += timeout
        if self.now_s > LONGEST_S:
            raise AssertionError(f"nothing came of it in {LONGEST_S:g} s of virtual time")
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """See the module."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now_s


class LoopClock:
    """The running loop's time, virtual or not."""

    def now_s(self) -> float:
        return asyncio.get_running_loop().time()


def run_virtually(main: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end in virtual time."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(main)
