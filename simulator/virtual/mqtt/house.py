"""What a broker knows and decides: who is there, what is retained, who wants to hear what, what waits for whom. Pure.

A client is told as much at a time as the receive window of MQTT brokers allows: `max_inflight` messages of quality 1 that it has
not acknowledged. What is beyond waits, `max_queued` messages at most; then the newest is lost to that client, as
mosquitto has it (`max_queued_messages`). Sessions are clean: what a client that goes leaves behind is its will, and what it retained.
"""

from collections import deque
from dataclasses import dataclass, field, fields

from paceline.errors import ConfigError
from paceline.mqtt.lanes import Letter
from simulator.virtual.mqtt.packets import Publish

MAX_NUMBER = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class BrokerSettings:
    """Bounds of a broker; as in `deploy/mosquitto` where that says something.

    Raises:
        ConfigError: a bound is below 1.
    """

    max_clients: int = 4096
    """Further ones are refused."""
    max_queued: int = 5000
    """Messages that wait for one client."""
    max_inflight: int = 20
    """Of quality 1, which a client has not acknowledged."""
    max_packet_bytes: int = 65_536
    """A larger packet ends the connection."""
    max_retained: int = 65_536
    """Names; a further one is passed on and not retained."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name in (item.name for item in fields(self)):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}: got {getattr(self, name)}, expected at least 1")


@dataclass(slots=True, kw_only=True, eq=False)
class Guest:
    """A client that was let in."""

    identifier: str
    will: Letter | None
    filters: dict[str, int] = field(default_factory=dict)
    """By filter: quality of service."""
    waiting: deque[Publish] = field(default_factory=deque)
    unacknowledged: set[int] = field(default_factory=set)
    next_number: int = 1
    num_shed: int = 0


class House:
    """One life of a broker.

    Args:
        settings: its bounds.
    """

    def __init__(self, settings: BrokerSettings) -> None:
        self._settings = settings
        self.guests: dict[str, Guest] = {}
        self.retained: dict[str, bytes] = {}
        self.num_shed = 0
        """Messages that were lost to a client because too many waited for it."""
        self.most_waiting = 0
        """That ever waited for one client."""

    @property
    def is_full(self) -> bool:
        """Nobody more is let in."""
        return len(self.guests) >= self._settings.max_clients

    def enter(self, identifier: str, *, will: Letter | None) -> Guest:
        """Let a client in; whoever has the same identifier must have left before."""
        guest = self.guests[identifier] = Guest(identifier=identifier, will=will)
        return guest

    def leave(self, guest: Guest) -> None:
        """Forget a client. Its will is for the caller to publish."""
        if self.guests.get(guest.identifier) is guest:
            del self.guests[guest.identifier]

    def subscribe(self, guest: Guest, filters: tuple[tuple[str, int], ...]) -> None:
        """Note what it wants to hear, and let what is retained wait for it."""
        for wanted, qos in filters:
            guest.filters[wanted] = min(qos, 1)
            for name, payload in self.retained.items():
                if matches(wanted, name):
                    letter = Letter(name=name, payload=payload, retain=True)
                    self._put(guest, letter, qos=guest.filters[wanted], is_old=True)

    def publish(self, letter: Letter, *, qos: int) -> list[Guest]:
        """Retain it if it says so, and let it wait for everybody who wants it; return them."""
        if letter.retain:
            self._retain(letter)
        found = []
        for guest in self.guests.values():
            granted = [own for wanted, own in guest.filters.items() if matches(wanted, letter.name)]
            if granted:
                self._put(guest, letter, qos=min(qos, max(granted)), is_old=False)
                found.append(guest)
        return found

    def next(self, guest: Guest) -> Publish | None:
        """Take what may be sent to it now."""
        if not guest.waiting:
            return None
        packet = guest.waiting[0]
        if packet.qos:
            if len(guest.unacknowledged) >= self._settings.max_inflight:
                return None
            guest.unacknowledged.add(packet.number)
        return guest.waiting.popleft()

    def _retain(self, letter: Letter) -> None:
        if not letter.payload:
            self.retained.pop(letter.name, None)
        elif letter.name in self.retained or len(self.retained) < self._settings.max_retained:
            self.retained[letter.name] = letter.payload

    def _put(self, guest: Guest, letter: Letter, *, qos: int, is_old: bool) -> None:
        if len(guest.waiting) >= self._settings.max_queued:
            guest.num_shed += 1
            self.num_shed += 1
            return
        number = 0
        if qos:
            number = guest.next_number
            guest.next_number = number % MAX_NUMBER + 1
        # Only what is told because it was retained carries the flag (section 3.3.1.3).
        guest.waiting.append(
            Publish(name=letter.name, payload=letter.payload, qos=qos, retain=is_old, number=number)
        )
        self.most_waiting = max(self.most_waiting, len(guest.waiting))


def matches(wanted: str, name: str) -> bool:
    """Return whether a name is one of those a filter stands for (section 4.7)."""
    if wanted == name:
        return True
    if "+" not in wanted and "#" not in wanted:
        return False
    if name.startswith("$") and not wanted.startswith("$"):
        return False
    parts, own = wanted.split("/"), name.split("/")
    if parts[-1] == "#":
        parts.pop()
        own = own[: len(parts)]  # "a/#" stands for "a" and for whatever is below it
    return len(parts) == len(own) and all(
        part in {"+", one} for part, one in zip(parts, own, strict=True)
    )
