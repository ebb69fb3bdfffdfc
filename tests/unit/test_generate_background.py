"""The loop in the background, and the lifeline of children."""

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from edge.background import in_background
from edge.running import STATUS_TERMINATED, run
from paceline.settings import child_environment


def resource(log: list[str]) -> "Resource":
    return Resource(log)


class Resource:
    def __init__(self, log: list[str]) -> None:
        self.log = log

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[str]:
        self.log.append("open")
        try:
            yield "value"
        finally:
            await asyncio.sleep(0)
            self.log.append("closed")


async def thread_name() -> str:
    return threading.current_thread().name


async def fail() -> None:
    raise ValueError("on purpose")


def test_work_runs_in_the_background_loop_and_the_resource_is_closed() -> None:
    log: list[str] = []
    with in_background(resource(log).opened()) as background:
        assert background.resource == "value"
        assert background.call(thread_name()) == "background loop"
        with pytest.raises(ValueError, match="on purpose"):
            background.call(fail())
        assert log == ["open"]
    assert log == ["open", "closed"]


def test_a_resource_that_cannot_be_had_says_so() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        raise ValueError("not to be had")
        yield

    with pytest.raises(ValueError, match="not to be had"), in_background(broken()):
        raise AssertionError("never reached")


def test_a_resource_that_fails_to_close_says_so() -> None:
    @asynccontextmanager
    async def broken() -> AsyncIterator[None]:
        yield
        raise ValueError("cannot close")

    with pytest.raises(ValueError, match="cannot close"), in_background(broken()):
        pass


def test_work_under_way_ends_before_the_resource_that_fails() -> None:
    log: list[str] = []
    started = asyncio.Event()

    @asynccontextmanager
    async def failing() -> AsyncIterator[None]:
        async def fail_then() -> None:
            await started.wait()
            raise ValueError("gone")

        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(fail_then())
                yield
        finally:
            log.append("resource ended")

    async def work() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("work ended")

    with pytest.raises(ExceptionGroup), in_background(failing()) as background:
        background.call(work())
    assert log == ["work ended", "resource ended"]


@pytest.mark.parametrize("is_handed_over", [True, False])
def test_ctrl_c_while_the_work_is_handed_over_cancels_it_too(
    monkeypatch: pytest.MonkeyPatch, *, is_handed_over: bool
) -> None:
    log: list[str] = []
    real = asyncio.run_coroutine_threadsafe

    def interrupted(work: Any, loop: asyncio.AbstractEventLoop) -> Any:
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", real)
        if is_handed_over:
            real(work, loop)
        raise KeyboardInterrupt

    async def work() -> None:
        try:
            log.append("work")
            await asyncio.Event().wait()
        finally:
            log.append("put away")

    with in_background(resource(log).opened()) as background:
        monkeypatch.setattr(asyncio, "run_coroutine_threadsafe", interrupted)
        with pytest.raises(KeyboardInterrupt):
            background.call(work())
        assert log[1:] == (["work", "put away"] if is_handed_over else [])


def test_ctrl_c_cancels_the_work_and_waits_for_it() -> None:
    log: list[str] = []

    async def work() -> None:
        try:
            # To the process, as a terminal does it; raise_signal would hit this thread.
            os.kill(os.getpid(), signal.SIGINT)
            await asyncio.Event().wait()
        finally:
            log.append("put away")

    with in_background(resource(log).opened()) as background:
        with pytest.raises(KeyboardInterrupt):
            background.call(work())
        assert log == ["open", "put away"]
        assert background.call(thread_name()) == "background loop"


def test_sigterm_puts_everything_away_and_tells_its_status() -> None:
    log: list[str] = []

    async def work() -> None:
        async with resource(log).opened():
            signal.raise_signal(signal.SIGTERM)
            await asyncio.Event().wait()

    with pytest.raises(SystemExit) as ended:
        run(work())
    assert ended.value.code == STATUS_TERMINATED == 143
    assert log == ["open", "closed"]


@pytest.mark.slow
def test_a_child_on_the_lifeline_ends_when_the_pipe_closes() -> None:
    command = [sys.executable, "-P", "-m", "edge.lifeline", "link", "--to", "127.0.0.1:1"]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=child_environment()
    ) as child:
        assert child.stdout is not None
        assert child.stdin is not None
        assert b"listening" in child.stdout.readline()
        child.stdin.close()
        assert child.wait(20.0) == 0
