"""Which event is allowed in which state, and where it leads. Everything that decides a state stands here.

Kinds in capitals below the line `from the peer` break the peer's side of the contract when they are missing from a
row (RemoteProtocolError, the stream ends); the others break ours (LocalProtocolError, a bug).

Edge
    NEW        nothing was ever sent
    OPENING    stream is up, Open sent, no answer yet
    RESUMING   stream is up, Resume sent, no answer yet
    STREAMING  proposals and commits flow
    OFFLINE    no stream; the text so far is kept
    DONE       the text is complete, or the user has cancelled
    FAILED     it can not go on

Cloud
    LIVE       a stream is attached, the text goes on
    DETACHED   no stream; the lease runs
    ENDED      the log has its last entry, a stream is attached and reads the rest
    KEPT       the log has its last entry, no stream; the lease runs
    CLOSED     freed
"""

from enum import StrEnum

from paceline.errors import LocalProtocolError, RemoteProtocolError


class EdgeState(StrEnum):
    """Where an edge's session is."""

    NEW = "new"
    OPENING = "opening"
    RESUMING = "resuming"
    STREAMING = "streaming"
    OFFLINE = "offline"
    DONE = "done"
    FAILED = "failed"


class EdgeKind(StrEnum):
    """What can happen to an edge's session."""

    LINK_UP = "link up"
    LINK_DOWN = "link down"
    DRAFTED = "drafted"
    IDLE = "nothing to draft"
    STEER = "steer"
    STOP = "stop"
    GIVE_UP = "give up"
    # from the peer
    OPENED = "opened"
    COMMIT = "commit"
    FINISH = "commit with finish"
    DRAIN = "drain"
    REFUSED = "failure, retryable"
    LOST = "failure, session lost"
    BROKEN = "failure, final"


class CloudState(StrEnum):
    """Where a verifier's session is."""

    LIVE = "live"
    DETACHED = "detached"
    ENDED = "ended"
    KEPT = "kept"
    CLOSED = "closed"


class CloudKind(StrEnum):
    """What can happen to a verifier's session."""

    ATTACH = "attach"
    DETACH = "detach"
    STEP = "step"
    FINISH = "step that finishes"
    EXPIRE = "lease expired"
    ABORT = "aborted by the verifier"
    # from the peer
    PROPOSAL = "proposal"
    CLOSE = "close"


_E, _K = EdgeState, EdgeKind

_DRAFTING = {_K.STOP: _E.DONE, _K.GIVE_UP: _E.FAILED}
_CONNECTED = {
    _K.LINK_DOWN: _E.OFFLINE,
    _K.REFUSED: _E.OFFLINE,
    _K.LOST: _E.OFFLINE,
    _K.BROKEN: _E.FAILED,
    **_DRAFTING,
}

EDGE_TABLE: dict[EdgeState, dict[EdgeKind, EdgeState]] = {
    _E.NEW: {
        _K.LINK_UP: _E.OPENING,
        _K.LINK_DOWN: _E.NEW,
        _K.DRAFTED: _E.NEW,
        _K.IDLE: _E.NEW,
        _K.STEER: _E.NEW,
        **_DRAFTING,
    },
    _E.OPENING: {
        _K.OPENED: _E.STREAMING,
        _K.DRAFTED: _E.OPENING,
        _K.IDLE: _E.OPENING,
        _K.STEER: _E.OPENING,
        **_CONNECTED,
    },
    _E.RESUMING: {
        _K.OPENED: _E.STREAMING,
        _K.DRAFTED: _E.RESUMING,
        _K.IDLE: _E.RESUMING,
        _K.STEER: _E.RESUMING,
        **_CONNECTED,
    },
    _E.STREAMING: {
        _K.COMMIT: _E.STREAMING,
        _K.FINISH: _E.DONE,
        _K.DRAIN: _E.STREAMING,
        _K.DRAFTED: _E.STREAMING,
        _K.IDLE: _E.STREAMING,
        _K.STEER: _E.STREAMING,
        **_CONNECTED,
    },
    # LINK_UP leads to OPENING instead where no verifier holds the session (see `edge_leads_to`).
    _E.OFFLINE: {
        _K.LINK_UP: _E.RESUMING,
        _K.LINK_DOWN: _E.OFFLINE,
        _K.DRAFTED: _E.OFFLINE,
        _K.IDLE: _E.OFFLINE,
        _K.STEER: _E.OFFLINE,
        **_DRAFTING,
    },
    # What was under way when the text ended may still arrive; nobody needs it.
    _E.DONE: dict.fromkeys(EdgeKind, _E.DONE),
    _E.FAILED: dict.fromkeys(EdgeKind, _E.FAILED),
}

