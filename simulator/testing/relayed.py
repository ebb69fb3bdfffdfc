"""A link before a real server: the emulated link in a thread, controlled by a test."""

from collections.abc import Mapping
from contextlib import AbstractAsyncContextManager
from typing import Any

from paceline.errors import ConfigError
from paceline.settings import Address, parse_address
from simulator.relay import CutMode, Relay, RelayStatistics
from simulator.testing.diary import Diary
from simulator.testing.thread import LoopThread
from simulator.testing.written import WrittenNetwork

START_S = 10.0


class RelayedLink:
    """Carries TCP connections over the test's network.

    Args:
        relay: runs in the thread's loop.
        thread: where.
        network: what it was made with.
        name: for the story.
        diary: takes what is done to it.
    """

    def __init__(
        self,
        relay: Relay,
        *,
        thread: LoopThread,
        network: WrittenNetwork,
        name: str,
        diary: Diary,
    ) -> None:
        self._relay = relay
        self._thread = thread
        self._network = network
        self._name = name
        self._diary = diary

    @property
    def host(self) -> str:
        """Where clients connect."""
        return self._relay.address.host

    @property
    def port(self) -> int:
        """Where clients connect."""
        return self._relay.port

    @property
    def address(self) -> str:
        """HOST:PORT where clients connect."""
        return str(self._relay.address)

    @property
    def state(self) -> str:
        """Open, cut, or black-hole."""
        state = self._relay.state
        return "cut" if state == CutMode.RESET else state

    def cut(self) -> None:
        """Reset every connection and refuse new ones, until it heals."""
        self._tell("cut")
        self._thread.do(self._relay.cut)

    def black_hole(self) -> None:
        """Let nothing pass and tell nobody, until it heals; bytes on their way arrive then."""
        self._tell("black hole")
        self._thread.do(lambda: self._relay.cut(CutMode.BLACK_HOLE))

    def heal(self) -> None:
        """Let everything pass again."""
        self._tell("open")
        self._thread.call(self._relay.heal(), within_s=START_S)

    def change(self, written: str | Mapping[str, Any] | None = None, **keys: Any) -> None:
        """Give it another network, `change("wan")`, or change some of this one, `change(rtt="200ms")`.

        Raises:
            ConfigError: it names the key.
        """
        self._network = self._network.changed(written, keys)
        settings = self._network.settings
        self._tell("changed", network=self._network.label)
        self._thread.do(lambda: self._relay.change_network(settings))

    def statistics(self) -> RelayStatistics:
        """Return what it carried so far."""
        return self._thread.do(self._relay.statistics)

    def _tell(self, kind: str, **fields: str) -> None:
        self._diary.tell(self._name, kind, **fields)


class RelayedLinks:
    """Links that share a thread; all end with it.

    Args:
        network: of every link, at first.
        seed: of the first link's weather; the next ones count on.
        diary: takes what happens.
        thread: where they run.
    """

    def __init__(
        self, *, network: WrittenNetwork, seed: int, diary: Diary, thread: LoopThread
    ) -> None:
        self._network = network
        self._seed = seed
        self._diary = diary
        self._thread = thread
        self._num_links = 0

    def __call__(self, to: Address | str | int | tuple[Any, ...]) -> RelayedLink:
        """Return a link before a server.

        Args:
            to: "HOST:PORT", (HOST, PORT) as sockets have it, or a port of this machine.

        Raises:
            ConfigError: it is no address.
        """
        address, number = server_address(to), self._num_links
        self._num_links += 1
        return self._thread.call(self._begin(address, number), within_s=START_S)

    async def _begin(self, to: Address, number: int) -> RelayedLink:
        relay = Relay(to=to, network=self._network.settings, seed=self._seed + number)
        context: AbstractAsyncContextManager[Relay] = relay
        await self._thread.hold(context)
        name = f"link{number}"
        self._diary.tell(name, "listening", address=str(relay.address), to=str(to))
        return RelayedLink(
            relay, thread=self._thread, network=self._network, name=name, diary=self._diary
        )


def server_address(to: Address | str | int | tuple[Any, ...]) -> Address:
    """Return the address that a test names.

    Raises:
        ConfigError: it is none.
    """
    match to:
        case Address():
            return to
        case str():
            return parse_address(to)
        case int() if not isinstance(to, bool) and 0 < to < 65536:
            return Address(host="127.0.0.1", port=to)
        case (str(host), int(port), *_):
            # A server that listens everywhere is reached here.
            return Address(host="127.0.0.1" if host in {"", "0.0.0.0"} else host, port=port)  # noqa: S104 - compared
    raise ConfigError(f'link: got {to!r}, expected "HOST:PORT", (HOST, PORT) or a port')
