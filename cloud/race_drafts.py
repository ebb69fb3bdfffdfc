"""What the verifier itself guesses: where a text ends like it did before, what followed then may follow again. Pure.

A session without drafts steps on alone (the race, `cloud.scheduler`); such guesses ride along as draft rows, and beside drafts
of the edge, as far as they are likelier than those. docs/race.md has what that brings.

Guesses are rows of one step and nothing else. They are no nodes of the session's tree: no name, count, window or resume
knows of them, and nothing has to be forgotten when they are wrong, for after each commit they are made anew. What the
target draws is committed as ever, and drafts that arrive late merge with it by content. A row that the edge drafted too is
the edge's.

Chances. What the index says is a confidence; `NodeScores` learns from all sessions what it is worth. A session in which less
came true than that is believed less, so a text that never repeats itself soon gets no rows. The first guess of each step is
compared with what was committed whether it was a row or not: learning costs no row, and a text that begins to repeat itself
is noticed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice

from cloud.scheduler import RaceDrafting
from paceline.control.node_scores import NodeScores
from paceline.ngram.recurrence import Recurrence, Rule
from paceline.ngram.rules import counted, looked_up
from paceline.session.cloud import CloudSession
from paceline.session.offer import NOTHING, Offer
from paceline.tokens import TokenId

MOST_GUESSES = 16
"""Rows of one session in a step; a quotation that goes on is guessed on in the next one."""

LEAST_REACH = 0.05
"""Least chance that a guess and all before it hold. The scheduler leaves out more where a row costs more than that."""

MOST_TOKENS = 16_384
"""Tokens of a session's text that are remembered, the latest ones: 150 to 200 bytes each, 3 MB."""

READ_PER_STEP = 1024
"""Tokens read between two steps, for all sessions together: 1 to 2 ms. A prompt is read while it is computed."""

GUESSES_PER_STEP = 128
"""Guesses made for one step, for all sessions together, or one for each if there are more: 1 to 5 ms. With many of them
rows are dear anyway."""

TRUST = 4.0
"""A session is believed as if so many guesses had come true as often as expected."""

FADE = 0.97
"""What a judged guess counts less with each newer one: texts change."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture:
    """Draft rows of an edge and of the verifier itself, equal ones merged."""

    offer: Offer
    is_own: tuple[bool, ...]
    """Of each row, that the verifier alone guessed it."""

    def outcome(self, num_rows: int, drawn: Sequence[TokenId]) -> tuple[int, int]:
        """Return how many of the first `num_rows` rows were its own, and how many of these the target drew.

        Args:
            num_rows: rows that were in the step.
            drawn: what the target drew.
        """
        rows = {(self.offer.parents[row], self.offer.tokens[row]): row for row in range(num_rows)}
        row, accepted = rows.get((-1, drawn[0])), 0
        for token in drawn[1:]:
            assert row is not None, "only the last token has no row"
            accepted += self.is_own[row]
            row = rows.get((row, token))
        return sum(self.is_own[:num_rows]), accepted


def mixed(edge: Offer, own: Offer, *, most: int) -> Mixture:
    """Return the rows of both, the likeliest first, at most `most`; a guess that both have is the edge's."""
    nodes = list(zip(edge.tokens, edge.parents, edge.chances, strict=True))
    index = {(parent, token): row for row, (token, parent, _) in enumerate(nodes)}
    num_edge, parent = len(nodes), -1
    for token, reach in zip(own.tokens, own.chances, strict=True):
        row = index.get((parent, token))
        if row is None:
            row = len(nodes)
            nodes.append((token, parent, reach))
        elif reach > nodes[row][2]:
            nodes[row] = (token, parent, reach)
        parent = row
    # A stable order, so a parent, which is never less likely and comes before, stays before its children.
    order = sorted(range(len(nodes)), key=lambda row: -nodes[row][2])[:most]
    place = {-1: -1} | {row: number for number, row in enumerate(order)}
    return Mixture(
        offer=Offer(
            tokens=tuple(nodes[row][0] for row in order),
            parents=tuple(place[nodes[row][1]] for row in order),
            chances=tuple(nodes[row][2] for row in order),
        ),
        is_own=tuple(row >= num_edge for row in order),
    )


