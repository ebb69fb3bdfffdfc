"""An edge's half of an answer in the fleet's model.

An edge goes on by itself between two commits, and commits are known when a step ends: so it is only brought up to date when
its verifier plans a step, and nothing needs a queue of events for all.
"""

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
        "call_ends_s",
        "call_known",
        "call_num",
        "call_tip",
        "call_wrong",
        "drafts",
        "edge",
        "guesses",
        "heard",
        "idle_sent",
        "known",
        "last_down_s",
        "last_up_s",
        "link_up_s",
        "no_guess",
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
        self.guesses = guesses
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
        self.call_num = self.call_tip = self.call_known = 0
        self.call_wrong = NEVER
        self.no_guess = self.idle_sent = False
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
            if heard and heard[0].at_s <= call_s:
                if heard[0].at_s > until_s:
                    return
                self._hear(heard.popleft())
            elif call_s <= until_s:
                self._guessed(call_s)
            else:
                return

    def arrives_s(self, now_s: float) -> float:
        """Return when a message sent now is at the verifier; messages keep their order."""
        sent_s = max(now_s, self.link_up_s)
        self.last_up_s = max(self.last_up_s, sent_s + self.edge.up_s(sent_s))
        return self.last_up_s

    def commit(
        self, now_s: float, *, judged: int, accepted: int, step_s: float, length: int
    ) -> float:
        """The verifier sends what it has committed; return when the edge hears of it."""
        self.last_down_s = max(self.last_down_s, now_s + self.edge.down_s(now_s))
        self.heard.append(Heard(self.last_down_s, length, judged, accepted, step_s))
        return self.last_down_s

    # --- what happens

    def _hear(self, commit: Heard) -> None:
        edge, now_s = self.edge, commit.at_s
        if now_s >= edge.next_tick_s:
            edge.steer(now_s)
        if edge.pace is not None:
            edge.step_s.add(commit.step_s, 1.0)
            if commit.judged:
                edge.accepted.add(judged=commit.judged, accepted=commit.accepted)
        length = self.known = commit.length
        if self.tip < length or self.wrong < length:
            # The text went on without the chain, or against it: the next one begins here.
            self.cached = min(self.cached, self.wrong)
            self.tip = length
            self.wrong = self.guesses.next_wrong[length]
        self.no_guess = False
        if self.call_ends_s == FOREVER_S:
            self._draft(now_s)
        if length - self.acknowledged >= ACKNOWLEDGE_AFTER:
            self._propose(now_s, length, length, NEVER, is_idle=self.idle_sent)

    def _guessed(self, now_s: float) -> None:
        """The drafter is done with a call."""
        edge, begin, end = self.edge, self.call_tip, self.call_tip + self.call_num
        if now_s >= edge.next_tick_s:
            edge.steer(now_s)
        self.call_ends_s = FOREVER_S
        if end == begin:
            self.no_guess = self.known == self.call_known
        elif self.call_wrong < min(self.known, end):
            self.drafts.unsent += end - begin
            self.cached = min(self.cached, self.call_wrong)
        else:
            begin = max(begin, self.known)
            self.drafts.unsent += min(end, begin) - self.call_tip
            if begin < end:
                self.tip = end
                self._send(now_s, begin, end)
        self._draft(now_s)

    def _send(self, now_s: float, begin: int, end: int) -> None:
        self.drafts.drafted += end - begin
        self._propose(now_s, begin, end, self.wrong, is_idle=False)

    def _propose(self, now_s: float, begin: int, end: int, wrong: int, *, is_idle: bool) -> None:
        self.bytes_up += self.sizes.proposal(end - begin, begins=begin == self.known)
        self.acknowledged = self.known
        self.idle_sent = is_idle
        self.sent.append(Sent(self.arrives_s(now_s), begin, end, wrong, is_idle))

    def _draft(self, now_s: float) -> None:
        """Begin the next call of the drafter, if there is anything worth drafting."""
        edge, pace = self.edge, self.edge.pace
        known, tip = self.known, self.tip
        # The last token is the target's own, drawn after the guess before it.
        depth = min(edge.drafting.draft_length, self.ask.max_tokens - 1 - known)
        most = depth - (tip - known)
        if pace is None or most < 1 or self.no_guess:
            self._tell_idle(now_s, is_idle=self.no_guess or (depth < 1 and tip == known))
            return
        num = min(most, pace.per_message)
        if self.guesses.reach is not None:
            num = self.guesses.count(known, tip, most=num)
        prompt = self.ask.prompt_tokens
        seconds = edge.factor() * pace.seconds(
            num_new=max(0, tip - self.cached - 1),
            common=prompt + min(self.cached, tip),
            length=prompt + tip,
            num_passes=max(1, num),
        )
        self.call_ends_s = now_s + seconds
        self.call_tip, self.call_num = tip, num
        self.call_known, self.call_wrong = known, self.wrong
        self.cached = tip + max(0, num - 1)
        if num:
            edge.draft_s.add(seconds, num)

    def _tell_idle(self, now_s: float, *, is_idle: bool) -> None:
        """Nothing is offered, and nothing will be before the next commit: the verifier must not wait."""
        if is_idle and not self.idle_sent:
            self._propose(now_s, self.known, self.known, NEVER, is_idle=True)
