"""An event loop whose clock jumps to the next timer when nothing else is left to do: a minute passes in no time.

Only for coroutines that wait for timers and for each other: threads and sockets are refused. The same program does the
same in every process: tasks have hashes that count up, since sets of them (in task groups, in asyncio.wait) would
otherwise be ordered by address.
"""

import asyncio
import heapq
import itertools
import threading
from collections.abc import Callable, Coroutine, Sequence
from contextvars import Context, copy_context
from types import CodeType
from typing import Any, NoReturn, TypeVar

Result = TypeVar("Result")

LONGEST_S = 86_400.0
"""A program that is not over after a day of virtual time waits for nothing."""

MAX_ROUNDS = 100_000
"""Rounds of the loop in one instant; a program that needs more goes in circles."""

RESOLUTION_S = 1e-9
"""Timers so close together go off together."""

LEAST_TIMERS = 256
"""Fewer are never looked through for cancelled ones."""

MAX_TASKS_TOLD = 40
"""Of a program that stands still."""


class StandstillError(RuntimeError):
    """The program will never end. The message tells which task waits where, and the story so far."""


class DeadlockError(StandstillError):
    """Nothing is scheduled and the program is not over: every task waits for another one."""


class LivelockError(StandstillError):
    """The program goes in circles without any time passing."""


class OverdueError(StandstillError):
    """The program is not over at the time by which it should be."""


def no_story() -> Sequence[str]:
    """Return no lines: nobody keeps a log."""
    return ()