_RULES: dict[RaceDrafting, Rule] = {
    RaceDrafting.LOOKUP: looked_up,
    RaceDrafting.SUFFIX: counted,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Open:
    """A guess that is not judged yet."""

    token: TokenId
    confidence: float
    chance: float
    """That it is right if all before it are, by what all sessions taught."""


class RaceDraft:
    """The index of one session's text, and how it did.

    Args:
        rule: makes guesses.
        scores: what they are worth; learns here.
    """

    def __init__(self, rule: Rule, scores: NodeScores) -> None:
        self._recurrence = Recurrence(rule, most_tokens=MOST_TOKENS)
        self._scores = scores
        self._num_read = 0
        self._open: deque[_Open] = deque()
        self._right = self._expected = TRUST
        self._last: tuple[int, int, Offer] | None = None
        """What was asked for last: how much was read, the limit, the answer."""

    def read(self, log: Sequence[TokenId], *, most: int) -> int:
        """Read on in a text that only grows; return how many tokens were read, at most `most`."""
        piece = log[self._num_read : self._num_read + most]
        for token in piece:
            if self._open:
                self._judge(self._open.popleft(), token)
            self._recurrence.append(token)
        self._num_read += len(piece)
        return len(piece)

    def offer(self, log: Sequence[TokenId], *, most: int) -> Offer:
        """Return guesses after the text, a chain of at most `most`; none while it is not read to its end."""
        if self._num_read < len(log) or most <= 0:
            return NOTHING
        if self._last is None or self._last[:2] != (self._num_read, most):
            self._last = (self._num_read, most, self._guessed(most))
        return self._last[2]

    def _guessed(self, most: int) -> Offer:
        self._open.clear()
        belief = min(1.0, self._right / self._expected)
        tokens: list[TokenId] = []
        reaches: list[float] = []
        reach = 1.0
        for guess in islice(self._recurrence.ahead(), most):
            chance = self._scores.chance(guess.chance)
            self._open.append(_Open(token=guess.token, confidence=guess.chance, chance=chance))
            reach *= chance * belief
            if reach < LEAST_REACH:
                break
            tokens.append(guess.token)
            reaches.append(reach)
        return Offer(
            tokens=tuple(tokens), parents=tuple(range(-1, len(tokens) - 1)), chances=tuple(reaches)
        )

    def _judge(self, guess: _Open, token: TokenId) -> None:
        is_right = guess.token == token
        self._scores.observe(guess.confidence, accepted=is_right)
        self._right = TRUST + (self._right - TRUST) * FADE + is_right
        self._expected = TRUST + (self._expected - TRUST) * FADE + guess.chance
        if not is_right:
            self._open.clear()


class RaceDrafts:
    """The drafts of all sessions of a verifier.

    Args:
        drafting: how; not OFF.
    """

    def __init__(self, drafting: RaceDrafting) -> None:
        self._rule = _RULES[drafting]
        # Draws have noise that no index knows of.
        self._scores = {is_greedy: NodeScores() for is_greedy in (True, False)}
        self._left = 0
        self._share = MOST_GUESSES

    def open(self, session: CloudSession) -> RaceDraft:
        """Return the draft of a session; nothing is read yet."""
        return RaceDraft(self._rule, self._scores[session.request.sampling.is_greedy])

    def begin(self, num_racing: int) -> None:
        """Another step is planned: so much may be read and guessed for it.

        Args:
            num_racing: sessions that guesses are asked for.
        """
        self._left = READ_PER_STEP
        self._share = max(1, min(MOST_GUESSES, GUESSES_PER_STEP // max(1, num_racing)))

    def offer(self, draft: RaceDraft, session: CloudSession, *, most: int) -> Offer:
        """Return what is guessed for the next step of a session.

        Args:
            draft: of the session.
            session: its log is read on, and says how deep drafts may go.
            most: rows; 0 while it only reads.
        """
        self._left -= draft.read(session.log, most=self._left)
        return draft.offer(session.log, most=min(most, self._share, session.deepest))
