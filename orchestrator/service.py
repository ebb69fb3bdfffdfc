"""The running orchestrator: messages in, ten times a second one fold and one plan, policies out.

Nothing reacts to a single message. What comes is collected, so that a flood costs one fold per tick like anything else; what is
decided lives in `orchestrator.fleet` and `orchestrator.planner`.
"""

import asyncio
import contextlib
import difflib
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from typing import Any

from orchestrator.board import Board
from orchestrator.feed import Feed, sent_event
from orchestrator.figures import OwnFigures, Timings, counted
from orchestrator.fleet import Considered, Decided, Event, Fleet, Pinned, Tick, fold
from orchestrator.history import History
from orchestrator.history_file import Decision, Sample, unix_s
from orchestrator.intake import Intake
from orchestrator.planner import Plan, explain, plan
from orchestrator.rates import EdgeRecorder, verifier_rows
from paceline.clock import Clock
from paceline.errors import ConfigError, LocalProtocolError
from paceline.mqtt.link import ControlLink, Statistics
from paceline.topics import EDGE_POLICY

log = logging.getLogger(__name__)

TICK_S = 0.1
"""Time between two folds: the longest that an answer waits, and the least that a flood is collected for."""

SETTLE_S = 1.0
"""After the broker was found nothing is decided for so long: it first tells what it has retained, our own policies among it."""

SLOW_EVERY_S = 1.0
"""Time between two looks at what no message tells: silence, the trend, and the change that open pages get."""

VERIFIERS_EVERY_S = 5.0
"""Time between two rows of a verifier's history."""

PLAN_SHARE = 0.1
"""Most of the time that planning may take: in a fleet so large that a plan takes long, plans come less often."""

NEAR_NAMES = 3


class UnknownEdgeError(ConfigError):
    """Nobody of that name has ever been heard of."""


