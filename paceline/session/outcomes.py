"""Pipelines that prepare for the likely answers while one is awaited: on a hit the next proposal is there at once.

A proposal of K tokens is answered by (k, t): k accepted, then the target's own token t. While it is in flight the edge drafts
after the likeliest answers, most for positions that are likely to be reached; nothing of that is sent before the answer is
known. That hides the time to draft, not the round trip.

Sources: Saguaro (arXiv 2603.03251), section 4; AceSpec (arXiv 2609.02514), which goes on with the chain as well and sends it. The
fan-out is in `fan_out.py`.
"""

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import assert_never

from paceline.session.drafting import DraftRequest, EdgeCounts
from paceline.session.fan_out import MOST_AT_ONE, even, geometric
from paceline.session.growth import GrowthRequest, path_to
from paceline.session.guesses import Guesses
from paceline.session.pipeline import FanOut, PipelineSettings, Place
from paceline.session.rounds import HeldBack, RunAhead, StopAndWait
from paceline.session.sketch import Sketch
from paceline.session.tree import Node
from paceline.tokens import TokenId

PRIOR_ACCEPTANCE = 0.7
"""Chance of a sent token to be accepted, before anything is known."""

TRUST = 8.0
"""The prior counts as much as so many judged tokens."""


@dataclass(slots=True)
class _Acceptance:
    """How often sent tokens were what the target drew."""

    judged: float = TRUST
    accepted: float = TRUST * PRIOR_ACCEPTANCE

    @property
    def rate(self) -> float:
        return self.accepted / self.judged


class Outcomes:
    """The answers that are prepared for, in a sketch.

    Args:
        sketch: the session's.
        settings: the pipeline's own figures.
        leaves: most leaves of a request.
    """

    def __init__(self, sketch: Sketch, *, settings: PipelineSettings, leaves: int) -> None:
        self._sketch = sketch
        self._settings = settings
        self._acceptance = _Acceptance()
        self._known: list[tuple[float, int, Node]] = []
        self._known_for: tuple[Node, int, int, int] | None = None
        self.leaves = leaves

    def committed(self, token: TokenId) -> None:
        """The text goes on with `token`; to be told before the sketch is."""
        if self._sketch.num_sent:
            self._acceptance.judged += 1.0
            self._acceptance.accepted += next(iter(self._sketch.root.children), None) == token

    def leaves_to_grow(self, place: Place, *, length: int) -> list[Node]:
        """Return where to draft on, the likeliest answer first.

        Args:
            place: where the session stands.
            length: tokens to prepare after each answer.
        """
        unready = [
            (chance, -number, leaf)
            for number, (chance, depth, node) in enumerate(self._hung(place))
            if (leaf := self._end_of(node, min(length, place.room - depth))) is not None
        ]
        return [leaf for _, _, leaf in heapq.nlargest(self.leaves, unready)]

    def _hung(self, place: Place) -> list[tuple[float, int, Node]]:
        """Return what `_answers` yields, which changes with commits, with what is sent and with what is guessed along the chain."""
        num_sent = self._sketch.num_sent
        num_guessed = sum(
            self._sketch.guessed(node) is not None for node in self._sketch.chain[:num_sent]
        )
        known_for = (self._sketch.root, num_sent, num_guessed, place.room)
        if self._known_for != known_for:
            answers = heapq.nlargest(
                self._settings.fan_out, self._answers(place), key=lambda one: one[0]
            )
            self._known_for = known_for
            self._known = [
                (chance, depth, parent.grow(token)) for chance, depth, parent, token in answers
            ]
        return self._known

    def _answers(self, place: Place) -> Iterator[tuple[float, int, Node, TokenId]]:
        """Yield answers to prepare for: chance, tokens they commit, the node before the last of these, that last one."""
        num_sent = self._sketch.num_sent
        nodes = [self._sketch.root, *self._sketch.chain[:num_sent]]
        counts = self._counts(num_sent)
        reached = 1.0
        for k, (node, count) in enumerate(zip(nodes, counts, strict=True)):
            guesses = self._sketch.guessed(node) or ()
            sent = nodes[k + 1].token if k < num_sent else None
            others = [guess for guess in guesses if guess.token != sent]
            if k + 1 < place.room and not self._sketch.is_end(node):
                for guess in others[:count]:
                    yield reached * guess.chance, k + 1, node, guess.token
            reached *= next((guess.chance for guess in guesses if guess.token == sent), 0.0)

    def _counts(self, length: int) -> tuple[int, ...]:
        """Return how many answers to prepare for, at most, after 0, 1 ... `length` accepted tokens."""
        match self._settings.fan_by:
            case FanOut.CHANCE:
                return (MOST_AT_ONE,) * (length + 1)
            case FanOut.EVEN:
                return even(self._settings.fan_out, length=length)
            case FanOut.GEOMETRIC:
                rate = round(self._acceptance.rate, 2)  # nothing changes below that
                return geometric(self._settings.fan_out, length=length, acceptance=rate)
            case _:
                assert_never(self._settings.fan_by)

    def _end_of(self, answer: Node, length: int) -> Node | None:
        """Return where the chain after an answer goes on, or None if it is as long as it may be."""
        node = answer
        for _ in range(length):
            if self._sketch.is_end(node):
                return None
            if not node.children:
                return node
            node = next(iter(node.children.values()))
        return None


