"""Runs one session over as many streams as it takes: reader, writer, drafting pump, reconnect and resume."""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import assert_never

from paceline.client.backoff import Attempt, Generator, Reconnection, Unreachable
from paceline.client.link import Connector, Link
from paceline.client.outbox import Outbox
from paceline.client.outcome import Statistics
from paceline.client.pump import DraftingPump, Worker
from paceline.client.rtt import RttMeter
from paceline.client.settings import DraftingSettings, RetryPolicy
from paceline.client.tally import Tally
from paceline.clock import Clock
from paceline.drafter import Drafter
from paceline.errors import (
    ConnectionGivenUpError,
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
)
from paceline.settings import Address, parse_address

logger = logging.getLogger(__name__)

CLOSE_S = 2.0
"""How long the end of a stream may take once its last message is under way, in seconds."""

HEAR_OUT_S = 2.0
"""How long a stream that takes nothing more is still read, in seconds: what has arrived is read at once."""

PING_S = 5.0
"""Time between two measurements of the round trip, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surroundings:
    """What all generations of a client share."""

    connector: Connector
    verifiers: tuple[Address, ...]
    retry: RetryPolicy
    drafter: Drafter | None
    drafting: DraftingSettings
    worker: Worker
    clock: Clock
    generator: Generator
    rtt: RttMeter
    unreachable: Unreachable = field(default_factory=Unreachable)


class SessionRunner:
    """Carries out what an EdgeSession decides.

    Args:
        session: new; this runner is the only one that hands it events.
        surroundings: what is shared.
        deliver: is called with every commit, cut to what is new.
        end: is called once, when the session is over; streams are still put away after it.
    """

    def __init__(
        self,
        session: EdgeSession,
        *,
        surroundings: Surroundings,
        deliver: Callable[[Commit], None],
        end: Callable[[Finished | Failed], None],
    ) -> None:
        self._session = session
        self._around = surroundings
        self._deliver = deliver
        self._end = end
        now_s = surroundings.clock.now_s()
        self._reconnection = Reconnection(
            surroundings.unreachable.order(surroundings.verifiers, now_s=now_s),
            policy=surroundings.retry,
            generator=surroundings.generator,
        )
        self._tally = Tally()
        self._outbox = Outbox()
        self._changed = asyncio.Event()
        self._over = asyncio.Event()
        self._link: Link | None = None
        self._leave: Reconnect | None = None
        self._holder: Address | None = None
        self._resume_at: Address | None = None
        self._opening_s = 0.0
        self._pump = DraftingPump(
            session,
            apply=self.apply,
            changed=self._changed,
            worker=surroundings.worker,
            clock=surroundings.clock,
        )

    def apply(self, event: EdgeEvent) -> None:
        """Hand an event to the session and carry out what follows."""
        for effect in self._session.handle(event):
            match effect:
                case Send():
                    self._outbox.post(effect.message)
                case Deliver():
                    self._reconnection.progressed()
                    self._tally.committed(effect.commit, now_s=self._around.clock.now_s())
                    self._deliver(effect.commit)
                case Reconnect():
                    self._leave = effect
                case Move():
                    if len(self._around.verifiers) > 1:
                        self._leave = Reconnect(elsewhere=True)
                case Finished() | Failed():
                    self._over.set()
                    self._outbox.close()
                    self._end(effect)
                case _:
                    assert_never(effect)
        self._changed.set()

    async def run(self) -> None:
        """Run until the session is over and its streams are put away."""
        around = self._around
        async with asyncio.TaskGroup() as group:
            links = group.create_task(self._run_links())
            pump = (
                None
                if around.drafter is None or around.drafting.draft_length == 0
                else group.create_task(
                    self._pump.run(
                        around.drafter, tokens_per_message=around.drafting.tokens_per_message
                    )
                )
            )
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
        address = self._resume_at or self._reconnection.address
        return self._tally.statistics(
            self._session.counts,
            link=self._link,
            rtt_s=self._around.rtt.rtt_s(address),
            drafting_s=self._pump.drafting_s,
            now_s=now_s,
        )

    def started(self, *, now_s: float) -> None:
        """Note when the generation began; `statistics` counts from there."""
        self._tally.started_s = now_s

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
            logger.warning("%s; trying %s in %.1f s", error, following.address, following.after_s)
            attempt = following

    async def _try(self, address: Address) -> PacelineError:
        """Run one stream to a verifier, up to its end; return why it ended."""
        self._leave = None
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
        try:
            return await self._talk(self._link, address=address, holds_session=holds_session)
        finally:
            link, self._link = self._link, None
            self._tally.ended(link)
            await link.close()

    async def _talk(self, link: Link, *, address: Address, holds_session: bool) -> PacelineError:
        self._tally.num_streams += 1
        self._outbox.clear()
        self._opening_s = self._around.clock.now_s()
        self.apply(LinkUp(holds_session=holds_session))
        failures: list[PacelineError] = []
        async with asyncio.TaskGroup() as group:
            writer = group.create_task(self._write(link, failures))
            pinger = group.create_task(
                self._ping(self._resume_at if holds_session and self._resume_at else address)
            )
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
            self.apply(FromCloud(message=failure))

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
            if isinstance(message, Opened):
                self._note_opened(message, address)
            self.apply(FromCloud(message=message))

    async def _write(self, link: Link, failures: list[PacelineError]) -> None:
        try:
            while (message := await self._outbox.take()) is not None:
                before = link.payload_bytes_up
                await link.send(message)
                if isinstance(message, Proposal) and message.tokens:
                    self._tally.proposal_bytes += link.payload_bytes_up - before
            await link.finish()
        except PacelineError as error:
            # The verifier may have said why before it stopped listening. The reader hears it out; when it has, this
            # task is cancelled.
            await asyncio.sleep(HEAR_OUT_S)
            failures.append(error)
            await link.close()  # wakes the reader

    async def _ping(self, address: Address) -> None:
        """Measure the round trip now and then; whether that works is the stream's business, not ours."""
        with suppress(PacelineError):
            while True:
                info = await self._around.connector.describe(address)
                self._around.rtt.add(address, info.rtt_s)
                await asyncio.sleep(PING_S)

    def _note_opened(self, opened: Opened, address: Address) -> None:
        self._holder = address
        with suppress(PacelineError):  # an address that cannot be read is no reason to fail
            self._resume_at = parse_address(opened.address) if opened.address else address
        self._around.rtt.add(address, self._around.clock.now_s() - self._opening_s)
