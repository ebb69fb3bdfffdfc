"""What the verifier's log says of sessions and streams; docs/observability.md lists the lines and their fields.

A session appears under `log_name`, never with its whole id, which lets its holder resume the session. Lines that
a peer can cause are bounded in number: somebody who opens sessions in a loop must not fill the disk.
"""

import logging

from cloud.entry import Entry
from cloud.stream import Stream
from paceline.clock import MonotonicClock
from paceline.errors import PacelineError
from paceline.logs import BoundedLog
from paceline.session.counts import Counts
from paceline.tokens import log_name

log = logging.getLogger(__name__)

_sessions = BoundedLog(log, clock=MonotonicClock(), burst=400, per_s=100.0)
_refusals = BoundedLog(log, clock=MonotonicClock(), burst=50, per_s=5.0)

MAX_MESSAGE = 200
"""Characters of an error in a line."""


def opened(entry: Entry) -> None:
    """A session was opened."""
    request = entry.session.request
    _sessions.info(
        "session opened",
        {
            "session": log_name(entry.session_id),
            "tenant": entry.peer.tenant,
            "prompt_tokens": len(request.prompt),
            "output_tokens": len(request.output),
            "max_tokens": request.max_tokens,
        },
    )


def ended(entry: Entry, counts: Counts, *, now_s: float) -> None:
    """A session is gone."""
    _sessions.info(
        "session ended",
        {
            "session": log_name(entry.session_id),
            "tenant": entry.peer.tenant,
            "how": entry.how_it_ended,
            "reason": entry.error.reason if entry.error else "none",
            "committed": entry.num_committed,
            "steps": counts.steps,
            "drafted": counts.drafted,
            "judged": counts.judged,
            "accepted": counts.accepted,
            "duration_s": now_s - entry.opened_at_s,
        },
    )


def attached(entry: Entry, stream: Stream) -> None:
    """A stream has a session."""
    _sessions.info(
        "stream attached",
        {
            "session": log_name(entry.session_id),
            "stream": stream.number,
            "length": entry.session.length,
        },
    )


def detached(entry: Entry, stream: Stream) -> None:
    """A stream is over."""
    _sessions.info(
        "stream detached",
        {
            "session": log_name(entry.session_id),
            "stream": stream.number,
            "length": entry.session.length,
            "reason": stream.error.reason if stream.error else "none",
        },
    )


def refused(error: PacelineError) -> None:
    """A call ended before it had a session."""
    _refusals.warning("call refused", {"reason": error.reason, "error": str(error)[:MAX_MESSAGE]})


def drafts_given_up(entry: Entry, error: PacelineError) -> None:
    """The model failed on rows with drafts of this session, which goes on without."""
    _sessions.warning(
        "no more drafts",
        {
            "session": log_name(entry.session_id),
            "reason": error.reason,
            "error": str(error)[:MAX_MESSAGE],
        },
    )


def broken_by_step(entry: Entry, bug: PacelineError) -> None:
    """A bug: a step broke the session's own rules."""
    named = {"session": log_name(entry.session_id)}
    log.error("a step broke its session", extra=named, exc_info=bug)