class Service:
    """Holds the fleet and acts for it. Made by `running_service`.

    Args:
        link: to the broker.
        telemetry: a second one for telemetry alone; None if the first has it too.
        history: where rows go.
        board: makes what pages show.
        clock: tells the fleet's time.
    """

    def __init__(
        self,
        link: ControlLink,
        *,
        telemetry: ControlLink | None,
        history: History,
        board: Board,
        clock: Clock,
    ) -> None:
        self.history = history
        self.feed = Feed()
        self._link = link
        self._links = (link,) if telemetry is None else (link, telemetry)
        self._board = board
        self._clock = clock
        self._fleet = Fleet()
        self._intake = Intake()
        self._emptied = asyncio.Event()
        self._is_plan_owed = False
        self._recorder = EdgeRecorder()
        self._timings = Timings()
        self._num_policies = 0
        self._num_connections = 0
        self._started_s = clock.now_s()
        self._settled_at_s = float("inf")
        self._slow_due_s = self._verifiers_due_s = self._plan_due_s = float("-inf")

    @property
    def is_connected(self) -> bool:
        """The broker is there."""
        return all(link.is_connected for link in self._links)

    @property
    def fleet(self) -> Fleet:
        """What is known now."""
        return self._fleet

    def figures(self) -> OwnFigures:
        """Return how this program is doing."""
        edges, verifiers = counted(self._fleet)
        median_s, p99_s = self._timings.quantiles(0.5, 0.99)
        return OwnFigures(
            uptime_s=self._clock.now_s() - self._started_s,
            is_connected=self.is_connected,
            edges=edges,
            verifiers=verifiers,
            intake=self._intake.statistics,
            link=_summed([link.statistics for link in self._links]),
            feed=self.feed.statistics,
            history=self.history.statistics,
            ignored=self._fleet.ignored,
            num_policies=self._num_policies,
            latency=self._timings.latency.spread,
            fold=self._timings.fold.spread,
            plan=self._timings.plan.spread,
            latency_median_s=median_s,
            latency_p99_s=p99_s,
        )

    def everything(self) -> str:
        """Return the whole fleet as JSON."""
        return self._board.everything(self._fleet, self.figures(), now_s=self._clock.now_s())

    def edge(self, edge_id: str) -> dict[str, Any]:
        """Return one edge with its explanation.

        Raises:
            UnknownEdgeError: there is none of that name.
        """
        self.check_edge(edge_id)
        edge = self._fleet.edges[edge_id]
        now_s = self._clock.now_s()
        text = explain(self._fleet, edge_id, now_s=now_s)
        return self._board.edge_details(edge, explanation=text, now_s=now_s)

    def check_edge(self, edge_id: str) -> None:
        """Raise unless the edge is known.

        Raises:
            UnknownEdgeError: there is none of that name.
        """
        if edge_id not in self._fleet.edges:
            raise _unknown_edge(edge_id, self._fleet)

    async def pin(self, edge_id: str, *, draft_length: int | None) -> None:
        """Fix an edge's draft length, or let it go; the policy follows with the next tick.

        Raises:
            UnknownEdgeError: there is none of that name.
        """
        self.check_edge(edge_id)
        order = Pinned(edge_id=edge_id, draft_length=draft_length)
        self._fleet = fold(self._fleet, [order])
        self._is_plan_owed = True
        log.info("operator's order", extra={"edge": edge_id, "draft_length": draft_length})
        await self.history.pin(edge_id, draft_length=draft_length)

    async def recall(self) -> None:
        """Take up the orders that an orchestrator before this one was given; to be called before anything else."""
        pins = await self.history.pins()
        orders = [Pinned(edge_id=edge_id, draft_length=length) for edge_id, length in pins.items()]
        self._fleet = fold(self._fleet, orders)

    async def read(self, link: ControlLink) -> None:
        """Collect what comes over a link, for ever."""
        async for received in link.messages():
            self._intake.add(received, at_s=self._clock.now_s())
            while self._intake.is_full:
                self._emptied.clear()
                await self._emptied.wait()

    async def run(self) -> None:
        """Read and act until cancelled."""
        async with asyncio.TaskGroup() as group:
            for link in self._links:
                group.create_task(self.read(link))
            group.create_task(self.act())

    async def act(self) -> None:
        """Fold and plan for ever, every TICK_S."""
        while True:
            await asyncio.sleep(TICK_S)
            self.tick()

    def tick(self) -> None:
        """Take in what has come, decide, publish, and keep the history."""
        now_s = self._clock.now_s()
        self._watch_broker(now_s)
        is_slow = now_s >= self._slow_due_s
        if not self._intake.is_empty or is_slow:
            events = self._intake.take()
            self._emptied.set()
            self._fold((*events, Tick(at_s=now_s)) if is_slow else events)
            self._is_plan_owed = True
        if self._is_plan_owed and now_s >= max(self._settled_at_s, self._plan_due_s):
            self._is_plan_owed = False
            self._decide(now_s)
        if is_slow:
            self._slow_due_s = now_s + SLOW_EVERY_S
            self._record(now_s)
            self._look(now_s)

    def _watch_broker(self, now_s: float) -> None:
        num_connections = self._link.statistics.connections
        if num_connections != self._num_connections:
            self._num_connections = num_connections
            self._settled_at_s = now_s + SETTLE_S

    def _fold(self, events: Sequence[Event]) -> None:
        start_s = self._clock.now_s()
        self._fleet = fold(self._fleet, events)
        self._timings.fold.add(self._clock.now_s() - start_s)

    def _decide(self, now_s: float) -> None:
        """Plan, publish, and take in what was decided."""
        start_s = self._clock.now_s()
        plans = plan(self._fleet, now_s)
        spent_s = self._clock.now_s() - start_s
        self._timings.plan.add(spent_s)
        self._plan_due_s = now_s + spent_s / PLAN_SHARE
        plans = tuple(item for item in plans if self._publish(item))
        published_s = self._clock.now_s()
        for item in plans:
            edge = self._fleet.edges[item.edge_id]
            # Only an answer to what has just come has a latency: an order, or a verifier's end, has no message of the edge.
            if edge.telemetry_at_s >= max(self._settled_at_s, self._fleet.considered_at_s):
                self._timings.decided(published_s - edge.telemetry_at_s)
        events: list[Event] = [
            Decided(edge_id=item.edge_id, policy=item.policy, at_s=now_s) for item in plans
        ]
        # Whatever comes from here on has a later time than this tick, so nothing is taken for seen that was not.
        self._fleet = fold(self._fleet, [*events, Considered(at_s=now_s)])
        self._num_policies += len(plans)
        stamp_s = unix_s()
        self.history.record(_decision(item, stamp_s) for item in plans)

    def _publish(self, item: Plan) -> bool:
        """Hand a policy to the link; return whether it could be said."""
        try:
            self._link.publish(EDGE_POLICY, item.edge_id, item.policy)
        except LocalProtocolError as error:
            # A bug in the plan for one edge must not end it for the others.
            log.error("policy cannot be sent", extra={"edge": item.edge_id, "reason": str(error)})  # noqa: TRY400
            return False
        return True

    def _record(self, now_s: float) -> None:
        stamp_s = unix_s()
        rows: list[Sample] = list(self._recorder.rows(self._fleet, unix_s=stamp_s, now_s=now_s))
        if now_s >= self._verifiers_due_s:
            self._verifiers_due_s = now_s + VERIFIERS_EVERY_S
            rows.extend(verifier_rows(self._fleet, unix_s=stamp_s))
        self.history.record(rows)

    def _look(self, now_s: float) -> None:
        """Follow the trend, and tell open pages what has changed."""
        self._board.note(self._fleet, now_s=now_s)
        if self.feed.is_read:
            text = self._board.change(
                self._fleet, self.figures(), now_s=now_s, has_joined=self.feed.take_joined()
            )
            self.feed.publish(sent_event("change", text))


@contextlib.asynccontextmanager
async def running_service(service: Service) -> AsyncIterator[None]:
    """Read and act while the body runs."""
    async with asyncio.TaskGroup() as group:
        task = group.create_task(service.run())
        try:
            yield
        finally:
            task.cancel()


def _summed(links: Sequence[Statistics]) -> Statistics:
    """Return what all links carried; how often the broker was found is told of the first."""
    return replace(
        links[0],
        received=sum(link.received for link in links),
        shed=sum(link.shed for link in links),
        malformed=sum(link.malformed for link in links),
    )


def _decision(item: Plan, at_s: float) -> Decision:
    policy = item.policy
    return Decision(
        at_s=at_s,
        edge=item.edge_id,
        revision=policy.revision,
        draft_length=policy.draft_length,
        window=policy.window,
        explanation=policy.explanation,
    )


def _unknown_edge(edge_id: str, fleet: Fleet) -> UnknownEdgeError:
    near = difflib.get_close_matches(edge_id, fleet.edges, n=NEAR_NAMES)
    if near:
        hint = f"did you mean {' or '.join(repr(name) for name in near)}?"
    else:
        hint = f"{len(fleet.edges)} are known, see `paceline orchestrator status`"
    return UnknownEdgeError(f"edge {edge_id[:80]!r} is not known; {hint}")
