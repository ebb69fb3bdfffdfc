"""An edge's half of an answer in the fleet's model.

An edge goes on by itself between two commits, and commits are known when a step ends: so it is only brought up to date when
its verifier plans a step, and nothing needs a queue of events for all.
"""

# ruff: noqa: FURB136, PLR1730 - this runs some hundred million times, and min and max take a third of it

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from cloud.admission import SessionSettings
from simulator.fleet.edge import FOREVER_S, Edge
from simulator.fleet.guesses import NEVER, Guesses
from simulator.fleet.settings import Ask
from simulator.fleet.sizes import MessageSizes
from simulator.fleet.tally import Drafts

ACKNOWLEDGE_AFTER = SessionSettings().max_lead // 4
"""Tokens after which an edge says that it has them, if nothing else goes up."""


class Heard(NamedTuple):
    """A commit on its way to the edge."""

    at_s: float
    length: int
    judged: int
    accepted: int
    step_s: float


class Sent(NamedTuple):
    """A piece of a chain on its way to the verifier."""

    at_s: float
    begin: int
    end: int
    wrong: int
    """The first position of its chain at which the guess is wrong."""
    idle: bool


class EdgeHalf:
    """One answer, seen from its edge. Positions count tokens of the answer.

    Args:
        edge: where.
        ask: what.
        guesses: which guesses are right.
        starts_s: when it is asked.
        sizes: of messages.
    """

    __slots__ = (
        "acknowledged",
        "ask",
        "bytes_up",
        "cached",
        "call_ends_at",
        "call_ends_s",
        "call_known",
        "call_tip",
        "call_wrong",
        "committed",
        "drafts",
        "edge",
        "guesses",
        "heard",
        "idle_sent",
        "is_fresh",
        "known",
        "last",
        "last_down_s",
        "last_up_s",
        "link_up_s",
        "next_wrong",
        "no_guess",
        "pace",
        "prompt",
        "sent",
        "sizes",
        "starts_s",
        "tip",
        "wrong",
    )

    def __init__(
        self, edge: Edge, ask: Ask, *, guesses: Guesses, starts_s: float, sizes: MessageSizes
    ) -> None:
        self.edge = edge
        self.ask = ask
        self.pace = edge.pace
        self.prompt = ask.prompt_tokens
        self.last = ask.max_tokens - 1
        self.guesses = guesses
        self.next_wrong = guesses.next_wrong
        self.committed = 0
        """Tokens, known at the verifier."""
        self.sizes = sizes
        self.starts_s = starts_s
        self.link_up_s = starts_s
        self.drafts = Drafts()
        self.heard: deque[Heard] = deque()
        self.sent: deque[Sent] = deque()
        self.known = self.tip = 0
        self.wrong = guesses.next_wrong[0]
        self.cached = -ask.prompt_tokens
        """End of the drafter's cache, as far as it is right."""
        self.call_ends_s = FOREVER_S
        self.call_ends_at = self.call_tip = self.call_known = 0
        self.call_wrong = NEVER
        self.no_guess = self.idle_sent = False
        self.is_fresh = True
        """The chain has not been begun: its first piece hangs on the committed text."""
        self.last_up_s = self.last_down_s = 0.0
        self.bytes_up = self.acknowledged = 0

    def begin(self) -> float:
        """Ask, and draft at once; return when the question is at the verifier. A first connection costs a round trip."""
        edge, starts_s = self.edge, self.starts_s
        opens_s = starts_s
        if not edge.is_connected:
            edge.is_connected = True
            opens_s += edge.up_s(starts_s)
            opens_s += edge.down_s(opens_s)
        arrives_s = self.ask_again(opens_s)
        edge.begins(starts_s)
        self._draft(starts_s)
        return arrives_s

    def ask_again(self, now_s: float) -> float:
        """Send the question, and what was drafted before it could be sent; return when it is at the verifier."""
        num_bytes = self.sizes.opening(self.ask.prompt_tokens)
        self.bytes_up += num_bytes
        self.link_up_s = now_s
        arrives_s = self.arrives_s(now_s) + num_bytes * self.edge.delays.up_byte_s
        self.last_up_s = arrives_s
        if self.sent:
            self.sent = deque(one._replace(at_s=max(arrives_s, one.at_s)) for one in self.sent)
        return arrives_s

    @property
    def next_s(self) -> float:
        """When something happens here next, by itself."""
        return min(self.call_ends_s, self.heard[0].at_s if self.heard else FOREVER_S)

    def advance(self, until_s: float) -> None:
        """Let everything happen up to a time."""
        heard = self.heard
        while True:
            call_s = self.call_ends_s
            if heard and (heard_s := heard[0][0]) <= call_s:
                if heard_s > until_s:
                    return
                self._hear(heard.popleft())
            elif call_s <= until_s:
                self._guessed(call_s)
            else:
                return

    def arrives_s(self, now_s: float) -> float:
        """Return when a message sent now is at the verifier; messages keep their order."""
        sent_s = self.link_up_s if self.link_up_s > now_s else now_s
        arrives_s = sent_s + self.edge.up_s(sent_s)
        if arrives_s > self.last_up_s:
            self.last_up_s = arrives_s
        return self.last_up_s

    def commit(self, now_s: float, *, judged: int, accepted: int, step_s: float) -> float:
        """The verifier sends what it has committed; return when the edge hears of it."""
        heard_s = now_s + self.edge.down_s(now_s)
        if heard_s > self.last_down_s:
            self.last_down_s = heard_s
        self.heard.append(Heard(self.last_down_s, self.committed, judged, accepted, step_s))
        return self.last_down_s

    # --- what happens

    def _hear(self, commit: Heard) -> None:
        edge, (now_s, length, judged, accepted, step_s) = self.edge, commit
        if now_s >= edge.next_tick_s:
            edge.steer(now_s)
        if self.pace is not None:
            edge.step_s.add(step_s, 1.0)
            if judged:
                edge.accepted.add(judged=judged, accepted=accepted)
        self.known = length
        if self.tip < length or self.wrong < length:
            # The text went on without the chain, or against it: the next one begins here.
            if self.wrong < self.cached:
                self.cached = self.wrong
            self.tip = length
            self.wrong = self.next_wrong[length]
            self.is_fresh = True
        self.no_guess = False
        if self.call_ends_s == FOREVER_S:
            self._draft(now_s)
        if length - self.acknowledged >= ACKNOWLEDGE_AFTER:
            self._propose(now_s, length, length, NEVER, is_idle=self.idle_sent)

    def _guessed(self, now_s: float) -> None:
        """The drafter is done with a call."""
        edge, begin, end, known = self.edge, self.call_tip, self.call_ends_at, self.known
        if now_s >= edge.next_tick_s:
            edge.steer(now_s)
        self.call_ends_s = FOREVER_S
        if end == begin:
            self.no_guess = known == self.call_known
        elif self.call_wrong < known and self.call_wrong < end:
            self.drafts.unsent += end - begin
            if self.call_wrong < self.cached:
                self.cached = self.call_wrong
        elif end <= known:
            self.drafts.unsent += end - begin
        else:
            if begin < known:
                self.drafts.unsent += known - begin
                begin = known
            self.tip = end
            self.drafts.drafted += end - begin
            self._propose(now_s, begin, end, self.wrong, is_idle=False)
        self._draft(now_s)

    def _propose(self, now_s: float, begin: int, end: int, wrong: int, *, is_idle: bool) -> None:
        self.bytes_up += self.sizes.proposal(end - begin, begins=self.is_fresh)
        self.acknowledged = self.known
        self.idle_sent = is_idle
        if end > begin:
            self.is_fresh = False
        self.sent.append(Sent(self.arrives_s(now_s), begin, end, wrong, is_idle))

    def _draft(self, now_s: float) -> None:
        """Begin the next call of the drafter, if there is anything worth drafting."""
        edge, pace, known, tip = self.edge, self.pace, self.known, self.tip
        # The last token is the target's own, drawn after the guess before it.
        depth = edge.drafting.draft_length
        if depth > self.last - known:
            depth = self.last - known
        num = depth - (tip - known)
        if pace is None or num < 1 or self.no_guess:
            if not self.idle_sent and (self.no_guess or (depth < 1 and tip == known)):
                # Nothing is offered, and nothing will be before the next commit: the verifier must not wait.
                self._propose(now_s, known, known, NEVER, is_idle=True)
            return
        if num > pace.per_message:
            num = pace.per_message
        if self.guesses.reach is not None:
            num = self.guesses.count(known, tip, most=num)
        cached = self.cached if self.cached < tip else tip
        seconds = edge.factor() * pace.seconds(
            num_new=tip - cached - 1 if cached < tip else 0,
            common=self.prompt + cached,
            length=self.prompt + tip,
            num_passes=num or 1,
        )
        self.call_ends_s = now_s + seconds
        self.call_tip, self.call_ends_at = tip, tip + num
        self.call_known, self.call_wrong = known, self.wrong
        self.cached = tip + num - 1 if num else tip
        if num:
            edge.draft_s.add(seconds, num)
