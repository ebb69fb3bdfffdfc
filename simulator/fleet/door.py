"""The way into a verifier of the fleet's model: questions in the order of arrival, seats, refusals, goodbyes."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from paceline.client.settings import RetryPolicy
from simulator.fleet.edge import FOREVER_S, Edge
from simulator.fleet.edge_half import EdgeHalf
from simulator.fleet.guesses import GuessBook
from simulator.fleet.session import Session
from simulator.fleet.settings import Ask, VerifierModel
from simulator.fleet.sizes import MessageSizes
from simulator.fleet.tally import Tally

RETRY = RetryPolicy()
SPREAD = 1009
"""Delays of clients that were refused differ by so many steps."""


@dataclass(slots=True, kw_only=True)
class Desk:
    """An edge and its questions."""

    edge: Edge
    asks: Iterator[Ask]


class Door:
    """See the module.

    Args:
        model: the verifier.
        desks: the edges placed on it.
        book: which guesses are right.
        sizes: of messages.
        tally: counts.
        closes_s: nobody asks from then on.
    """

    def __init__(
        self,
        model: VerifierModel,
        *,
        desks: Sequence[Desk],
        book: GuessBook,
        sizes: MessageSizes,
        tally: Tally,
        closes_s: float,
    ) -> None:
        self._model = model
        self._desks = {desk.edge.number: desk for desk in desks}
        self._book = book
        self._sizes = sizes
        self._tally = tally
        self._closes_s = closes_s
        self._numbers = itertools.count()
        self._goodbyes: list[float] = []
        """When seats become free."""
        self._questions: list[tuple[float, int, int, EdgeHalf]] = []
        """When it arrives, a number that tells equal times apart, how often it was refused, and who asks."""
        self.num_seats = 0
        """Taken."""
        for desk in desks:
            self.next_question(desk.edge, after_s=0.0)

    @property
    def next_s(self) -> float:
        """When the next question arrives."""
        return self._questions[0][0] if self._questions else FOREVER_S

    def let_in(self, now_s: float) -> list[Session]:
        """Return the new sessions: questions that have come by now and found a seat."""
        fresh = []
        while self._questions and self._questions[0][0] <= now_s:
            at_s, number, num_refused, half = heapq.heappop(self._questions)
            while self._goodbyes and self._goodbyes[0] <= at_s:
                heapq.heappop(self._goodbyes)
                self.num_seats -= 1
            if self.num_seats >= self._model.max_sessions:
                self._refuse(half, at_s=at_s, num_refused=num_refused)
                continue
            self.num_seats += 1
            self._tally.most_sessions = max(self._tally.most_sessions, self.num_seats)
            fresh.append(Session(half, arrived_s=at_s, let_in_s=now_s, number=number))
        return fresh

    def goodbye(self, half: EdgeHalf, *, heard_s: float) -> None:
        """The edge has heard the end: its goodbye frees the seat, and then somebody there asks what comes next."""
        half.bytes_up += self._sizes.close
        closes_s = half.arrives_s(heard_s)
        heapq.heappush(self._goodbyes, closes_s)
        # The stream is put away before the next one begins.
        self.next_question(half.edge, after_s=closes_s + half.edge.down_s(closes_s))

    def next_question(self, edge: Edge, *, after_s: float) -> None:
        """Let an edge ask what it asks next."""
        ask = next(self._desks[edge.number].asks, None)
        if ask is None:
            return
        starts_s = max(after_s, ask.at_s)
        if starts_s >= self._closes_s:
            return
        guesses = self._book.of(ask.seed, length=ask.max_tokens)
        half = EdgeHalf(edge, ask, guesses=guesses, starts_s=starts_s, sizes=self._sizes)
        self._queue(half, at_s=half.begin(), num_refused=0)

    def _queue(self, half: EdgeHalf, *, at_s: float, num_refused: int) -> None:
        heapq.heappush(self._questions, (at_s, next(self._numbers), num_refused, half))

    def _refuse(self, half: EdgeHalf, *, at_s: float, num_refused: int) -> None:
        """Let an edge ask again later, as its client does."""
        self._tally.refused(at_s)
        hears_s = at_s + half.edge.down_s(at_s)
        longest_s = min(RETRY.max_s, RETRY.first_s * 2.0 ** min(num_refused, 60))
        part = (half.edge.number * 31 + num_refused * 17) % SPREAD / SPREAD
        delay_s = longest_s * (0.5 + 0.5 * part)
        again_s = hears_s + max(self._model.retry_after_s, delay_s)
        if again_s - half.starts_s > RETRY.give_up_after_s:
            self._tally.given_up(at_s)
            self.next_question(half.edge, after_s=hears_s)
            return
        self._queue(half, at_s=half.ask_again(again_s), num_refused=num_refused + 1)