_C, _Q = CloudState, CloudKind

CLOUD_TABLE: dict[CloudState, dict[CloudKind, CloudState]] = {
    _C.LIVE: {
        _Q.ATTACH: _C.LIVE,
        _Q.DETACH: _C.DETACHED,
        _Q.STEP: _C.LIVE,
        _Q.FINISH: _C.ENDED,
        _Q.PROPOSAL: _C.LIVE,
        _Q.CLOSE: _C.CLOSED,
        _Q.ABORT: _C.CLOSED,
    },
    # A step that was under way when the stream broke still commits; none starts.
    _C.DETACHED: {
        _Q.ATTACH: _C.LIVE,
        _Q.STEP: _C.DETACHED,
        _Q.FINISH: _C.KEPT,
        _Q.EXPIRE: _C.CLOSED,
        _Q.ABORT: _C.CLOSED,
    },
    _C.ENDED: {
        _Q.ATTACH: _C.ENDED,
        _Q.DETACH: _C.KEPT,
        _Q.PROPOSAL: _C.ENDED,
        _Q.CLOSE: _C.CLOSED,
        _Q.ABORT: _C.CLOSED,
    },
    _C.KEPT: {
        _Q.ATTACH: _C.ENDED,
        _Q.EXPIRE: _C.CLOSED,
        _Q.ABORT: _C.CLOSED,
    },
    _C.CLOSED: dict.fromkeys(CloudKind, _C.CLOSED),
}

FROM_THE_PEER: frozenset[EdgeKind | CloudKind] = frozenset(
    {
        EdgeKind.OPENED,
        EdgeKind.COMMIT,
        EdgeKind.FINISH,
        EdgeKind.DRAIN,
        EdgeKind.REFUSED,
        EdgeKind.LOST,
        EdgeKind.BROKEN,
        CloudKind.PROPOSAL,
        CloudKind.CLOSE,
    }
)


def edge_leads_to(state: EdgeState, kind: EdgeKind, *, can_resume: bool) -> EdgeState:
    """Return the edge's next state.

    Args:
        state: where it is.
        kind: what happened.
        can_resume: the verifier at the other end holds this session; only LINK_UP asks.

    Raises:
        RemoteProtocolError: the peer may not do this now.
        LocalProtocolError: we may not.
    """
    following = EDGE_TABLE[state].get(kind)
    if following is None:
        raise _refusal(state, kind)
    if kind is EdgeKind.LINK_UP and following is EdgeState.RESUMING and not can_resume:
        return EdgeState.OPENING
    return following


def cloud_leads_to(state: CloudState, kind: CloudKind) -> CloudState:
    """Return the verifier's next state.

    Raises:
        RemoteProtocolError: the peer may not do this now.
        LocalProtocolError: we may not.
    """
    following = CLOUD_TABLE[state].get(kind)
    if following is None:
        raise _refusal(state, kind)
    return following


def _refusal(state: StrEnum, kind: EdgeKind | CloudKind) -> Exception:
    message = f"message: got {kind.value!r} in state {state.value!r}, which does not allow it"
    return (RemoteProtocolError if kind in FROM_THE_PEER else LocalProtocolError)(message)
