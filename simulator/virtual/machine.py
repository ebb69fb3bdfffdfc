"""A simulated machine: its clock, and the one thread that its model runs on."""

import asyncio
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


class MachineClock:
    """The loop's time as one machine sees it: from an origin of its own, too fast or too slow, with jumps ahead.

    Timers are the loop's and go off at its time: what a wrong clock does to a program is what it does with the
    numbers.
    """

    def __init__(self, *, origin_s: float = 0.0) -> None:
        self._loop = asyncio.get_running_loop()
        self._shown_s = origin_s
        self._set_at_s = self._loop.time()
        self._rate = 1.0

    def now_s(self) -> float:
        """Return what the clock shows; never goes back."""
        return self._shown_s + (self._loop.time() - self._set_at_s) * self._rate

    def skew(self, *, rate: float, jump_s: float = 0.0) -> None:
        """Let it run at another rate from now on, after a jump ahead.

        Args:
            rate: seconds shown for each second that passes; above 0.
            jump_s: at least 0.
        """
        assert rate > 0.0
        assert jump_s >= 0.0
        self._shown_s = self.now_s() + jump_s
        self._set_at_s = self._loop.time()
        self._rate = rate


class Occupation:
    """Adds up how long the calls on a thread take; the thread collects it after each call."""

    def __init__(self) -> None:
        self._pending_s = 0.0
        self.busy_s = 0.0
        """Of all calls so far."""
        self.begins_s = 0.0
        """When the call under way begins on the thread, in the loop's time."""
        self.slowdown = 1.0
        """Factor on everything: a machine that has other things to do."""

    def spend(self, seconds: float) -> float:
        """Note that the call under way takes so long; return for how long, with other things to do."""
        slowed_s = seconds * self.slowdown
        self._pending_s += slowed_s
        self.busy_s += slowed_s
        return slowed_s

    def collect_s(self) -> float:
        """Return what was spent since the last time."""
        pending_s, self._pending_s = self._pending_s, 0.0
        return pending_s


class VirtualThread:
    """Runs calls one after the other, each as long in virtual time as it says.

    It is a `cloud.stepper.Thread` and a `paceline.client.pump.Worker`.

    A call computes its result when it is asked for and hands it out when its time is over. Like a real thread it goes
    on when its caller is cancelled.

    Args:
        occupation: what the calls spend.
    """

    def __init__(self, occupation: Occupation) -> None:
        self._occupation = occupation
        self._free_s = 0.0

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `function` returns, when it is done."""
        now_s = asyncio.get_running_loop().time()
        self._occupation.begins_s = begins_s = max(now_s, self._free_s)
        result = function(*args, **kwargs)
        self._free_s = begins_s + self._occupation.collect_s()
        await asyncio.sleep(self._free_s - now_s)
        return result
