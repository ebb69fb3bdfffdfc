"""The edge's half of a session: what is known as committed, and the tree of what was guessed."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

from paceline.errors import (
    IncompatibleError,
    InvalidRequestError,
    LocalProtocolError,
    OverloadedError,
    PacelineError,
    ProtocolError,
    RemoteProtocolError,
    SessionLostError,
    UnauthenticatedError,
)
from paceline.messages import (
    FLOOR_WINDOW,
    MAX_PROPOSAL_TOKENS,
    Close,
    CloseReason,
    CloudMessage,
    Commit,
    Drain,
    Failure,
    Open,
    Opened,
    Proposal,
    Resume,
)
from paceline.session.events import (
    Deliver,
    Drafted,
    EdgeEffect,
    EdgeEvent,
    Failed,
    Finished,
    FromCloud,
    GiveUp,
    LinkDown,
    LinkUp,
    Move,
    NothingToDraft,
    Reconnect,
    Send,
    Stop,
)
from paceline.session.table import EdgeKind, EdgeState, edge_leads_to
from paceline.session.tree import Node, root_after
from paceline.tokens import Position, TokenId

STORY_LENGTH = 16
"""How many of the last events a LocalProtocolError tells."""

FLOOR_LEAD = 64
"""Assumed max_lead before `Opened` tells it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftRequest:
    """What the drafter may go on from: the committed text, then `path`, then its guesses."""

    position: Position
    """Length of the committed text."""

    path: tuple[TokenId, ...]
    """The live guesses to go on from."""

    limit: int
    """Most tokens worth drafting; at least 1."""


@dataclass(slots=True, kw_only=True)
class EdgeCounts:
    """What became of this edge's drafts, over all streams of the session."""

    drafted: int = 0
    """Nodes sent, each once per stream that sent it."""
    unsent: int = 0
    """Guesses dropped before they were sent."""
    judged: int = 0
    accepted: int = 0
    late: int = 0
    stale: int = 0
    steps: int = 0