class _Callback:
    """What is to be called, in place of asyncio.Handle, whose checks and debug mode cost more than most callbacks do."""

    __slots__ = ("_when", "args", "context", "function", "is_cancelled")

    def __init__(
        self,
        function: Callable[..., object],
        args: tuple[Any, ...],
        context: Context | None,
        when: float,
    ) -> None:
        self.function: Callable[..., object] | None = function
        self.args = args
        self.context = copy_context() if context is None else context
        self.is_cancelled = False
        self._when = when

    def cancel(self) -> None:
        """Let it not be called, and let go of what it holds."""
        self.is_cancelled = True
        self.function, self.args = None, ()

    def cancelled(self) -> bool:
        """Return whether it will not be called."""
        return self.is_cancelled

    def when(self) -> float:
        """Return the time of a timer."""
        return self._when


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module.

    Args:
        longest_s: virtual time after which the program should be over.
        story: returns what happened lately, in lines, for the message of an error.
    """

    def __init__(
        self, *, longest_s: float = LONGEST_S, story: Callable[[], Sequence[str]] = no_story
    ) -> None:
        super().__init__()
        self._now_s = 0.0
        self._longest_s = longest_s
        self._story = story
        self._num_rounds = 0
        self._numbers = itertools.count(1)
        self._timers: list[tuple[float, int, _Callback]] = []
        self._timer_numbers = itertools.count()
        self._most_timers = LEAST_TIMERS
        """With more of them it is time to throw the cancelled ones away."""
        self.lost: list[Exception] = []
        """Errors that nobody took, of callbacks for example."""
        self.set_task_factory(_numbered)  # type: ignore[arg-type]

    def time(self) -> float:
        """Return the virtual time in seconds; it begins at 0."""
        return self._now_s

    def next_number(self) -> int:
        """Return the number of the next task."""
        return next(self._numbers)

    # --- in place of timers and of a selector

    def call_at(  # type: ignore[override]
        self,
        when: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> _Callback:
        """Schedule a callback; those of one instant go off in the order in which they were asked for."""
        if self._closed:  # type: ignore[attr-defined]
            self._check_closed()  # type: ignore[attr-defined]
        timer = _Callback(callback, args, context, when)
        if len(self._timers) > self._most_timers:
            # In place: `_run_once` holds them too.
            self._timers[:] = [one for one in self._timers if not one[2].is_cancelled]
            heapq.heapify(self._timers)
            self._most_timers = 2 * len(self._timers) + LEAST_TIMERS
        heapq.heappush(self._timers, (when, next(self._timer_numbers), timer))
        return timer

    def call_soon(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Callback:
        """Schedule a callback for the next round."""
        if self._closed:  # type: ignore[attr-defined]
            self._check_closed()  # type: ignore[attr-defined]
        made = _Callback(callback, args, context, self._now_s)
        self._ready.append(made)  # type: ignore[attr-defined]
        return made

    def call_later(  # type: ignore[override]
        self,
        delay: float,
        callback: Callable[..., object],
        *args: Any,
        context: Context | None = None,
    ) -> _Callback:
        """Schedule a callback `delay` seconds from now."""
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def _run_once(self) -> None:
        """Run what is ready; if nothing is, what is ready at the next timer.

        asyncio's own does the same and much that only sockets and a clock that runs need; it is a tenth of a simulation.

        Raises:
            StandstillError: the program will never end.
        """
        ready, timers = self._ready, self._timers  # type: ignore[attr-defined]
        while timers and timers[0][2].is_cancelled:
            heapq.heappop(timers)
        is_idle = not (ready or self._stopping)  # type: ignore[attr-defined]
        if is_idle and not timers:
            raise DeadlockError(self._told("every task waits for another one"))
        if is_idle and timers[0][0] > self._now_s:
            self._num_rounds = 0
            self._now_s = timers[0][0]
            if self._now_s > self._longest_s:
                raise OverdueError(self._told(f"not over after {self._longest_s:g} s"))
        else:
            self._num_rounds += 1
            if self._num_rounds > MAX_ROUNDS:
                raise LivelockError(self._told(f"{MAX_ROUNDS} rounds passed in one instant"))
        until_s = self._now_s + RESOLUTION_S
        while timers and timers[0][0] < until_s:
            ready.append(heapq.heappop(timers)[2])
        # What these schedule is for the next round.
        for _ in range(len(ready)):
            due = ready.popleft()
            if due.function is not None:
                self._call(due)

    def _call(self, due: _Callback) -> None:
        assert due.function is not None
        try:
            due.context.run(due.function, *due.args)
        except (SystemExit, KeyboardInterrupt):
            raise
        except BaseException as error:  # noqa: BLE001 - as asyncio.Handle does; told at the end
            self.call_exception_handler({"message": "a callback failed", "exception": error})

    def close(self) -> None:
        """Also let go of timers, and with them of the world that they belong to."""
        super().close()
        self._timers.clear()

    def _write_to_self(self) -> None:
        """The loop never sleeps, so nothing need wake it."""

    # --- what does not fit in

    def call_soon_threadsafe(  # type: ignore[override]
        self, callback: Callable[..., object], *args: Any, context: Context | None = None
    ) -> _Callback:
        """Schedule a callback; from the loop's own thread only, as asyncio's handler of Ctrl-C does."""
        if self.is_running() and threading.get_ident() != self._thread_id:  # type: ignore[attr-defined]
            _refuse("another thread")
        return self.call_soon(callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refuse: what a thread does takes no virtual time and ends when it likes."""
        del executor, args
        _refuse(f"a thread, for {getattr(func, '__qualname__', func)}")

    def add_reader(self, fd: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refuse."""
        del fd, callback, args
        _refuse("a socket")

    def add_writer(self, fd: Any, callback: Any, *args: Any) -> NoReturn:  # type: ignore[override]
        """Refuse."""
        del fd, callback, args
        _refuse("a socket")

    async def create_connection(self, *args: Any, **named: Any) -> NoReturn:
        """Refuse."""
        del args, named
        _refuse("a socket")

    async def create_server(self, *args: Any, **named: Any) -> NoReturn:
        """Refuse."""
        del args, named
        _refuse("a socket")

    async def subprocess_exec(self, *args: Any, **named: Any) -> NoReturn:
        """Refuse."""
        del args, named
        _refuse("a process")

    # --- errors

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        """Keep an error that nobody took: the program is wrong, and its caller is told at the end."""
        error = context.get("exception")
        if not isinstance(error, Exception):
            error = RuntimeError(str(context.get("message")))
        self.lost.append(error)

    def _told(self, what: str) -> str:
        first = f"nothing will come of it any more at {self._now_s:.6f} s of virtual time: {what}"
        return "\n".join([first, *self.whereabouts()])

    def whereabouts(self) -> list[str]:
        """Return in lines which task waits where, and the story so far."""
        tasks = sorted(asyncio.all_tasks(self), key=_number)
        lines = [
            f"tasks ({len(tasks)}):",
            *(f"  {_where(task)}" for task in tasks[:MAX_TASKS_TOLD]),
        ]
        story = self._story()
        if story:
            lines += ["the story so far:", *(f"  {line}" for line in story)]
        return lines


class _NumberedTask(asyncio.Task[Any]):
    """A task whose hash says when it was made."""

    def __init__(self, coro: Coroutine[Any, Any, Any], *, loop: VirtualLoop, **named: Any) -> None:
        self.number = loop.next_number()  # before asyncio registers the task, which hashes it
        super().__init__(coro, loop=loop, **named)

    def __hash__(self) -> int:
        return self.number


def _numbered(
    loop: asyncio.AbstractEventLoop, coro: Coroutine[Any, Any, Any], **named: Any
) -> asyncio.Task[Any]:
    assert isinstance(loop, VirtualLoop)
    return _NumberedTask(coro, loop=loop, **named)


def _number(task: asyncio.Task[Any]) -> int:
    return hash(task)


def _where(task: asyncio.Task[Any]) -> str:
    """Return a task's number, and the functions it is in, with the line of the innermost one that is not asyncio's."""
    names: list[str] = []
    place = ""
    inner: Any = task.get_coro()
    while inner is not None:
        frame = getattr(inner, "cr_frame", None) or getattr(inner, "gi_frame", None)
        if frame is None:
            break
        code: CodeType = frame.f_code
        if "asyncio" not in code.co_filename:
            names.append(code.co_qualname)
            place = f"{code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        inner = getattr(inner, "cr_await", None) or getattr(inner, "gi_yieldfrom", None)
    return f"task {hash(task)}: {' > '.join(names) or 'not begun'} at {place or '?'}"


def _refuse(what: str) -> NoReturn:
    raise RuntimeError(
        f"virtual time: got {what}, expected only coroutines that wait for timers and for each other; bring a simulated "
        "one, or run this in real time"
    )


def run_virtually(
    main: Coroutine[Any, Any, Result],
    *,
    longest_s: float = LONGEST_S,
    story: Callable[[], Sequence[str]] = no_story,
) -> Result:
    """Run a coroutine to its end in virtual time, which begins at 0.

    Args:
        main: the program.
        longest_s: virtual time after which it should be over.
        story: returns what happened lately, in lines; told if it never ends.

    Raises:
        StandstillError: the program will never end, or not within `longest_s`.
        ExceptionGroup: it ended, and there were errors that nobody took.
    """
    loop = VirtualLoop(longest_s=longest_s, story=story)
    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        result = runner.run(main)
    if loop.lost:
        raise ExceptionGroup("errors that nobody took", loop.lost)
    return result
