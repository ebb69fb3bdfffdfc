"""Virtual time: an hour in no time, in the same order everywhere, and a clear word when nothing will ever happen."""

import asyncio
import threading

import pytest

from simulator.virtual.loop import (
    DeadlockError,
    LivelockError,
    OverdueError,
    VirtualLoop,
    run_virtually,
)


def test_an_hour_passes_at_once() -> None:
    async def main() -> float:
        begin_s = asyncio.get_running_loop().time()
        await asyncio.sleep(3600.0)
        return asyncio.get_running_loop().time() - begin_s

    assert run_virtually(main()) == 3600.0


def test_time_is_exactly_that_of_the_timer() -> None:
    async def main() -> list[float]:
        loop = asyncio.get_running_loop()
        seen: list[float] = []
        for at_s in (0.1, 0.2, 0.30000000000000004, 1e4 + 0.1):
            loop.call_at(at_s, lambda: seen.append(loop.time()))
        await asyncio.sleep(2e4)
        return seen

    assert run_virtually(main()) == [0.1, 0.2, 0.30000000000000004, 1e4 + 0.1]


def test_a_deadlock_tells_who_waits_where_and_the_story() -> None:
    async def wait_for_godot(event: asyncio.Event) -> None:
        await event.wait()

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(wait_for_godot(asyncio.Event()))

    with pytest.raises(DeadlockError) as caught:
        run_virtually(main(), story=lambda: ["a tree", "a road"])
    text = str(caught.value)
    assert "task 2: " in text
    assert "wait_for_godot at test_virtual_loop.py:" in text
    assert "a tree\n  a road" in text


def test_going_in_circles_is_no_way_to_pass_the_time() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - what is tried
            await asyncio.sleep(0)

    with pytest.raises(LivelockError, match="rounds passed in one instant"):
        run_virtually(main())


def test_a_program_that_never_ends_is_overdue() -> None:
    async def main() -> None:
        while True:  # noqa: ASYNC110 - what is tried
            await asyncio.sleep(1.0)

    with pytest.raises(OverdueError, match="not over after 60 s"):
        run_virtually(main(), longest_s=60.0)


def test_what_does_not_fit_into_virtual_time_is_refused() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        with pytest.raises(RuntimeError, match="got a thread"):
            await asyncio.to_thread(int)
        with pytest.raises(RuntimeError, match="got a socket"):
            await asyncio.open_connection("127.0.0.1", 1)
        with pytest.raises(RuntimeError, match="got a socket"):
            await asyncio.start_server(lambda _r, _w: None, "127.0.0.1", 0)
        with pytest.raises(RuntimeError, match="got a process"):
            await asyncio.create_subprocess_exec("true")
        refused: list[str] = []

        def call() -> None:
            try:
                loop.call_soon_threadsafe(int)
            except RuntimeError as error:
                refused.append(str(error))

        thread = threading.Thread(target=call)
        thread.start()
        thread.join()
        assert refused
        assert "another thread" in refused[0]

    run_virtually(main())


def test_sets_of_tasks_have_the_order_in_which_they_were_made() -> None:
    async def main() -> list[int]:
        ended: list[int] = []

        async def run(number: int) -> None:
            try:
                await asyncio.sleep(1000.0)
            finally:
                ended.append(number)

        async def fail() -> None:
            await asyncio.sleep(1.0)
            raise ValueError

        async def all_at_once() -> None:
            async with asyncio.TaskGroup() as group:  # which keeps its tasks in a set
                for number in range(200):
                    group.create_task(run(number))
                group.create_task(fail())

        with pytest.raises(ExceptionGroup):
            await all_at_once()
        return ended

    first = run_virtually(main())
    assert first == run_virtually(main())
    assert sorted(first) == list(range(200))


def test_timers_of_one_instant_go_off_in_the_order_in_which_they_were_asked_for() -> None:
    async def main() -> list[int]:
        loop = asyncio.get_running_loop()
        seen: list[int] = []
        timers = [loop.call_at(1.0, seen.append, number) for number in range(600)]
        for timer in timers[::2]:
            timer.cancel()
        # Among so many the cancelled ones are thrown away while others are still asked for.
        for number in range(600, 1200):
            loop.call_at(1.0, seen.append, number)
        await asyncio.sleep(2.0)
        return seen

    assert run_virtually(main()) == [*range(1, 600, 2), *range(600, 1200)]


def test_a_cancelled_timer_is_nothing_to_wait_for() -> None:
    async def main() -> None:
        asyncio.get_running_loop().call_later(1.0, int).cancel()
        await asyncio.Event().wait()

    with pytest.raises(DeadlockError):
        run_virtually(main())


def test_a_closed_loop_takes_nothing_more() -> None:
    loop = VirtualLoop()
    loop.close()
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_soon(int)
    with pytest.raises(RuntimeError, match="closed"):
        loop.call_later(1.0, int)


def test_timers_that_ask_for_themselves_at_once_go_in_circles() -> None:
    def again() -> None:
        asyncio.get_running_loop().call_later(0.0, again)

    async def main() -> None:
        again()
        await asyncio.sleep(1.0)

    with pytest.raises(LivelockError):
        run_virtually(main())
