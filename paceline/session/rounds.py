"""Pipelines that send chains: stop-and-wait, and run-ahead.

Stop-and-wait: Leviathan et al. (arXiv 2211.17192) over a link; what most edge-cloud systems do.

Run-ahead: PicoSpec (arXiv 2603.19133), section 3. While a segment is verified the edge drafts the next from its end, as if all of
it will be accepted. Its fast verification sends the first token of a segment before the rest is drafted, its truncation sends
what there is when the answer comes before a segment is whole. That the answer contradicts it cuts the rest off, by content.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace

from paceline.drafter import Guess
from paceline.session.drafting import DraftRequest, EdgeCounts
from paceline.session.growth import GrowthRequest
from paceline.session.guesses import Guesses
from paceline.session.pipeline import PipelineSettings, Place
from paceline.session.sketch import Sketch
from paceline.session.tree import Node
from paceline.tokens import TokenId


class HeldBack(ABC):
    """What pipelines have in common that send less than is drafted, or later.

    Args:
        guesses: the session's; holds what is sent.
        sketch: new.
        settings: the pipeline's own figures.
        counts: the session's.
    """

    has_growth = False
    """See `Pipeline`."""

    def __init__(
        self, guesses: Guesses, *, sketch: Sketch, settings: PipelineSettings, counts: EdgeCounts
    ) -> None:
        self._guesses = guesses
        self._sketch = sketch
        self._settings = settings
        self._counts = counts
        self._is_answered = False
        """Commits have just settled everything that was in flight."""

    @property
    def is_closed(self) -> bool:
        """See `Pipeline`."""
        return self._sketch.is_end(self._sketch.root) and not self._sketch.root.children

    def growth_request(self, place: Place) -> GrowthRequest | None:
        """See `Pipeline`: a chain has one guess for a position."""
        del place
        return None

    def drafted(self, tokens: Sequence[TokenId]) -> None:
        """See `Pipeline`."""
        self._sketch.hang(tokens)

    def grown(self, path: Sequence[TokenId], guesses: Iterable[Guess]) -> bool:
        """See `Pipeline`."""
        return self._sketch.grown(path, guesses)

    def committed(self, token: TokenId) -> int:
        """See `Pipeline`."""
        was_in_flight = self._sketch.num_sent > 0
        num_gone = self._sketch.commit(token)
        self._is_answered |= was_in_flight and self._sketch.num_sent == 0
        return num_gone

    def release(self, place: Place) -> None:
        """See `Pipeline`."""
        chain = self._sketch.chain
        num_ready = self._num_ready(chain, place)
        if self._is_answered and place.depth > 0:
            self._counts.answers += 1
            self._counts.prepared += num_ready > 0
        self._is_answered = False
        if num_ready > self._sketch.num_sent:
            self._guesses.hang(node.token for node in chain[:num_ready])
            self._sketch.num_sent = num_ready

    @abstractmethod
    def draft_request(self, place: Place) -> DraftRequest | None:
        """See `Pipeline`."""

    @abstractmethod
    def _num_ready(self, chain: Sequence[Node], place: Place) -> int:
        """Return how many nodes of the chain, from its beginning, the verifier may have now."""

    def _chain_request(self, chain: Sequence[Node], place: Place, most: int) -> DraftRequest | None:
        """Ask for the chain to be `most` tokens long."""
        end = chain[-1] if chain else self._sketch.root
        if place.no_guess or len(chain) >= most or self._sketch.is_end(end):
            return None
        path = tuple(node.token for node in chain)
        return DraftRequest(position=place.position, path=path, limit=most - len(path))


class StopAndWait(HeldBack):
    """A `Pipeline`: `draft_length` tokens from the committed end, the whole answer, the next."""

    def draft_request(self, place: Place) -> DraftRequest | None:
        """See `Pipeline`."""
        if self._sketch.num_sent:
            return None
        return self._chain_request(self._sketch.chain, place, min(place.depth, place.space))

    def _num_ready(self, chain: Sequence[Node], place: Place) -> int:
        if self._sketch.num_sent or self.draft_request(place) is not None:
            return 0
        return min(len(chain), place.depth, place.space)


class RunAhead(HeldBack):
    """A `Pipeline`: the chain goes on while some of it is in flight, up to `draft_length` beyond the committed text."""

    def draft_request(self, place: Place) -> DraftRequest | None:
        """See `Pipeline`."""
        most = min(place.depth, self._sketch.num_sent + place.space)
        request = self._chain_request(self._sketch.chain, place, most)
        if request is None or not self._may_send_one:
            return request
        return replace(request, limit=1)

    def _num_ready(self, chain: Sequence[Node], place: Place) -> int:
        num_held = len(chain) - self._sketch.num_sent
        is_due = self._may_send_one or self._is_answered or num_held >= self._settings.segment
        return len(chain) if is_due or self.draft_request(place) is None else 0

    @property
    def _may_send_one(self) -> bool:
        """Nothing is in flight: the first token may go while the rest of its segment is drafted."""
        return self._sketch.num_sent == 0 and self._settings.pre_verify
