"""What the log of a simulated world tells of one session. Pure."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

from paceline.errors import ConfigError
from paceline.timeline.facts import Downward, Fact, Facts, Forward, Step, StreamChange, Upward
from simulator.virtual.events import Event

ROUNDING_S = 1e-6
"""Times that are closer are the same: the log tells durations in nanoseconds, and sums of them round."""
_UP = {"open", "resume", "proposal", "close"}
_DOWN = {"opened", "commit", "drain", "failure"}
_FIRST = {"open", "resume"}


def facts_of_log(log: Iterable[Event], *, edge: str = "edge0", request: int = 0) -> Facts:
    """Return all that a world's log tells of one session.

    Args:
        log: the events of the whole world, from its beginning.
        edge: name of the edge.
        request: which of its requests, from 0; of one that was tried several times, the last try.

    Raises:
        ConfigError: the log has no such session.
    """
    events = _of_session(list(log), edge=edge, request=request)
    began_s = events[0].at_s
    messages = _messages(events, edge=edge)
    opens = [fields for event, fields in messages if fields["message"] == "open"]
    if not opens:
        raise ConfigError(f"log: {edge} never opened a session for request {request}")
    arrivals = _arrivals(events)
    facts: list[Fact] = []
    for event, fields in messages:
        arrives_s = arrivals.get(id(event))
        facts += _message(event, fields, arrives_s=arrives_s, edge=edge)
    facts += _forwards(events, edge=edge)
    facts += _steps(events, messages)
    return Facts(
        began_s=began_s,
        prompt_length=opens[0]["prompt"],
        facts=tuple(sorted(facts, key=lambda fact: fact.at_s)),
    )


def _of_session(events: Sequence[Event], *, edge: str, request: int) -> list[Event]:
    """Return what happened from the last time it was asked until it was answered."""
    begin = end = None
    for index, event in enumerate(events):
        if event.place != edge:
            continue
        if event.kind == "asks" and dict(event.fields).get("request") == request:
            begin, end = index, None
        elif begin is not None and end is None and event.kind in {"answered", "failed"}:
            end = index
    if begin is None:
        raise ConfigError(f"log: {edge} never asked request {request}; keep the log from its start")
    return list(events[begin : len(events) if end is None else end])


def _messages(events: Sequence[Event], *, edge: str) -> list[tuple[Event, dict[str, Any]]]:
    """Return what was sent on the session's calls, either way."""
    calls: set[int] = set()
    found = []
    for event in events:
        if event.kind != "sent":
            continue
        fields: dict[str, Any] = dict(event.fields)
        if event.place == edge and fields.get("message") in _FIRST:
            calls.add(fields["call"])
        if fields["call"] in calls and fields.get("message") in _UP | _DOWN:
            found.append((event, fields))
    return found


def _arrivals(events: Sequence[Event]) -> dict[int, float]:
    """Return when each message was there, by the identity of the event that sent it; order is kept within a call."""
    waiting: dict[tuple[int, bool], list[Event]] = defaultdict(list)
    arrived: dict[int, float] = {}
    for event in events:
        if event.kind not in {"sent", "arrived"}:
            continue
        fields: dict[str, Any] = dict(event.fields)
        direction = (fields["call"], fields.get("message") in _UP)
        if event.kind == "sent":
            waiting[direction].append(event)
        elif waiting[direction]:
            arrived[id(waiting[direction].pop(0))] = event.at_s
    return arrived


def _message(
    event: Event, fields: dict[str, Any], *, arrives_s: float | None, edge: str
) -> list[Fact]:
    message = str(fields["message"])
    if event.place == edge:
        up = Upward(
            at_s=event.at_s,
            message=message,
            arrives_s=arrives_s,
            base_position=fields["position"] if message == "proposal" else 0,
            tokens=tuple(fields.get("tokens", ())),
            parents=tuple(fields.get("parents", ())),
            num_bytes=fields["bytes"],
        )
        is_first = message in _FIRST
        return [StreamChange(at_s=event.at_s, is_up=True), up] if is_first else [up]
    if arrives_s is None:
        return []  # the edge never got it
    if message != "commit":
        return [Downward(at_s=arrives_s, sent_s=event.at_s, message=message)]
    return [_commit(event, fields, arrives_s=arrives_s)]


def _commit(event: Event, fields: dict[str, Any], *, arrives_s: float) -> Downward:
    return Downward(
        at_s=arrives_s,
        sent_s=event.at_s,
        message="commit",
        position=fields["position"],
        tokens=tuple(fields["tokens"]),
        accepted=tuple(map(bool, fields.get("drafts", ()))),
        num_judged=fields["judged"],
        num_accepted=fields["accepted"],
        queue_s=fields["queue_ns"] / 1e9,
        verify_s=fields["verify_ns"] / 1e9,
        num_rows=fields["rows"],
        num_steps=fields["steps"],
        is_end="finish" in fields,
    )


def _forwards(events: Sequence[Event], *, edge: str) -> list[Fact]:
    found: list[Fact] = []
    for event in events:
        if event.place == edge and event.kind == "drafted":
            fields: dict[str, Any] = dict(event.fields)
            found.append(
                Forward(
                    at_s=fields["begins_s"],
                    end_s=fields["begins_s"] + fields["took_ns"] / 1e9,
                    position=fields["position"] + fields["guessed"],
                    num_tokens=fields["tokens"],
                )
            )
    return found


def _steps(events: Sequence[Event], messages: Sequence[tuple[Event, dict[str, Any]]]) -> list[Fact]:
    """Return the steps that served the session.

    The log names the verifier's own keys of sessions. Ours is in every step at whose end we were sent a commit.
    """
    found: list[Fact] = []
    streams: dict[tuple[str, int], list[float]] = defaultdict(list)
    for event, fields in messages:
        if fields["message"] == "commit" and fields["steps"]:
            streams[event.place, fields["call"]].append(event.at_s)
    steps = [event for event in events if event.kind == "step"]
    for place in {place for place, _ in streams}:
        own = [(step, dict(step.fields)) for step in steps if step.place == place]
        keys: set[int] = set()
        for (where, _), sent in streams.items():
            if where == place:
                keys |= _key(own, sent)
        for step, told in own:
            if keys.intersection(told["sessions"]):  # type: ignore[arg-type]
                found.append(_step(step, told))
    return found


def _key(steps: Sequence[tuple[Event, dict[str, Any]]], sent: Sequence[float]) -> set[int]:
    """Return the session that was in the steps before all these commits; several only where they were never apart."""
    ended = {_rounded(step.at_s + told["took_ns"] / 1e9): told["sessions"] for step, told in steps}
    keys: set[int] | None = None
    for at_s in sent:
        tick = _rounded(at_s)
        served = next((ended[near] for near in (tick, tick - 1, tick + 1) if near in ended), None)
        if served is not None:
            keys = set(served) if keys is None else keys.intersection(served)
    return keys or set()


def _rounded(at_s: float) -> int:
    return round(at_s / ROUNDING_S)


def _step(event: Event, told: dict[str, Any]) -> Step:
    return Step(
        at_s=event.at_s,
        end_s=event.at_s + told["took_ns"] / 1e9,
        num_rows=told["rows"],
        num_prefill_rows=told["prefill_rows"],
    )