class EdgeSession:
    """One generation, seen from the edge. `handle` takes what happened and returns what must happen.

    Args:
        request: what to generate; `output` may hold text that is already final.
        draft_length: how many tokens deep to draft beyond the committed text; 0 drafts nothing.
        window: the edge's own limit of nodes in flight; the verifier's may be lower.
    """

    def __init__(self, *, request: Open, draft_length: int, window: int = FLOOR_WINDOW) -> None:
        if draft_length < 0 or window < 1:
            raise LocalProtocolError(
                f"draft_length, window: got {draft_length}, {window}, expected at least 0 and 1"
            )
        self.request = request
        self.draft_length = draft_length
        self.window = window
        self.state = EdgeState.NEW
        self.log: list[TokenId] = [*request.prompt, *request.output]
        self.opened: Opened | None = None
        self.counts = EdgeCounts()
        self._stop_tokens = frozenset(request.stop_tokens)
        self._root = root_after(self.log)
        self._acknowledged = self.length
        self._next_name = 1
        self._used = 0
        self._limit = FLOOR_WINDOW
        self._idle = draft_length == 0
        self._idle_sent = False
        self._story: deque[str] = deque(maxlen=STORY_LENGTH)

    # --- what the shell reads

    @property
    def length(self) -> Position:
        """Tokens of prompt and output known as committed."""
        return Position(len(self.log))

    @property
    def output(self) -> list[TokenId]:
        """The committed tokens after the prompt."""
        return self.log[len(self.request.prompt) :]

    @property
    def window_used(self) -> int:
        """Names in flight, as this side counts them."""
        return self._used

    @property
    def is_over(self) -> bool:
        """Nothing more will happen."""
        return self.state in {EdgeState.DONE, EdgeState.FAILED}

    @property
    def draft_request(self) -> DraftRequest | None:
        """What to draft next, or None while there is nothing worth drafting."""
        if self.is_over or self.draft_length == 0:
            return None
        path: list[TokenId] = []
        node = self._root
        while node.children:
            node = next(reversed(node.children.values()))  # the newest guess
            path.append(node.token)
        if path and path[-1] in self._stop_tokens:
            return None
        num_live = sum(1 for _ in self._root.below())
        last = len(self.request.prompt) + self.request.max_tokens
        limit = min(
            self.draft_length - len(path),
            min(self.window, self._limit) - num_live,
            last - self.length - len(path),
        )
        if limit < 1:
            return None
        return DraftRequest(position=self.length, path=tuple(path), limit=limit)

    # --- events

    def handle(self, event: EdgeEvent) -> tuple[EdgeEffect, ...]:
        """Take one event.

        Raises:
            LocalProtocolError: the shell broke the rules; a bug. Tells the last events.
        """
        self._story.append(_brief(event))
        try:
            return self._dispatch(event)
        except LocalProtocolError as error:
            story = "; ".join(self._story)
            raise LocalProtocolError(f"{error}; the last events were: {story}") from error
        except ProtocolError as error:
            # The verifier broke the rules. What is committed stays; the session is not worth resuming.
            self.state = EdgeState.FAILED
            return (Failed(error=error),)

    def _dispatch(self, event: EdgeEvent) -> tuple[EdgeEffect, ...]:
        match event:
            case LinkUp():
                return self._link_up(event)
            case LinkDown():
                self._go(EdgeKind.LINK_DOWN)
                return () if self.is_over else self._offline(elsewhere=False)
            case FromCloud():
                return self._from_cloud(event.message)
            case Drafted():
                return self._drafted(event)
            case NothingToDraft():
                return self._nothing_to_draft()
            case Stop():
                return self._stop(cancelled=event.cancelled)
            case GiveUp():
                was_over = self.is_over
                self._go(EdgeKind.GIVE_UP)
                return () if was_over else (Failed(error=event.error),)
            case _:
                assert_never(event)

    def _go(self, kind: EdgeKind, *, can_resume: bool = False) -> None:
        self.state = edge_leads_to(self.state, kind, can_resume=can_resume)

    # --- the stream comes and goes

    def _link_up(self, event: LinkUp) -> tuple[EdgeEffect, ...]:
        can_resume = event.holds_session and self.opened is not None
        self._go(EdgeKind.LINK_UP, can_resume=can_resume)
        if self.is_over:
            return ()
        self._next_name = 1
        self._used = 0
        self._limit = FLOOR_WINDOW
        self._acknowledged = self.length
        self._idle_sent = False
        for node in self._root.below():
            node.names.clear()
        if self.opened is not None and can_resume:
            first: Send = Send(
                message=Resume(session_id=self.opened.session_id, length=self.length)
            )
        else:
            first = Send(message=self._open())
        return (first, *self._flush())

    def _open(self) -> Open:
        """The request as it stands now; once a target has answered, only the same weights will do."""
        target = self.opened.target.weights_fingerprint if self.opened else b""
        return replace(
            self.request,
            output=tuple(self.output),
            weights_fingerprint=self.request.weights_fingerprint or target,
        )

    def _offline(self, *, elsewhere: bool, after_s: float = 0.0) -> tuple[EdgeEffect, ...]:
        return (Reconnect(elsewhere=elsewhere, after_s=after_s),)

    # --- the verifier speaks

    def _from_cloud(self, message: CloudMessage) -> tuple[EdgeEffect, ...]:
        match message:
            case Opened():
                return self._on_opened(message)
            case Commit():
                return self._on_commit(message)
            case Drain():
                self._go(EdgeKind.DRAIN)
                return () if self.is_over else (Move(within_s=message.deadline_ms / 1000),)
            case Failure():
                return self._on_failure(message)
            case _:
                assert_never(message)

    def _on_opened(self, opened: Opened) -> tuple[EdgeEffect, ...]:
        self._go(EdgeKind.OPENED)
        if self.is_over:
            return ()
        if opened.length < self.length:
            raise RemoteProtocolError(
                f"opened.length: got {opened.length}, expected at least {self.length}, which was committed before"
            )
        if opened.limits.window < FLOOR_WINDOW:
            raise RemoteProtocolError(
                f"opened.limits.window: got {opened.limits.window}, expected at least {FLOOR_WINDOW}"
            )
        self.opened = opened
        self._limit = opened.limits.window
        return self._flush()

    def _on_commit(self, commit: Commit) -> tuple[EdgeEffect, ...]:
        self._go(EdgeKind.COMMIT if commit.finish is None else EdgeKind.FINISH)
        known = self.length
        skip = known - commit.position
        if skip < 0:
            raise RemoteProtocolError(
                f"commit.position: got {commit.position}, expected at most {known}, the end of what was committed before"
            )
        if (
            tuple(self.log[commit.position : commit.position + len(commit.tokens)])
            != commit.tokens[:skip]
        ):
            raise RemoteProtocolError(
                f"commit.tokens: they contradict what was committed from {commit.position} to {known}"
            )
        for token in commit.tokens[skip:]:
            self._commit(token)
        self._count(commit)
        news = replace(
            commit,
            position=known,
            tokens=commit.tokens[skip:],
            accepted=commit.accepted[skip:],
            logprobs=commit.logprobs[skip:],
        )
        deliver = (Deliver(commit=news),) if news.tokens else ()
        if commit.finish is not None:
            return (
                *deliver,
                Send(message=Close(reason=CloseReason.DONE)),
                Finished(reason=commit.finish),
            )
        return (*deliver, *self._flush())

    def _commit(self, token: TokenId) -> None:
        self.log.append(token)
        self._root, dropped = self._root.advance(token)
        # Every message from here on acknowledges this, so its name is free as well.
        for node in [self._root, *dropped]:
            self._used -= len(node.names)
            node.names.clear()
        self._idle = self.draft_length == 0

    def _count(self, commit: Commit) -> None:
        self.counts.judged += commit.num_judged
        self.counts.accepted += commit.num_accepted
        self.counts.late += commit.num_late
        self.counts.stale += commit.num_stale
        self.counts.steps += commit.num_steps

    def _on_failure(self, failure: Failure) -> tuple[EdgeEffect, ...]:
        error = error_of(failure)
        if isinstance(error, SessionLostError):
            self._go(EdgeKind.LOST)
            self.opened = None
        else:
            self._go(EdgeKind.REFUSED if failure.retryable else EdgeKind.BROKEN)
        if self.state is EdgeState.DONE:
            return ()
        if self.state is EdgeState.FAILED:
            return (Failed(error=error),)
        elsewhere = not isinstance(error, SessionLostError)
        return self._offline(elsewhere=elsewhere, after_s=failure.retry_after_ms / 1000)

    # --- the drafter speaks

    def _drafted(self, event: Drafted) -> tuple[EdgeEffect, ...]:
        if event.position > self.length:
            raise LocalProtocolError(
                f"drafted.position: got {event.position}, the committed text has {self.length}"
            )
        self._go(EdgeKind.DRAFTED)
        if self.is_over:
            return ()
        skip = self.length - event.position
        if (
            tuple(self.log[event.position : event.position + len(event.tokens)])
            != event.tokens[:skip]
        ):
            self.counts.unsent += len(event.tokens)
            return ()  # a commit overtook the drafter
        node = self._root
        for token in event.tokens[skip:]:
            node = node.grow(token)
        return self._flush()

    def _nothing_to_draft(self) -> tuple[EdgeEffect, ...]:
        self._go(EdgeKind.IDLE)
        if self.is_over:
            return ()
        self._idle = True
        return self._flush()

    def _stop(self, *, cancelled: bool) -> tuple[EdgeEffect, ...]:
        was = self.state
        self._go(EdgeKind.STOP)
        if was in {EdgeState.DONE, EdgeState.FAILED}:
            return ()
        reason = CloseReason.CANCELLED if cancelled else CloseReason.DONE
        connected = was in {EdgeState.OPENING, EdgeState.RESUMING, EdgeState.STREAMING}
        close = (Send(message=Close(reason=reason)),) if connected else ()
        return (*close, Finished(reason=None))

    # --- what goes up

    def _flush(self) -> tuple[EdgeEffect, ...]:
        """Send every guess that the window allows, or an acknowledgement, or that we are idle."""
        if self.state not in {EdgeState.OPENING, EdgeState.RESUMING, EdgeState.STREAMING}:
            return ()
        room = min(self.window, self._limit) - self._used
        fresh = [node for node in self._root.below() if not node.names][: max(room, 0)]
        effects = [
            self._propose(fresh[begin : begin + MAX_PROPOSAL_TOKENS])
            for begin in range(0, len(fresh), MAX_PROPOSAL_TOKENS)
        ]
        lead = self.opened.limits.max_lead if self.opened else FLOOR_LEAD
        overdue = self.length - self._acknowledged >= max(1, lead // 4)
        if not effects and (overdue or (self._idle and not self._idle_sent)):
            effects.append(self._propose([]))
        return tuple(effects)

    def _propose(self, nodes: Sequence[Node]) -> Send:
        """Number `nodes`, parents first, and make the message that offers them."""
        parents: list[int] = []
        for node in nodes:
            name = self._next_name
            self._next_name += 1
            assert node.parent is not None
            at_root = node.parent is self._root
            parents.append(0 if at_root else name - node.parent.names[0])
            node.names.append(name)
        while parents and parents[-1] == 1:
            parents.pop()  # the rest is a chain, which goes without saying
        self._used += len(nodes)
        self.counts.drafted += len(nodes)
        self._acknowledged = self.length
        self._idle_sent = self._idle
        return Send(
            message=Proposal(
                base_position=self.length,
                tokens=tuple(node.token for node in nodes),
                parents=tuple(parents),
                idle=self._idle,
            )
        )


def error_of(failure: Failure) -> PacelineError:
    """Return the error that a `Failure` tells of; PacelineError itself for a reason this version does not know."""
    if failure.reason == OverloadedError.reason:
        return OverloadedError(failure.message, retry_after_s=failure.retry_after_ms / 1000)
    kinds: tuple[type[PacelineError], ...] = (
        SessionLostError,
        IncompatibleError,
        InvalidRequestError,
        UnauthenticatedError,
        RemoteProtocolError,
    )
    for kind in kinds:
        if failure.reason == kind.reason:
            return kind(failure.message)
    return PacelineError(f"{failure.reason}: {failure.message}")


def _brief(event: EdgeEvent) -> str:
    inner = event.message if isinstance(event, FromCloud) else event
    return type(inner).__name__
