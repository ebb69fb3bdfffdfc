"""A network between clients and a server: two directions, and connections that share them. No I/O, no clock.

    network = Network(parse_network("lte"), seed=7)
    connection = network.connect()
    open_s = connection.opens_at(now_s)                        # one round trip, as TCP's handshake
    there_s = connection.up.leaves_at(open_s, num_bytes)       # when a message is out at the server
    back_s = connection.down.leaves_at(there_s, num_bytes)     # when the answer is out at the client

The relay on real sockets and the network in memory both ask this. Times are seconds since the start of the network.
"""

from dataclasses import dataclass, field

from simulator.link import Link, LinkSettings
from simulator.tcp import Stream


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkSettings:
    """Both directions of a network; simulator.notation reads them from text."""

    up: LinkSettings = field(default_factory=LinkSettings)
    """From the clients to the server."""

    down: LinkSettings = field(default_factory=LinkSettings)
    """From the server to the clients."""

    name: str = "custom"
    """Of the profile it comes from, or as a user wrote it."""


class Connection:
    """One connection: its two directions, each in order."""

    def __init__(self, *, up: Stream, down: Stream) -> None:
        self.up = up
        self.down = down

    def opens_at(self, now_s: float) -> float:
        """Return when the client may send its first byte: after a round trip, longer if its packets are lost."""
        there_s = self.up.opens_at(now_s)
        back_s = self.down.opens_at(there_s)
        for stream in (self.up, self.down):
            stream.note_round_trip(back_s - now_s)
        return back_s

    @property
    def num_lost(self) -> int:
        """Segments lost so far, both ways, copies included."""
        return self.up.num_lost + self.down.num_lost


class Network:
    """The state of both directions."""

    def __init__(self, settings: NetworkSettings, *, seed: int = 0) -> None:
        """Prepare a network.

        Args:
            settings: of both directions.
            seed: 0 or more; the same one makes the same weather, and the same losses for the same messages.
        """
        self._seed = seed
        self._num_connections = 0
        self._settings = settings
        self.up = Link(settings.up, seed=(seed,))
        self.down = Link(settings.down, seed=(seed,), is_down=True)

    @property
    def settings(self) -> NetworkSettings:
        """May be replaced at any time; messages that are on their way keep their times."""
        return self._settings

    @settings.setter
    def settings(self, settings: NetworkSettings) -> None:
        self._settings = settings
        self.up.settings = settings.up
        self.down.settings = settings.down

    def connect(self) -> Connection:
        """Return a new connection; connections are numbered in the order of these calls."""
        number = self._num_connections
        self._num_connections += 1
        return Connection(
            up=Stream(self.up, back=self.down, seed=(self._seed, 0, number)),
            down=Stream(self.down, back=self.up, seed=(self._seed, 1, number)),
        )

    def round_trip_s(self, now_s: float) -> float:
        """Return what a packet without size takes there and back now, if nothing waits and nothing is lost."""
        there_s = self.up.conditions.travel_s(now_s)
        return there_s + self.down.conditions.travel_s(now_s + there_s)
