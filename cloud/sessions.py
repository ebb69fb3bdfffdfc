"""All sessions of a verifier: who may have one, which stream has it, when it is over. Belongs to the event loop.

What a session decides is in `paceline.session.cloud`; here its effects are carried out.
"""

import asyncio
import secrets
from collections.abc import Callable, Iterable, Sequence
from typing import assert_never

from cloud import journal
from cloud.account import Account
from cloud.admission import SessionSettings, check_open, session_limits
from cloud.entry import Cache, Entry
from cloud.experience import Experience
from cloud.stream import Stream
from cloud.tenants import Peer
from paceline.clock import Clock
from paceline.errors import (
    DrainingError,
    FencedError,
    LinkTimeout,
    OverloadedError,
    PacelineError,
    SessionLostError,
)
from paceline.messages import SESSION_ID_BYTES, Limits, ModelIdentity, Open, Proposal, Resume
from paceline.messages import Close as CloseMessage
from paceline.session.cloud import CloudSession
from paceline.session.events import (
    Abort,
    Attach,
    CloudEffect,
    CloudEvent,
    CommitReady,
    Detach,
    EndStream,
    FromEdge,
    LeaseExpired,
    Release,
    StartLease,
    StopLease,
    WorkReady,
)
from paceline.tokens import SessionId


