"""What every timeline must keep, and what the Trace Event Format asks of a trace."""

import json
from collections import defaultdict
from itertools import pairwise
from typing import Any

from paceline.timeline.chrome import trace_events
from paceline.timeline.value import Fate, Lane, Timeline

REQUIRED = {"name", "cat", "ph", "ts", "pid", "tid"}
OF_PHASE = {
    "X": {"dur", "args"},
    "i": {"s"},
    "M": {"args"},
    "C": {"args"},
    "s": {"id"},
    "f": {"id"},
}
TOUCH_S = 1e-9
ORDER = [Lane.DRAFT, Lane.UPLINK, Lane.QUEUE, Lane.VERIFY, Lane.DOWNLINK]


def check_timeline(timeline: Timeline, *, num_tokens: int) -> None:
    """Nothing overlaps on a row, nothing is negative, and every token was committed once."""
    rows = defaultdict(list)
    for span in timeline.spans:
        assert 0.0 <= span.begin_s <= span.end_s, span
        assert (span.fate is Fate.NONE) or span.lane is Lane.UPLINK
        rows[span.lane, span.row].append((span.begin_s, span.end_s))
    for place, spans in rows.items():
        for before, after in pairwise(sorted(spans)):
            assert after[0] >= before[1] - TOUCH_S, (place, before, after)
    assert {row for lane, row in rows if lane is Lane.VERIFY} <= {0}, "one step at a time"
    assert {row for lane, row in rows if lane is Lane.DRAFT} <= {0}, "one thread drafts"
    positions = [c.position + i for c in timeline.commits for i in range(len(c.accepted))]
    assert positions == list(range(num_tokens)), "every token is in one commit, in order"
    times = [commit.at_s for commit in timeline.commits]
    assert times == sorted(times)
    own = sum(not flag for commit in timeline.commits for flag in commit.accepted)
    figures = timeline.figures
    assert figures.accepted + own == figures.tokens == num_tokens
    # Drafts are sent again over a new stream: those that became text are told of one message only.
    sent = [dict(span.details) for span in timeline.spans if span.lane is Lane.UPLINK]
    accepted = [told.get("accepted", 0) for told in sent]
    assert sum(count for count in accepted if isinstance(count, int)) == figures.accepted
    assert sum(len(commit.rejected) for commit in timeline.commits) == max(
        0, figures.judged - figures.accepted
    )
    for commit in timeline.commits:
        for position in commit.rejected:
            assert commit.position <= position < commit.end
    for flow in timeline.flows:
        source, target = timeline.spans[flow.source], timeline.spans[flow.target]
        assert ORDER.index(source.lane) < ORDER.index(target.lane), (source, target)


def check_trace(timeline: Timeline) -> list[dict[str, Any]]:
    """Return the events of the trace, read back from JSON, once they keep the format."""
    trace = json.loads(json.dumps(trace_events(timeline), allow_nan=False))
    assert trace["displayTimeUnit"] == "ms"
    events: list[dict[str, Any]] = trace["traceEvents"]
    assert [event["ts"] for event in events] == sorted(event["ts"] for event in events)
    open_until: dict[int, float] = defaultdict(float)
    for event in events:
        phase = event["ph"]
        assert REQUIRED | OF_PHASE[phase] <= set(event), event
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ts"] >= 0.0
        if phase == "X":
            assert event["dur"] >= 0.0
            assert event["ts"] >= open_until[event["tid"]], "slices of a thread do not overlap"
            open_until[event["tid"]] = round(event["ts"] + event["dur"], 3)
        if phase == "i":
            assert event["s"] in {"t", "p", "g"}
        if phase == "C":
            assert all(isinstance(value, int) for value in event["args"].values())
        if phase == "f":
            assert event["bp"] == "e", "bound to the slice around it, not to the next one"
    _check_flows(events)
    named = {event["tid"] for event in events if event["name"] == "thread_name"}
    assert named >= {event["tid"] for event in events}
    return events


def _check_flows(events: list[dict[str, Any]]) -> None:
    """Every arrow has two ends, and each lies in a slice of its thread."""
    slices = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            end_us = round(event["ts"] + event["dur"], 3)
            slices[event["tid"]].append((event["ts"], end_us))
    ends: dict[int, list[str]] = defaultdict(list)
    for event in events:
        if event["ph"] in {"s", "f"}:
            ends[event["id"]].append(event["ph"])
            assert any(a <= event["ts"] <= b for a, b in slices[event["tid"]]), event
    assert all(phases == ["s", "f"] for phases in ends.values()), "an arrow goes on in time"
