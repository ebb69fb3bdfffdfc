"""The emulated link for tests whose own event loop must not carry it, or that have none.

A test on asyncio can use `simulator.relay.Relay` itself. Here the relay has a thread and a precise event loop of its own,
so that a busy test does not add to the delay; it is controlled from any thread.
"""

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from paceline.settings import Address, parse_address
from simulator.link import LinkSettings
from simulator.network import NetworkSettings
from simulator.relay import CutMode, Relay, RelayStatistics, precise_loop

TIMEOUT_S = 30.0
T = TypeVar("T")


class ThreadedRelay:
    """Controls a relay that runs in another thread; every call returns when it has taken effect."""

    def __init__(self, relay: Relay, loop: asyncio.AbstractEventLoop) -> None:
        self._relay = relay
        self._loop = loop

    @property
    def address(self) -> Address:
        return self._relay.address

    @property
    def port(self) -> int:
        return self._relay.port

    def statistics(self) -> RelayStatistics:
        return self._call(self._relay.statistics)

    def change(self, settings: LinkSettings, *, down: LinkSettings | None = None) -> None:
        self._call(lambda: self._relay.change(settings, down=down))

    def change_network(self, network: NetworkSettings) -> None:
        self._call(lambda: self._relay.change_network(network))

    def set_rtt(self, rtt_s: float) -> None:
        self._call(lambda: self._relay.set_delay(rtt_s / 2))

    def set_bandwidth(self, bandwidth_bps: float | None) -> None:
        self._call(lambda: self._relay.set_bandwidth(bandwidth_bps))

    def cut(self, mode: CutMode = CutMode.RESET) -> None:
        self._call(lambda: self._relay.cut(mode))

    def heal(self) -> None:
        self._wait(self._relay.heal())

    def _call(self, function: Callable[[], T]) -> T:
        async def call() -> T:
            return function()

        return self._wait(call())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(TIMEOUT_S)


@contextmanager
def threaded_relay(
    to: Address | str,
    *,
    rtt_s: float = 0.0,
    settings: LinkSettings | None = None,
    network: NetworkSettings | None = None,
    seed: int = 0,
) -> Iterator[ThreadedRelay]:
    """Run a relay in its own thread.

    Args:
        to: the server, as an address or as "host:port".
        rtt_s: round trip time, for the common case that nothing else matters.
        settings: of each way, instead of `rtt_s`.
        network: of both ways, instead of `rtt_s` and `settings`.
        seed: of the network's weather.
    """
    way = settings or LinkSettings(delay_s=rtt_s / 2)
    relay_network = network or NetworkSettings(up=way, down=way)
    with _loop_in_thread() as loop:

        def wait(coroutine: Coroutine[Any, Any, Any]) -> None:
            asyncio.run_coroutine_threadsafe(coroutine, loop).result(TIMEOUT_S)

        runner = _Runner(Relay(to=_address(to), network=relay_network, seed=seed))
        try:
            wait(runner.start())
            yield ThreadedRelay(runner.relay, loop)
        finally:
            wait(runner.stop())


class _Runner:
    """Enters and leaves the relay in one task, as its task group demands."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self._stop = asyncio.Event()
        self._started = asyncio.Event()
        self._ended = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()

    async def start(self) -> None:
        # The task outlives this call on purpose; stop() waits for its end.
        self._tasks.add(asyncio.get_running_loop().create_task(self._run()))
        await self._started.wait()

    async def stop(self) -> None:
        self._stop.set()
        await self._ended.wait()

    async def _run(self) -> None:
        try:
            async with self.relay:
                self._started.set()
                await self._stop.wait()
        finally:
            self._started.set()
            self._ended.set()


@contextmanager
def _loop_in_thread() -> Iterator[asyncio.AbstractEventLoop]:
    loop = precise_loop()
    thread = threading.Thread(target=loop.run_forever, name="relay")
    thread.start()
    try:
        yield loop
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(TIMEOUT_S)
        loop.close()


def _address(to: Address | str) -> Address:
    if isinstance(to, Address):
        return to
    return parse_address(to)