class Registry:
    """See the module.

    Args:
        settings: bounds of sessions.
        target: what is served.
        clock: the time.
        random_bytes: returns so many bytes that nobody can guess; a simulation brings its own.
    """

    def __init__(
        self,
        settings: SessionSettings,
        *,
        target: ModelIdentity,
        clock: Clock,
        random_bytes: Callable[[int], bytes] = secrets.token_bytes,
    ) -> None:
        self.target = target
        self.step_ns = 0
        """How long a step takes now; 0 before the first."""
        self.work = asyncio.Event()
        """Set when there may be something to do on the model thread, or a deadline has moved."""
        self.no_streams = asyncio.Event()
        """Set while no session has a stream."""
        self.no_streams.set()
        self.news = asyncio.Event()
        """Set when it began to drain, became full or stopped being full; whoever tells others clears it."""
        self.account = Account(started_s=clock.now_s())
        self._settings = settings
        self._limits = session_limits(settings, target)
        self._clock = clock
        self._random_bytes = random_bytes
        self._entries: dict[int, Entry] = {}
        self._by_id: dict[SessionId, Entry] = {}
        self.closing: set[int] = set()
        """Sessions whose caches are to be freed."""
        self._next_key = 1
        self._experience = Experience()
        self._drain_deadline_s: float | None = None

    # --- what others read

    @property
    def limits(self) -> Limits:
        """What every session gets."""
        return self._limits

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Every session there is, the oldest first."""
        return tuple(self._entries.values())

    def get(self, key: int) -> Entry | None:
        """Return a session, or None if it is closed."""
        return self._entries.get(key)

    @property
    def is_empty(self) -> bool:
        """There is no session, and no cache of one that is still to be freed."""
        return not self._entries and not self.closing

    @property
    def num_streams(self) -> int:
        """Sessions whose edge is connected."""
        return sum(1 for entry in self._entries.values() if entry.stream is not None)

    @property
    def max_sessions(self) -> int:
        """Most sessions at once."""
        return self._settings.max_sessions

    @property
    def is_draining(self) -> bool:
        """No new session is taken."""
        return self._drain_deadline_s is not None

    def check_integrity(self, worker_keys: Iterable[int]) -> None:
        """Assert that nothing is leaked: every cache has a session or is about to be freed, every index agrees.

        Args:
            worker_keys: sessions that hold a cache on the model thread, at a moment when it has nothing to do.
        """
        held = {entry.key for entry in self._entries.values() if entry.cache is Cache.HELD}
        assert set(worker_keys) == held | self.closing, (set(worker_keys), held, self.closing)
        assert set(self._by_id) == {entry.session_id for entry in self._entries.values()}
        for key, entry in self._entries.items():
            assert entry.key == key
            assert (entry.stream is None) == (entry.lease_ends_s is not None), entry

    # --- edges come and go

    def open(self, request: Open, stream: Stream) -> Entry:
        """Return a new session.

        Raises:
            DrainingError: this verifier is going away.
            IncompatibleError: version, tokenizer or weights differ.
            InvalidRequestError: it can never be served, a too long prompt for example.
            OverloadedError: too many sessions.
        """
        if self.is_draining:
            raise DrainingError("open: this verifier is shutting down; use another one")
        check_open(request, self.target, self._limits)
        self._check_room(stream.peer)
        now_s = self._clock.now_s()
        session = CloudSession(
            request=request,
            limits=self._limits,
            vocabulary_size=self.target.vocabulary_size,
            stream=stream.number,
            rates=self._experience.rates_for(stream.peer.tenant),
        )
        entry = Entry(
            key=self._next_key,
            session_id=SessionId(self._random_bytes(SESSION_ID_BYTES)),
            peer=stream.peer,
            session=session,
            stream=stream,
            waiting_since_s=now_s,
            heard_at_s=now_s,
            opened_at_s=now_s,
        )
        self._next_key += 1
        if session.finish is not None:
            entry.cache = Cache.NONE
        self._entries[entry.key] = entry
        self._by_id[entry.session_id] = entry
        self.account.num_opened += 1
        journal.opened(entry)
        if len(self._entries) == self._settings.max_sessions:
            self.news.set()
        self.no_streams.clear()
        self.work.set()
        return entry

    def resume(self, request: Resume, stream: Stream) -> Entry:
        """Attach a stream to a session; a stream that it has is ended.

        Raises:
            SessionLostError: no such session of this peer.
            FencedError: a later try of the same edge was here first.
            RemoteProtocolError: the edge claims to have what was never committed.
        """
        entry = self._by_id.get(request.session_id)
        if entry is None or entry.peer != stream.peer:
            # One answer for both, or ids of others could be tried out.
            raise SessionLostError(
                "resume.session_id: no such session here, its lease may have ended; open it again with prompt and output"
            )
        attach = Attach(stream=stream.number, length=request.length, attempt=request.attempt)
        self._apply(entry, entry.session.handle(attach))
        entry.stream = stream
        self.account.num_resumed += 1
        self.no_streams.clear()
        entry.waiting_since_s = entry.heard_at_s = self._clock.now_s()
        if self._drain_deadline_s is not None:
            stream.drain(self._drain_deadline_s)
        return entry

    def deliver(self, entry: Entry, stream: Stream, message: Proposal | CloseMessage) -> None:
        """Hand a message of an edge to its session.

        Raises:
            RemoteProtocolError: the edge broke the rules.
        """
        session = entry.session
        could_step, was_roused = session.may_step, session.has_drafts or session.edge_is_idle
        self.handle(entry, FromEdge(stream=stream.number, message=message))
        entry.heard_at_s = self._clock.now_s()
        if not was_roused and (session.has_drafts or session.edge_is_idle):
            entry.roused_at_s = entry.heard_at_s
        if not could_step and session.may_step:
            entry.waiting_since_s = entry.heard_at_s

    def is_waited_for(self, entry: Entry) -> bool:
        """Whether drafts of an edge may still come: not while it says that it is idle, nor once it is silent.

        Without the latter, one that never says anything would hold a session and its memory for `max_lead` times as
        long as it may have it wait.
        """
        silent_s = self._clock.now_s() - entry.heard_at_s
        return not entry.session.edge_is_idle and silent_s < self._settings.silence_s

    def detach(self, entry: Entry, stream: Stream) -> None:
        """The stream has ended, for whatever reason."""
        if entry.stream is stream:
            entry.stream = None
        self.handle(entry, Detach(stream=stream.number))
        if self.num_streams == 0:
            self.no_streams.set()

    def fail(self, entry: Entry, error: PacelineError) -> None:
        """End a session and, with this error, its stream."""
        entry.error = entry.error or error
        if entry.stream is not None:
            entry.stream.end(error)
        self.handle(entry, Abort())

    def drain(self, deadline_s: float) -> None:
        """Take no new sessions; tell all edges to move by then."""
        self._drain_deadline_s = deadline_s
        self.news.set()
        for entry in self._entries.values():
            if entry.stream is not None:
                entry.stream.drain(deadline_s)

    def end_all(self, error: PacelineError) -> None:
        """End every session."""
        for entry in self.entries:
            self.fail(entry, error)

    # --- time passes

    def expire(self) -> None:
        """End leases that are over, and streams whose edge has owed an answer for too long."""
        now_s = self._clock.now_s()
        for entry in self.entries:
            if entry.lease_ends_s is not None and entry.lease_ends_s <= now_s:
                self.handle(entry, LeaseExpired())
            elif entry.owes_answer and entry.owes_since_s + self._settings.silence_s <= now_s:
                assert entry.stream is not None
                entry.stream.end(
                    LinkTimeout(
                        f"stream: {entry.session.length} tokens are committed and the edge has said nothing for "
                        f"{self._settings.silence_s} s, expected it to acknowledge or to close; resume the session"
                    )
                )

    @property
    def next_deadline_s(self) -> float | None:
        """When `expire` has something to do, as things stand."""
        deadlines = [
            entry.lease_ends_s
            if entry.lease_ends_s is not None
            else entry.owes_since_s + self._settings.silence_s
            for entry in self._entries.values()
            if entry.lease_ends_s is not None
            or (entry.owes_answer and entry.stream is not None and not entry.stream.is_over)
        ]
        return min(deadlines, default=None)

    # --- inside

    def _check_room(self, peer: Peer) -> None:
        """Raise unless one more session fits."""
        own = sum(1 for entry in self._entries.values() if entry.peer == peer)
        for name, count, bound in (
            ("max_sessions", len(self._entries), self._settings.max_sessions),
            ("max_sessions_per_tenant", own, self._settings.max_sessions_per_tenant),
        ):
            if count >= bound:
                raise OverloadedError(
                    f"open: {count} sessions are running, {name} is {bound}; try again later or elsewhere",
                    retry_after_s=self._settings.retry_after_s,
                )

    def handle(self, entry: Entry, event: CloudEvent) -> None:
        """Hand an event to a session and do what it says."""
        self._apply(entry, entry.session.handle(event))

    def _apply(self, entry: Entry, effects: Sequence[CloudEffect]) -> None:
        for effect in effects:
            match effect:
                case EndStream():
                    if entry.stream is not None and entry.stream.number == effect.stream:
                        entry.stream.end(
                            FencedError("stream: a newer stream of this session has taken over")
                        )
                case CommitReady():
                    if entry.stream is not None:
                        entry.stream.wake()
                case WorkReady():
                    self.work.set()
                case StartLease():
                    entry.lease_ends_s = self._clock.now_s() + self._settings.lease_s
                    self.work.set()  # whoever waits for deadlines has to look again
                case StopLease():
                    entry.lease_ends_s = None
                case Release():
                    self._release(entry)
                case _:
                    assert_never(effect)

    def _release(self, entry: Entry) -> None:
        if len(self._entries) == self._settings.max_sessions:
            self.news.set()
        del self._entries[entry.key]
        del self._by_id[entry.session_id]
        counts = entry.session.counts
        self.account.end(entry.how_it_ended, counts, committed=entry.num_committed)
        journal.ended(entry, counts, now_s=self._clock.now_s())
        self.free_cache(entry)
        if entry.stream is not None:
            entry.stream.end()

    def free_cache(self, entry: Entry) -> None:
        """Free what the session holds on the model thread, as soon as that has a moment."""
        if entry.cache in {Cache.ORDERED, Cache.HELD}:
            self.closing.add(entry.key)
        entry.cache = Cache.NONE
        self.work.set()
