"""A timeline in the Trace Event Format, which ui.perfetto.dev and chrome://tracing read.

Phases used: X (a span), i (an instant), s and f (an arrow between two spans), C (a curve), M (names of lanes). Times are in
microseconds. Spans on one thread must not overlap, so each row of a lane is a thread; threads are numbered from top to bottom,
because Perfetto sorts by number where it does not know `thread_sort_index`.
"""

from collections.abc import Iterator
from typing import Any

from paceline.timeline.value import Committed, Lane, Span, Timeline

PROCESS = 1
_CATEGORY = "paceline"
_FLOW = "leads to"


def trace_events(timeline: Timeline) -> dict[str, Any]:
    """Return the JSON object of a trace."""
    threads = _threads(timeline)
    events = [
        *_names(timeline, threads),
        *(_span(span, threads[span.lane, span.row]) for span in timeline.spans),
        *_flows(timeline, threads),
        *_commits(timeline, threads[Lane.TEXT, 0]),
        *(
            _event("i", happening.name, happening.at_s, threads[Lane.TEXT, 0], s="p")
            for happening in timeline.happenings
        ),
    ]
    return {
        "traceEvents": sorted(events, key=lambda event: event["ts"]),
        "displayTimeUnit": "ms",
        "otherData": {
            "title": timeline.title,
            "figures": timeline.figures.sentence(),
            "notes": list(timeline.notes),
        },
    }


def _threads(timeline: Timeline) -> dict[tuple[Lane, int], int]:
    rows = [(lane, row) for lane in Lane for row in range(timeline.num_rows(lane))]
    return {place: number for number, place in enumerate(rows, start=1)}


def _microseconds(seconds: float) -> float:
    """Return it to the nanosecond: whole nanoseconds, so that spans that touch still touch."""
    return round(seconds * 1e9) / 1e3


def _event(phase: str, name: str, at_s: float, thread: int, **others: Any) -> dict[str, Any]:
    return {
        "name": name,
        "cat": _CATEGORY,
        "ph": phase,
        "ts": _microseconds(at_s),
        "pid": PROCESS,
        "tid": thread,
        **others,
    }


def _names(timeline: Timeline, threads: dict[tuple[Lane, int], int]) -> Iterator[dict[str, Any]]:
    yield _event("M", "process_name", 0.0, 1, args={"name": timeline.title})
    for (lane, row), thread in threads.items():
        name = str(lane) if row == 0 else f"{lane} ({row + 1})"
        yield _event("M", "thread_name", 0.0, thread, args={"name": name})
        yield _event("M", "thread_sort_index", 0.0, thread, args={"sort_index": thread})


def _span(span: Span, thread: int) -> dict[str, Any]:
    begin_us, end_us = _microseconds(span.begin_s), _microseconds(span.end_s)
    args = dict(span.details)
    if span.lane is Lane.UPLINK and "accepted" in args:
        args["fate"] = str(span.fate)
    return _event("X", span.name, span.begin_s, thread, dur=round(end_us - begin_us, 3), args=args)


def _flows(timeline: Timeline, threads: dict[tuple[Lane, int], int]) -> Iterator[dict[str, Any]]:
    """An arrow is bound to the spans that are open at its ends: it goes from the middle of one to that of the other.

    Drafts that come during a step are compared after it: their arrow ends between then and the step's end.
    """
    for number, flow in enumerate(timeline.flows, start=1):
        source, target = timeline.spans[flow.source], timeline.spans[flow.target]
        from_s = (source.begin_s + source.end_s) / 2
        to_s = (max(source.end_s, target.begin_s) + target.end_s) / 2
        yield _event("s", _FLOW, from_s, threads[source.lane, source.row], id=number)
        yield _event("f", _FLOW, to_s, threads[target.lane, target.row], id=number, bp="e")


def _commits(timeline: Timeline, thread: int) -> Iterator[dict[str, Any]]:
    accepted = 0
    for commit in timeline.commits:
        accepted += sum(commit.accepted)
        yield _event("i", _commit_name(commit), commit.at_s, thread, s="t", args=_told(commit))
        curve = {"accepted drafts": accepted, "target's own": commit.end - accepted}
        yield _event("C", "committed tokens", commit.at_s, thread, args=curve)


def _commit_name(commit: Committed) -> str:
    accepted = sum(commit.accepted)
    return f"+{accepted} accepted, +{len(commit.accepted) - accepted} own"


def _told(commit: Committed) -> dict[str, Any]:
    told: dict[str, Any] = {
        "position": commit.position,
        "tokens": len(commit.accepted),
        "accepted": list(commit.accepted),
        "rejected_at": list(commit.rejected),
    }
    if commit.tokens:
        told["token_ids"] = list(commit.tokens)
    return told
