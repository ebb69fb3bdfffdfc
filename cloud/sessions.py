"""All sessions of a verifier: who may have one, which stream has it, when it is over. Belongs to the event loop.

What a session decides is in `paceline.session.cloud`; here its effects are carried out. A session is in one of three
stages as far as memory goes: its cache is *wanted* (the model thread has not made it yet), *held*, or *none*
(its text is complete, only the log is kept for an edge that still reads or may come back).
"""

import asyncio
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import assert_never

from cloud.admission import SessionSettings, check_open, session_limits
from cloud.scheduler import SessionView
from cloud.stream import Stream
from cloud.tenants import Peer
from cloud.walk import Tree
from cloud.worker import CacheView, OpenOrder, StepResult
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
    Stepped,
    StopLease,
    WorkReady,
)
from paceline.tokens import SessionId


class Cache(StrEnum):
    """What a session has on the model thread."""

    WANTED = "wanted"
    ORDERED = "ordered"
    HELD = "held"
    NONE = "none"


@dataclass(slots=True, kw_only=True, eq=False)
class Entry:
    """One session."""

    key: int
    """Number within this process; never reused."""
    session_id: SessionId
    peer: Peer
    session: CloudSession
    stream: Stream | None
    waiting_since_s: float
    heard_at_s: float
    """When the edge last said something."""
    cache: Cache = Cache.WANTED
    cache_view: CacheView = field(
        default_factory=lambda: CacheView(num_to_prefill=1, waits_for=None)
    )
    lease_ends_s: float | None = None

    @property
    def is_admitted(self) -> bool:
        """There was memory for it."""
        return self.cache in {Cache.HELD, Cache.NONE}

    @property
    def owes_answer(self) -> bool:
        """Nothing goes on until the edge says something: it has to acknowledge, or to close."""
        return self.stream is not None and self.is_admitted and not self.session.may_step


