"""What happened in a simulated world, in order: the basis of replays, timelines and error messages.

An event is a frozen value. Written, it is one line of compact JSON; the same world writes the same bytes in any process.
"""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from paceline.messages import (
    Close,
    CloudMessage,
    Commit,
    Drain,
    EdgeMessage,
    Failure,
    Open,
    Opened,
    Proposal,
    Resume,
)

Value = str | int | float | bool | tuple[int, ...]

STORY_LENGTH = 60
"""Events that an error message tells."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened."""

    at_s: float
    """Virtual time."""
    place: str
    """Name of the machine or the link."""
    kind: str
    fields: tuple[tuple[str, Value], ...] = ()

    def line(self) -> str:
        """Return it as one line of JSON, times to the nanosecond."""
        value = {"at_s": round(self.at_s, 9), "place": self.place, "kind": self.kind}
        return json.dumps(value | dict(self.fields), separators=(",", ":"))


class Tell(Protocol):
    """Records an event of one place."""

    def __call__(self, kind: str, **fields: Value) -> None:
        """Record it."""
        ...


class EventLog:
    """Takes events. Whoever has something to tell holds one or None, so that a world without a log pays nothing.

    Args:
        most: keep the newest so many only; None keeps all.
    """

    def __init__(self, *, most: int | None = None) -> None:
        self._events: deque[Event] = deque(maxlen=most)
        self.num_recorded = 0

    def record(self, at_s: float, place: str, kind: str, **fields: Value) -> None:
        """Add an event; times never fall."""
        self.num_recorded += 1
        self._events.append(Event(at_s, place, kind, tuple(fields.items())))

    def tell(self, place: str, *, time: Callable[[], float]) -> Tell:
        """Return what records events of a place.

        Args:
            place: its name.
            time: returns the virtual time.
        """

        def told(kind: str, **fields: Value) -> None:
            self.record(time(), place, kind, **fields)

        return told

    def __iter__(self) -> Iterator[Event]:
        """Return the events, the oldest first."""
        return iter(self._events)

    def __len__(self) -> int:
        """Return how many are kept."""
        return len(self._events)

    def lines(self) -> list[str]:
        """Return all events as lines."""
        return [event.line() for event in self._events]

    def story(self) -> Sequence[str]:
        """Return the last events as lines."""
        return [event.line() for event in list(self._events)[-STORY_LENGTH:]]


def described(message: EdgeMessage | CloudMessage) -> dict[str, Value]:  # noqa: C901 - one row per message
    """Return what an event tells of a message."""
    told: dict[str, Value] = {"message": type(message).__name__.lower()}
    match message:
        case Open():
            told |= {"prompt": len(message.prompt), "output": len(message.output)}
        case Resume():
            told |= {"length": message.length, "attempt": message.attempt}
        case Proposal():
            told |= {"position": message.base_position, "tokens": message.tokens}
            if message.parents:
                told["parents"] = message.parents
            if message.idle:
                told["idle"] = True
        case Close():
            told["reason"] = str(message.reason)
        case Opened():
            told["length"] = message.length
        case Commit():
            told |= {
                "position": message.position,
                "tokens": message.tokens,
                "accepted": sum(message.accepted),
                "judged": message.num_judged,
                "rows": message.num_rows,
                "queue_ns": message.queue_ns,
                "verify_ns": message.verify_ns,
                "steps": message.num_steps,
            }
            if any(message.accepted):
                told["drafts"] = tuple(map(int, message.accepted))
            if message.finish is not None:
                told["finish"] = str(message.finish)
        case Drain():
            told["deadline_ms"] = message.deadline_ms
        case Failure():
            told |= {"reason": message.reason, "retryable": message.retryable}
    return told
