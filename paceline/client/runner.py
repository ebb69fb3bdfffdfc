"""Runs one session over as many streams as it takes: reader, writer, drafting pump, reconnect and resume."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import assert_never

from paceline.client.backoff import Attempt, Generator, Reconnection, Unreachable
from paceline.client.ledger import Ledger
from paceline.client.link import Connector, Link
from paceline.client.meter import Meter
from paceline.client.outbox import Outbox
from paceline.client.outcome import ClientObserver, Statistics
from paceline.client.pump import DraftingPump, Worker
from paceline.client.session_trace import SessionTrace, TracedLink
from paceline.client.settings import DraftingSettings, RetryPolicy
from paceline.client.tally import Tally
from paceline.clock import Clock
from paceline.drafter import Drafter
from paceline.errors import (
    ConnectionGivenUpError,
    IncompatibleError,
    LinkClosed,
    OverloadedError,
    PacelineError,
    TransportError,
)
from paceline.messages import Commit, Failure, Opened, Proposal
from paceline.session import EdgeSession
from paceline.session.events import (
    Deliver,
    EdgeEvent,
    Failed,
    Finished,
    FromCloud,
    GiveUp,
    LinkDown,
    LinkUp,
    Move,
    Reconnect,
    Send,
    Steer,
)
from paceline.session.failure import error_of
from paceline.session.table import EdgeState
from paceline.settings import Address, parse_address
from paceline.tokens import log_name

logger = logging.getLogger(__name__)

CLOSE_S = 2.0
"""How long the end of a stream may take once its last message is under way, in seconds."""

HEAR_OUT_S = 2.0
"""How long a stream that takes nothing more is still read, in seconds: what has arrived is read at once."""

PING_S = 1.0
"""Time between two measurements of the round trip to one verifier, in seconds, by all generations together."""

PING_AGAIN_S = 0.25
"""The same after one that was far from those before: the next one tells whether the link has changed."""


@dataclass(slots=True, kw_only=True)
class Surroundings:
    """What all generations of a client share. Some of it may change: `steer` tells those under way."""

    connector: Connector
    verifiers: tuple[Address, ...]
    retry: RetryPolicy
    drafter: Drafter | None
    drafting: DraftingSettings
    worker: Worker
    clock: Clock
    generator: Generator
    observer: ClientObserver | None = None
    weights: Mapping[Address, bytes] = field(default_factory=dict)
    """Fingerprints of the weights that some verifiers must serve."""
    meter: Meter = field(default_factory=Meter)
    ledger: Ledger = field(default_factory=Ledger)
    unreachable: Unreachable = field(default_factory=Unreachable)
    running: "dict[SessionRunner, None]" = field(default_factory=dict)
    """The generations under way, the oldest first: a simulation must meet them in the same order every time."""

    def steer(self) -> None:
        """Let the generations under way follow what has changed."""
        for runner in tuple(self.running):
            runner.steer()


class SessionRunner:
    """Carries out what an EdgeSession decides.

    Args:
        session: new; this runner is the only one that hands it events.
        surroundings: what is shared.
        deliver: is called with every commit, cut to what is new.
        end: is called once, when the session is over; streams are still put away after it.
        trace: notes what happens when, if anybody wants to know.
    """

    def __init__(
        self,
        session: EdgeSession,
        *,
        surroundings: Surroundings,
        deliver: Callable[[Commit], None],
        end: Callable[[Finished | Failed], None],
        trace: SessionTrace | None = None,
    ) -> None:
        self._session = session
        self._trace = trace
        self._around = surroundings
        self._deliver = deliver
        self._end = end
        self._reconnection = self._fresh_reconnection()
        self._tally = Tally()
        self._outbox = Outbox()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._link: Link | None = None
        self._leave: Reconnect | None = None
        self._holder: Address | None = None
        self._resume_at: Address | None = None
        self._is_draining = False
        self._insists = False
        self._log_fields: dict[str, str] = {}
        self._pump = DraftingPump(
            session,
            apply=self.apply,
            changed=self._changed,
            worker=surroundings.worker,
            clock=surroundings.clock,
            drafted=surroundings.meter.drafted,
        )
        self._pump.tokens_per_message = surroundings.drafting.tokens_per_message
        self._pump.trace = trace
        self._steered = self._reach()

    @property
    def state(self) -> EdgeState:
        """Where the session is."""
        return self._session.state

    def apply(self, event: EdgeEvent) -> None:
        """Hand an event to the session and carry out what follows."""
        for effect in self._session.handle(event):
            match effect:
                case Send():
                    self._outbox.post(effect.message)
                case Deliver():
                    self._reconnection.progressed()
                    self._tally.committed(effect.commit, now_s=self._around.clock.now_s())
                    self._around.meter.committed(effect.commit, address=self._reconnection.address)
                    self._deliver(effect.commit)
                case Reconnect():
                    self._leave = effect
                case Move():
                    self._is_draining = True
                    self._move()
                case Finished() | Failed():
                    self._over.set()
                    self._outbox.close()
                    self._end(effect)
                case _:
                    assert_never(effect)
        self._changed.set()

    def steer(self) -> None:
        """Follow what the surroundings say now: how far ahead to draft at once, where to at the next stream."""
        around = self._around
        now_s = around.clock.now_s()
        self._reconnection.choose_from(around.unreachable.order(around.verifiers, now_s=now_s))
        if self._is_draining:
            self._move()  # there was no other verifier until now
        self._pump.tokens_per_message = around.drafting.tokens_per_message
        if (reach := self._reach()) != self._steered:
            self._steered = reach
            self.apply(reach)

    def _reach(self) -> Steer:
        """Return how far to draft, and how a tree grows."""
        drafting = self._around.drafting
        drafts = self._around.drafter is not None and not self._pump.has_failed
        length = drafting.draft_length if drafts else 0
        return Steer(draft_length=length, window=drafting.window, growth=drafting.growth)

    def _move(self) -> None:
        """Leave a verifier that goes away, if there is another."""
        if self._reconnection.has_others:
            self._leave = Reconnect(elsewhere=True)

    async def run(self) -> None:
        """Run until the session is over and its streams are put away."""
        drafter = self._around.drafter
        async with asyncio.TaskGroup() as group:
            links = group.create_task(self._run_links())
            pump = None if drafter is None else group.create_task(self._pump.run(drafter))
            await self._over.wait()
            if pump is not None:
                pump.cancel()
            if self._link is not None:
                # Time for `Close` to arrive, so that the verifier frees the session at once.
                with suppress(TimeoutError):
                    async with asyncio.timeout(CLOSE_S):
                        await asyncio.wait({links})
            links.cancel()

    def statistics(self, *, now_s: float) -> Statistics:
        """Return what was counted up to now."""
        return self._tally.statistics(
            self._session.counts,
            link=self._link,
            rtt_s=self._around.meter.rtt_s(self._reconnection.address),
            work=self._pump.work,
            now_s=now_s,
        )

    def started(self, *, now_s: float) -> None:
        """Note when the generation began; `statistics` counts from there. It follows what was steered to until now."""
        self._tally.started_s = now_s
        if self._trace is not None:
            self._trace.began(at_s=now_s, prompt_length=len(self._session.request.prompt))
        self._reconnection = self._fresh_reconnection()
        self.steer()

    def _fresh_reconnection(self) -> Reconnection:
        around = self._around
        now_s = around.clock.now_s()
        return Reconnection(
            around.unreachable.order(around.verifiers, now_s=now_s),
            policy=around.retry,
            generator=around.generator,
        )

    # --- one stream after the other

    async def _run_links(self) -> None:
        attempt = Attempt(address=self._reconnection.address, after_s=0.0)
        while not self._session.is_over:
            await asyncio.sleep(attempt.after_s)
            error = await self._try(attempt.address)
            if self._session.is_over:
                return
            leave = self._leave or Reconnect(elsewhere=False)
            following = self._reconnection.next_attempt(
                now_s=self._around.clock.now_s(),
                elsewhere=leave.elsewhere,
                retry_after_s=leave.after_s,
            )
            if following is None:
                self.apply(GiveUp(error=self._given_up(error)))
                return
            # Never silently: the text stands still now, and the user should know why.
            logger.warning(
                "%s; trying %s in %.1f s",
                error,
                following.address,
                following.after_s,
                extra=self._log_fields,
            )
            attempt = following

    async def _try(self, address: Address) -> PacelineError:
        """Run one stream to a verifier, up to its end; return why it ended."""
        self._leave = None
        self._is_draining = False
        holds_session = address == self._holder
        place = self._resume_at if holds_session and self._resume_at else address
        try:
            self._link = await self._around.connector.connect(place)
        except TransportError as error:
            self._around.unreachable.note(address, now_s=self._around.clock.now_s())
            if holds_session:
                self._resume_at = address
            return error
        except PacelineError as error:
            self.apply(GiveUp(error=error))
            return error
        self._around.unreachable.forget(address)
        if self._trace is not None:
            self._link = TracedLink(self._link, trace=self._trace, clock=self._around.clock)
        try:
            return await self._talk(self._link, address=address, holds_session=holds_session)
        finally:
            link, self._link = self._link, None
            self._tally.ended(link)
            await link.close()

    async def _talk(self, link: Link, *, address: Address, holds_session: bool) -> PacelineError:
        self._tally.num_streams += 1
        self._outbox.clear()
        weights = self._around.weights.get(address, b"")
        self._insists = bool(weights)
        up_s = self._around.clock.now_s()
        self.apply(LinkUp(holds_session=holds_session, weights_fingerprint=weights, at_s=up_s))
        failures: list[PacelineError] = []
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(link, failures))
            place = self._resume_at if holds_session and self._resume_at else address
            pinger = group.create_task(self._ping(place, verifier=address))
            await self._read(link, failures, address=address)
            writer.cancel()
            pinger.cancel()
        if not failures:  # the session decided to leave
            failures.append(LinkClosed(f"{address}: left for another verifier"))
        self._lost(failures[0])
        return failures[0]

    def _lost(self, error: PacelineError) -> None:
        """Tell the session that its stream is over, unless it is the one that ended it."""
        if self._session.is_over:
            return
        if self._will_not_do(error):
            self._leave = Reconnect(elsewhere=True)
        if self._leave is not None:
            leave = self._leave
            self.apply(LinkDown())
            self._leave = leave
        elif isinstance(error, TransportError):
            self.apply(LinkDown())
        else:
            # A status says no more and no less than a Failure does.
            after_s = error.retry_after_s if isinstance(error, OverloadedError) else 0.0
            failure = Failure(
                reason=error.reason,
                message=str(error),
                retryable=error.retryable,
                retry_after_ms=round(after_s * 1000),
            )
            self.apply(FromCloud(message=failure, at_s=self._around.clock.now_s()))

    def _will_not_do(self, error: PacelineError) -> bool:
        """Whether the verifier has become another one since it was chosen, and the next may still be right."""
        is_other = self._insists and isinstance(error, IncompatibleError)
        return is_other and self._reconnection.has_others

    def _given_up(self, error: PacelineError) -> ConnectionGivenUpError:
        places = ", ".join(str(address) for address in self._around.verifiers)
        return ConnectionGivenUpError(
            f"no verifier could be reached for {self._around.retry.give_up_after_s:g} s (tried {places}); "
            f"the last one said: {error}"
        )

    # --- the tasks of a stream

    async def _read(self, link: Link, failures: list[PacelineError], *, address: Address) -> None:
        while self._leave is None:
            try:
                message = await link.receive()
            except PacelineError as error:
                failures.append(error)
                return
            if isinstance(message, Failure) and self._will_not_do(error_of(message)):
                failures.append(error_of(message))
                return
            if isinstance(message, Opened):
                self._note_opened(message, address)
            self.apply(FromCloud(message=message, at_s=self._around.clock.now_s()))

    async def _write(self, link: Link, failures: list[PacelineError]) -> None:
        try:
            while (message := await self._outbox.take()) is not None:
                before = link.payload_bytes_up
                await link.send(message)
                if isinstance(message, Proposal) and message.tokens:
                    self._tally.proposed(payload_bytes=link.payload_bytes_up - before)
            await link.finish()
        except PacelineError as error:
            # The verifier may have said why before it stopped listening. The reader hears it out; when it has, this
            # task is cancelled.
            await asyncio.sleep(HEAR_OUT_S)
            failures.append(error)
            await link.close()  # wakes the reader

    async def _ping(self, place: Address, *, verifier: Address) -> None:
        """Measure the round trip now and then; whether that works is the stream's business, not ours."""
        meter, clock = self._around.meter, self._around.clock
        while True:
            is_news = False
            # One question serves all generations with this verifier.
            if meter.claims_rtt(verifier, now_s=clock.now_s(), every_s=PING_S):
                with suppress(PacelineError):
                    info = await self._around.connector.describe(place)
                    is_news = meter.add_rtt(verifier, info.rtt_s)
                    if self._trace is not None:
                        self._trace.round_trip(at_s=clock.now_s(), rtt_s=info.rtt_s)
            await asyncio.sleep(PING_AGAIN_S if is_news else PING_S)

    def _note_opened(self, opened: Opened, address: Address) -> None:
        self._holder = address
        with suppress(PacelineError):  # an address that cannot be read is no reason to fail
            self._resume_at = parse_address(opened.address) if opened.address else address
        self._around.meter.in_use = address
        self._log_fields = {"session": log_name(opened.session_id)}
        self._pump.log_fields = self._log_fields
        logger.info("session opened at %s", address, extra=self._log_fields)