class Prepared(HeldBack):
    """What both caches have in common.

    Args:
        guesses: the session's; holds what is sent.
        sketch: new.
        settings: the pipeline's own figures.
        counts: the session's.
        leaves: most leaves of a forward pass.
    """

    has_growth = True

    def __init__(
        self,
        guesses: Guesses,
        *,
        sketch: Sketch,
        settings: PipelineSettings,
        counts: EdgeCounts,
        leaves: int,
    ) -> None:
        super().__init__(guesses, sketch=sketch, settings=settings, counts=counts)
        self._outcomes = Outcomes(sketch, settings=settings, leaves=leaves)

    def committed(self, token: TokenId) -> int:
        """See `Pipeline`."""
        self._outcomes.committed(token)
        return super().committed(token)


class OutcomeCache(Prepared, StopAndWait):
    """A `Pipeline`: stop-and-wait on the wire. A drafter of chains caches the one answer that accepts all and goes on as guessed."""

    def draft_request(self, place: Place) -> DraftRequest | None:
        """See `Pipeline`."""
        num_sent = self._sketch.num_sent
        if not num_sent:
            return super().draft_request(place)
        most = min(num_sent + 1 + place.draft_length, place.room)
        return self._chain_request(self._sketch.chain, place, most)

    def growth_request(self, place: Place) -> GrowthRequest | None:
        """See `Pipeline`."""
        if place.no_guess:
            return None
        num_sent, chain = self._sketch.num_sent, self._sketch.chain
        if num_sent == 0:
            wanted = super().draft_request(place)
            return None if wanted is None else _growing(place, [wanted.path])
        leaves = self._outcomes.leaves_to_grow(place, length=place.draft_length)
        end = chain[num_sent - 1]
        if self._sketch.guessed(end) is None and not self._sketch.is_end(end):
            leaves = [end, *leaves]  # what may come after all of it was never asked
        return _growing(place, [path_to(leaf) for leaf in leaves[: self._outcomes.leaves]])


class OutcomeCacheAhead(Prepared, RunAhead):
    """A `Pipeline`: run-ahead on the wire; what a forward pass has room for prepares for answers.

    A drafter of chains just runs ahead.
    """

    def growth_request(self, place: Place) -> GrowthRequest | None:
        """See `Pipeline`."""
        if place.no_guess:
            return None
        ahead = self.draft_request(place)
        paths = [] if ahead is None else [ahead.path]
        if self._sketch.num_sent:
            length = self._settings.segment
            for leaf in self._outcomes.leaves_to_grow(place, length=length):
                if (path := path_to(leaf)) not in paths:
                    paths.append(path)
        return _growing(place, paths[: self._outcomes.leaves])


def _growing(place: Place, paths: Sequence[tuple[TokenId, ...]]) -> GrowthRequest | None:
    if not paths:
        return None
    return GrowthRequest(position=place.position, paths=tuple(paths), width=MOST_AT_ONE + 1)
