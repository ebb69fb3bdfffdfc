"""Child processes of the demo: waited for, explained, ended; and its verdict."""

import asyncio
import signal

import pytest
from harness.processes import is_running

from edge.private_verifier import lines
from simulator.demo import verdict
from simulator.programs import ProgramError, running

PATIENCE_S = 30.0
LINK = ("link", "--to", "127.0.0.1:1", "--json")


@pytest.mark.slow
def test_a_program_is_waited_for_and_ended_with_its_last_words() -> None:
    async def test() -> int:
        async with asyncio.timeout(PATIENCE_S), running("the link", *LINK) as link:
            assert await link.wait_for("listening", timeout_s=PATIENCE_S)
            pid = link.process.pid
            assert is_running(pid)
            assert '"closed"' in await link.end()
        return pid

    assert not is_running(asyncio.run(test()))


@pytest.mark.slow
def test_a_program_ends_when_its_user_is_cancelled() -> None:
    async def test() -> int:
        pids: list[int] = []
        started = asyncio.Event()

        async def use() -> None:
            async with running("the link", *LINK) as link:
                await link.wait_for("listening", timeout_s=PATIENCE_S)
                pids.append(link.process.pid)
                started.set()
                await asyncio.Event().wait()

        async with asyncio.timeout(PATIENCE_S), asyncio.TaskGroup() as group:
            user = group.create_task(use())
            await started.wait()
            user.cancel()
        return pids[0]

    assert not is_running(asyncio.run(test()))


@pytest.mark.slow
def test_a_program_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("simulator.programs.END_TIMEOUT_S", 0.1)

    async def test() -> int:
        async with asyncio.timeout(PATIENCE_S), running("the link", *LINK) as link:
            await link.wait_for("listening", timeout_s=PATIENCE_S)
            link.process.send_signal(signal.SIGSTOP)
        assert link.process.returncode == -signal.SIGKILL
        return link.process.pid

    assert not is_running(asyncio.run(test()))


@pytest.mark.slow
def test_a_program_that_fails_explains_itself() -> None:
    async def test() -> None:
        async with asyncio.timeout(PATIENCE_S), running("the link", "link", "--to", "x") as link:
            await link.wait_for("listening", timeout_s=PATIENCE_S)

    with pytest.RaisesGroup(
        pytest.RaisesExc(ProgramError, match=r"the link ended with status 2: .*--to.*HOST:PORT")
    ):
        asyncio.run(test())


@pytest.mark.slow
def test_a_program_that_is_silent_is_not_waited_for_forever() -> None:
    async def test() -> None:
        async with asyncio.timeout(PATIENCE_S), running("the link", *LINK) as link:
            await link.wait_for("never said", timeout_s=0.3)

    with pytest.RaisesGroup(pytest.RaisesExc(ProgramError, match="the link was not ready")):
        asyncio.run(test())


def test_a_line_without_end_is_dropped_and_the_next_is_read() -> None:
    async def test() -> list[str]:
        stream = asyncio.StreamReader(limit=64)
        stream.feed_data(b"a bar that goes on and on " * 9)
        stream.feed_data(b"\nlast\n")
        stream.feed_eof()
        return [line async for line in lines(stream)]

    assert asyncio.run(test())[-1] == "last"


def test_the_verdict_says_whether_the_texts_are_the_same_and_in_which_precision() -> None:
    assert verdict([1, 2, 3], [1, 2, 3], dtype="float32") == (
        "Identical text, with drafts and without: the same 3 tokens (float32)."
    )
    assert "from token 3 on (float32): this is a bug" in verdict(
        [1, 2, 3], [1, 2, 4], dtype="float32"
    )
    assert "from token 4 on (bfloat16)" in verdict([1, 2, 3], [1, 2, 3, 4], dtype="bfloat16")
