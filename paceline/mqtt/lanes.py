"""What waits to be sent or to be read: bounded in values, names and bytes. Pure.

Retained topics go first, and only their newest value counts. The others are kept in order, a few for each name, so that one that
floods pushes out its own values and not those of the others.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass

MAX_NAMES = 32768
"""Most names that wait at once in a lane; more than an orchestrator remembers edges, so that it never sheds a policy."""

MAX_BYTES = 32 * 2**20
"""Most bytes of payload that wait at once in a lane."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """A payload under a topic's name."""

    name: str
    payload: bytes
    retain: bool
    """Of a retained topic."""


class Lanes:
    """Two lanes of letters.

    Args:
        depth: how many values of one name that is not retained are kept.
    """

    def __init__(self, *, depth: int) -> None:
        self._retained = Lane(depth=1)
        self._passing = Lane(depth=depth)

    def __len__(self) -> int:
        """Return how many letters wait."""
        return len(self._retained) + len(self._passing)

    def put(self, letter: Letter) -> int:
        """Take a letter in; return how many others had to go for it, the oldest first."""
        lane = self._retained if letter.retain else self._passing
        return lane.put(letter.name, letter.payload)

    def take(self) -> Letter | None:
        """Return the letter whose turn it is; None if there is none."""
        if (item := self._retained.take()) is not None:
            return Letter(name=item[0], payload=item[1], retain=True)
        if (item := self._passing.take()) is not None:
            return Letter(name=item[0], payload=item[1], retain=False)
        return None


class Lane:
    """Payloads by name: in order within a name, names in turn.

    Args:
        depth: most payloads of one name; a further one pushes out the oldest of them.
        max_names: most names; a further one pushes out the oldest payload of the name whose turn it is.
        max_bytes: most bytes of all payloads; the same.
    """

    def __init__(
        self, *, depth: int, max_names: int = MAX_NAMES, max_bytes: int = MAX_BYTES
    ) -> None:
        self._depth = depth
        self._max_names = max_names
        self._max_bytes = max_bytes
        self._num_bytes = 0
        self._num_payloads = 0
        self._waiting: OrderedDict[str, deque[bytes]] = OrderedDict()

    def __len__(self) -> int:
        """Return how many payloads wait."""
        return self._num_payloads

    def put(self, name: str, payload: bytes) -> int:
        """Take a payload in; return how many others were pushed out."""
        before = self._num_payloads
        waiting = self._waiting.setdefault(name, deque())
        waiting.append(payload)
        self._num_payloads += 1
        self._num_bytes += len(payload)
        if len(waiting) > self._depth:
            self._forget(waiting.popleft())
        while len(self._waiting) > self._max_names or self._num_bytes > self._max_bytes:
            self.take()
        return before + 1 - self._num_payloads

    def take(self) -> tuple[str, bytes] | None:
        """Return the oldest payload of the name whose turn it is, with that name; None if there is none."""
        if not self._waiting:
            return None
        name, waiting = self._waiting.popitem(last=False)
        payload = waiting.popleft()
        self._forget(payload)
        if waiting:
            self._waiting[name] = waiting
        return name, payload

    def _forget(self, payload: bytes) -> None:
        self._num_payloads -= 1
        self._num_bytes -= len(payload)
