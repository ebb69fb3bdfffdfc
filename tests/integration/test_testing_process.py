"""Child processes and what else lives in the thread of a test's network: killed, started again, and ended in any case."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from simulator.programs import ProgramError
from simulator.testing.diary import Diary
from simulator.testing.process import Process, ProcessSettings
from simulator.testing.relayed import RelayedLinks
from simulator.testing.thread import LoopThread
from simulator.testing.timers import Timers
from simulator.testing.written import WrittenNetwork


@pytest.fixture
def thread() -> Iterator[LoopThread]:
    thread = LoopThread()
    thread.start()
    yield thread
    thread.stop()


def process(thread: LoopThread, diary: Diary, folder: Path, *arguments: str) -> Process:
    settings = ProcessSettings(name="the link", arguments=("link", *arguments), folder=folder)
    return Process(settings, thread=thread, diary=diary)


@pytest.mark.slow
def test_a_program_comes_back_at_its_address_and_ends_with_the_thread(tmp_path: Path) -> None:
    thread, diary = LoopThread(), Diary()
    thread.start()
    before = set(psutil.Process().children(recursive=True))
    running = process(thread, diary, tmp_path, "--to", "127.0.0.1:9")
    try:
        running.start()
        running.start()  # it runs
        address, host, port = running.address, *running.address.split(":")
        running.kill()
        running.kill()  # it does not
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection((host, int(port)), timeout=5)
        running.start()
        assert running.address == address
        socket.create_connection((host, int(port)), timeout=5).close()
        children = set(psutil.Process().children(recursive=True)) - before
        assert len(children) == 1
    finally:
        thread.stop()
    assert psutil.wait_procs(children, timeout=0)[1] == []
    told = [(event.place, event.kind) for event in diary.events]
    assert told == [("the link", kind) for kind in ("started", "killed", "started")]


@pytest.mark.slow
def test_a_program_that_cannot_start_says_why(thread: LoopThread, tmp_path: Path) -> None:
    wrong = process(thread, Diary(), tmp_path, "--to", "127.0.0.1:9", "--profile", "moon")
    with pytest.raises(ProgramError, match=r"the link ended with status 2: .*moon"):
        wrong.start()
    assert not wrong.is_running


@pytest.mark.slow
def test_a_program_that_still_loads_is_killed_at_once(thread: LoopThread, tmp_path: Path) -> None:
    loading = process(thread, Diary(), tmp_path, "--to", "127.0.0.1:9")

    async def kill_while_it_loads() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(loading._start())
            while loading._loading is None:  # noqa: ASYNC110 - nothing tells when it is spawned
                await asyncio.sleep(0)
            await loading._kill()

    with pytest.raises(ExceptionGroup) as raised:
        thread.call(kill_while_it_loads(), within_s=20.0)
    assert raised.group_contains(ProgramError, match="ended with status -9")
    assert not loading.is_running
    loading.start()
    assert loading.is_running


def test_a_call_that_takes_too_long_ends(thread: LoopThread) -> None:
    with pytest.raises(TimeoutError, match=r"did not come within 0\.01 s"):
        thread.call(asyncio.Event().wait(), within_s=0.01)


def test_what_was_to_happen_later_is_forgotten_or_waited_for() -> None:
    timers, happened = Timers(), []
    timers.after(0.0, lambda: happened.append("now"))
    timers.after(3600.0, lambda: happened.append("later"))
    timers.close()
    assert happened in ([], ["now"])


def test_what_fails_later_is_told_at_the_end() -> None:
    timers = Timers()
    timers.after(0.0, lambda: 1 / 0)
    for timer in timers._timers:
        timer.join(10)
    with pytest.raises(ExceptionGroup, match="later"):
        timers.close()


def test_a_link_counts_and_its_diary_tells(thread: LoopThread) -> None:
    diary = Diary()
    network = WrittenNetwork.read("rtt=2ms", {})
    links = RelayedLinks(network=network, seed=1, diary=diary, thread=thread)
    with socket.create_server(("127.0.0.1", 0)) as server:
        way = links(server.getsockname())
        with socket.create_connection((way.host, way.port), timeout=5) as client:
            carried, _ = server.accept()
            with carried:
                client.sendall(b"hello")
                assert carried.recv(5) == b"hello"
        assert way.statistics().up_bytes == 5
        way.change(rtt="4ms")
        way.black_hole()
        assert way.state == "black-hole"
        way.heal()
        assert way.state == "open"
    kinds = [event.kind for event in diary.events]
    assert kinds == ["listening", "changed", "black hole", "open"]


@asynccontextmanager
async def breaking() -> Any:
    raise ValueError("cannot be entered")
    yield


def test_what_cannot_be_entered_is_told_to_whoever_wanted_it(thread: LoopThread) -> None:
    with pytest.raises(ValueError, match="cannot be entered"):
        thread.call(thread.hold(breaking()), within_s=5.0)
    assert thread.do(lambda: "goes on") == "goes on"