class Registry:
    """See the module."""

    def __init__(
        self, settings: SessionSettings, *, target: ModelIdentity, max_draft_rows: int, clock: Clock
    ) -> None:
        self.target = target
        self.step_ns = 0
        """Time of the last step, in ns."""
        self.work = asyncio.Event()
        """Set when there may be something to do on the model thread, or a deadline has moved."""
        self.no_streams = asyncio.Event()
        """Set while no session has a stream."""
        self.no_streams.set()
        self._settings = settings
        self._limits = session_limits(settings, target)
        self._max_draft_rows = max_draft_rows
        self._clock = clock
        self._entries: dict[int, Entry] = {}
        self._by_id: dict[SessionId, Entry] = {}
        self._closing: set[int] = set()
        self._next_key = 1
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

    @property
    def is_empty(self) -> bool:
        """There is no session, and no cache of one that is still to be freed."""
        return not self._entries and not self._closing

    @property
    def num_streams(self) -> int:
        """Sessions whose edge is connected."""
        return sum(1 for entry in self._entries.values() if entry.stream is not None)

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
        assert set(worker_keys) == held | self._closing, (set(worker_keys), held, self._closing)
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
        )
        entry = Entry(
            key=self._next_key,
            session_id=SessionId(secrets.token_bytes(SESSION_ID_BYTES)),
            peer=stream.peer,
            session=session,
            stream=stream,
            waiting_since_s=now_s,
            heard_at_s=now_s,
        )
        self._next_key += 1
        if session.finish is not None:
            entry.cache = Cache.NONE
        self._entries[entry.key] = entry
        self._by_id[entry.session_id] = entry
        self.no_streams.clear()
        self.work.set()
        return entry

    def resume(self, request: Resume, stream: Stream) -> Entry:
        """Attach a stream to a session; a stream that it has is ended.

        Raises:
            SessionLostError: no such session of this peer.
            RemoteProtocolError: the edge claims to have what was never committed.
        """
        entry = self._by_id.get(request.session_id)
        if entry is None or entry.peer != stream.peer:
            # One answer for both, or ids of others could be tried out.
            raise SessionLostError(
                "resume.session_id: no such session here, its lease may have ended; open it again with prompt and output"
            )
        effects = entry.session.handle(Attach(stream=stream.number, length=request.length))
        self._apply(entry, effects)
        entry.stream = stream
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
        could_step = entry.session.may_step
        self._handle(entry, FromEdge(stream=stream.number, message=message))
        entry.heard_at_s = self._clock.now_s()
        if not could_step and entry.session.may_step:
            entry.waiting_since_s = entry.heard_at_s

    def detach(self, entry: Entry, stream: Stream) -> None:
        """The stream has ended, for whatever reason."""
        if entry.stream is stream:
            entry.stream = None
        self._handle(entry, Detach(stream=stream.number))
        if self.num_streams == 0:
            self.no_streams.set()

    def fail(self, entry: Entry, error: PacelineError) -> None:
        """End a session and, with this error, its stream."""
        if entry.stream is not None:
            entry.stream.end(error)
        self._handle(entry, Abort())

    def drain(self, deadline_s: float) -> None:
        """Take no new sessions; tell all edges to move by then."""
        self._drain_deadline_s = deadline_s
        for entry in self._entries.values():
            if entry.stream is not None:
                entry.stream.drain(deadline_s)

    def end_all(self, error: PacelineError) -> None:
        """End every session."""
        for entry in self.entries:
            self.fail(entry, error)

    # --- the stepper asks

    def take_cache_orders(self) -> tuple[list[int], list[OpenOrder]]:
        """Return which caches to free and which to make; from here on they count as done."""
        closes = sorted(self._closing)
        self._closing.clear()
        opens = []
        for entry in self._entries.values():
            if entry.cache is Cache.WANTED:
                entry.cache = Cache.ORDERED
                opens.append(self._open_order(entry))
        return closes, opens

    def cache_opened(self, key: int, error: PacelineError | None) -> None:
        """A cache was made, or refused."""
        entry = self._entries.get(key)
        if entry is None:
            return  # closed meanwhile, and in `_closing`
        if error is not None:
            entry.cache = Cache.NONE
            self.fail(entry, error)
            return
        entry.cache = Cache.HELD
        entry.waiting_since_s = self._clock.now_s()
        if entry.stream is not None:
            entry.stream.wake()

    def cache_views(self, views: dict[int, CacheView]) -> None:
        """Take the state of the caches."""
        for key, view in views.items():
            entry = self._entries.get(key)
            if entry is not None:
                entry.cache_view = view

    def scheduler_views(self) -> tuple[list[SessionView], dict[int, Tree]]:
        """Return what the scheduler may choose from, and the drafts of those that have any."""
        views: list[SessionView] = []
        trees: dict[int, Tree] = {}
        for entry in self._entries.values():
            if entry.cache is not Cache.HELD:
                continue
            offer = entry.session.offer(self._max_draft_rows)
            trees[entry.key] = Tree(tokens=offer.tokens, parents=offer.parents)
            views.append(
                SessionView(
                    key=entry.key,
                    may_step=entry.session.may_step,
                    waiting_since_s=entry.waiting_since_s,
                    num_to_prefill=entry.cache_view.num_to_prefill,
                    waits_for=entry.cache_view.waits_for,
                    num_offered=len(offer.tokens),
                    has_drafts=entry.session.has_drafts,
                    edge_is_idle=entry.session.edge_is_idle,
                )
            )
        return views, trees

    def stepped(self, result: StepResult, keys: Sequence[int], *, started_s: float) -> None:
        """Hand out what a step yielded.

        Args:
            result: of the step.
            keys: sessions that had rows in it.
            started_s: when it was started.
        """
        self.step_ns = result.step_ns
        now_s = self._clock.now_s()
        for key in keys:
            entry = self._entries.get(key)
            if entry is None:
                continue  # closed during the step
            waited_s, entry.waiting_since_s = started_s - entry.waiting_since_s, now_s
            error, served = result.failed.get(key), result.served.get(key)
            if error is not None:
                self.fail(entry, error)
            elif served is not None:
                self._handle(
                    entry,
                    Stepped(
                        tokens=served.tokens,
                        queue_ns=max(0, int(waited_s * 1e9)),
                        verify_ns=result.step_ns,
                        num_rows=result.num_rows,
                        logprobs=served.logprobs,
                    ),
                )
                if entry.session.finish is not None:
                    self._free_cache(entry)

    def expire(self) -> None:
        """End leases that are over, and streams whose edge has owed an answer for too long."""
        now_s = self._clock.now_s()
        for entry in self.entries:
            if entry.lease_ends_s is not None and entry.lease_ends_s <= now_s:
                self._handle(entry, LeaseExpired())
            elif entry.owes_answer and entry.heard_at_s + self._settings.silence_s <= now_s:
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
            else entry.heard_at_s + self._settings.silence_s
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

    def _open_order(self, entry: Entry) -> OpenOrder:
        request = entry.session.request
        end = len(request.prompt) + min(request.max_tokens, self._limits.max_tokens)
        return OpenOrder(
            key=entry.key,
            text=tuple(entry.session.log),
            num_output=len(request.output),
            max_length=min(end, self._limits.context_length),
            sampling=request.sampling,
            num_logprobs=request.num_logprobs,
            tenant=entry.peer.namespace,
        )

    def _handle(self, entry: Entry, event: CloudEvent) -> None:
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
        del self._entries[entry.key]
        del self._by_id[entry.session_id]
        self._free_cache(entry)
        if entry.stream is not None:
            entry.stream.end()

    def _free_cache(self, entry: Entry) -> None:
        if entry.cache in {Cache.ORDERED, Cache.HELD}:
            self._closing.add(entry.key)
        entry.cache = Cache.NONE
        self.work.set()
