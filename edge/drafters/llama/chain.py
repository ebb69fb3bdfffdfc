"""A GGUF file as a drafter of chains: drawn with the target's own noise, computed by llama.cpp.

Keys and values of a text stay when a generation ends, for the next turn of a conversation. A text that turned out differently
is taken back to the longest common beginning.

Invariant: `LlamaDraft._known` is what sequence 0 holds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from edge.drafters.llama.cells import ROWS_AT_ONCE, Cells, Row
from edge.drafters.llama.drawing import ArrayDrawing
from edge.drafters.llama.gguf_model import GgufModel
from edge.drafters.llama.noise import Floats
from edge.drafters.prefix import common_length
from paceline.drafter import Guess, tokens_of
from paceline.errors import ModelError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

MOST_IDLE = 2
"""Ended texts whose keys and values are kept; the one that ended first goes first."""

MOST_TOKENS = 16_384
"""Of a text with guesses: llama.cpp takes memory for all of it at once. A longer text gets no guesses."""

CELL_STEP = 1024
"""Memory is asked for in such steps, so that the next turn, which is longer, fits what the last one had."""

TEXT = 0
"""The sequence of the text; others are branches."""


@dataclass(slots=True)
class Held:
    """Cells, and the text that sequence 0 of them holds."""

    cells: Cells
    known: list[TokenId]


class LlamaDrafter:
    """Guesses with a GGUF file.

    Args:
        model: the file, loaded.
        vocabulary_size: ids that it and the target have in common.
        threads: that compute; None: half as many as this machine has.
    """

    num_sequences = 1
    """Of each generation."""
    extra_cells = 0
    """For guesses that hang off the text."""

    def __init__(
        self, model: GgufModel, *, vocabulary_size: int, threads: int | None = None
    ) -> None:
        self._model = model
        self._vocabulary_size = vocabulary_size
        self._threads = threads
        self._idle: list[Held] = []

    @property
    def name(self) -> str:
        """The file's."""
        return f"llama:{self._model.path.name}"

    @property
    def vocabulary_size(self) -> int:
        """Ids that may be guessed."""
        return self._vocabulary_size

    @property
    def context_length(self) -> int:
        """Most tokens of a text."""
        return min(self._model.context_length, MOST_TOKENS)

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> LlamaDraft:
        """Return a new draft; nothing is computed yet."""
        return LlamaDraft(
            self, prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )

    def take(self, text: Sequence[TokenId], *, num_tokens: int) -> Held:
        """Return cells for a text of at most `num_tokens`: idle ones if `_idle_for` finds some, else new ones.

        Raises:
            ModelError: no memory.
        """
        num_cells = num_tokens + self.extra_cells
        held = self._idle_for(text, num_cells=num_cells)
        if held is not None:
            self._idle.remove(held)
            return held
        cells = Cells(
            self._model,
            num_cells=-(-num_cells // CELL_STEP) * CELL_STEP,
            num_sequences=self.num_sequences,
            threads=self._threads,
        )
        return Held(cells=cells, known=[])

    def give_back(self, held: Held) -> None:
        """Keep cells for another generation; they hold no branches."""
        self._idle.append(held)
        while len(self._idle) > MOST_IDLE:
            self._idle.pop(0).cells.close()

    def close(self) -> None:
        """Free everything; no draft of it may be open."""
        while self._idle:
            self._idle.pop().cells.close()
        self._model.close()

    def _idle_for(self, text: Sequence[TokenId], *, num_cells: int) -> Held | None:
        """Return idle cells of which this text goes on with half or more; or, where no more are kept, those idle for longest."""
        fitting = [held for held in self._idle if held.cells.num_cells >= num_cells]
        if not fitting:
            return None
        best = max(fitting, key=lambda each: common_length(each.known, text))
        if 2 * common_length(best.known, text) >= len(best.known):
            return best
        return fitting[0] if len(self._idle) >= MOST_IDLE else None


class LlamaDraft:
    """One generation. Made by `LlamaDrafter.open`."""

    def __init__(
        self,
        drafter: LlamaDrafter,
        *,
        prompt_length: int,
        max_tokens: int,
        sampling: SamplingSettings,
    ) -> None:
        self._drafter = drafter
        self._end = prompt_length + max_tokens
        self._max_length = min(self._end, drafter.context_length)
        self._drawing = ArrayDrawing(
            sampling, prompt_length=prompt_length, vocabulary_size=drafter.vocabulary_size
        )
        self._held: Held | None = None

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: compute at most ROWS_AT_ONCE tokens of `text`, the last one never."""
        return self._can_draft(text) and self._advance(text)

    def extend(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[TokenId, ...]:
        """See `Draft`. A text longer than the model's context gets no guess, nor one with tokens it does not know."""
        return tokens_of(self.guess(text, limit, num_guessed=num_guessed))

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`: the larger the margin to the next candidate, the surer."""
        del num_guessed  # each guess is as good as the one before
        tokens, guesses = list(text), list[Guess]()
        for _ in range(min(limit, self._room(text))):
            guess = self._drawing.drawn(self._logits(tokens), tokens)
            tokens.append(guess.token)
            guesses.append(guess)
        return tuple(guesses)

    def close(self) -> None:
        """Give the cells back."""
        if self._held is not None:
            self._drafter.give_back(self._held)
            self._held = None

    def _can_draft(self, text: Sequence[TokenId]) -> bool:
        """Return whether a text fits the model's context and vocabulary."""
        return len(text) <= self._max_length and max(text) < self._drafter.vocabulary_size

    def _room(self, text: Sequence[TokenId]) -> int:
        """Return how many tokens can be guessed after a text."""
        if not self._can_draft(text):
            return 0
        # The last guess needs no row of its own.
        return min(self._end - len(text), self._max_length - len(text) + 1)

    def _logits(self, text: Sequence[TokenId]) -> Floats:
        """Compute what of a text is not known yet; return the logits after it, [V]."""
        while self._advance(text):
            pass
        held = self._cells(text)
        position = len(held.known)
        rows = [
            Row(
                token=token,
                position=position + index,
                sequence=TEXT,
                wants_logits=position + index == len(text) - 1,
            )
            for index, token in enumerate(text[position:])
        ]
        self._compute(held, rows)
        held.known.extend(text[position:])
        return held.cells.logits(len(rows) - 1)

    def _advance(self, text: Sequence[TokenId]) -> bool:
        """Compute a piece of `text` without its last token; return whether some of that is left."""
        held = self._cells(text)
        self._go_back(held, text, len(text) - 1)
        left = text[len(held.known) : len(text) - 1]
        if len(left) <= 1:  # `extend` runs one row more as cheaply as one
            return False
        piece = left[:ROWS_AT_ONCE]
        position = len(held.known)
        self._compute(
            held,
            [
                Row(token=token, position=position + index, sequence=TEXT)
                for index, token in enumerate(piece)
            ],
        )
        held.known.extend(piece)
        return len(left) > len(piece)

    def _cells(self, text: Sequence[TokenId]) -> Held:
        if self._held is None:
            self._held = self._drafter.take(text, num_tokens=self._max_length)
        return self._held

    def _compute(self, held: Held, rows: Sequence[Row]) -> None:
        """Compute rows; where that fails, forget all that may be wrong now."""
        try:
            held.cells.compute(rows)
        except ModelError:
            self._forget(held)
            raise

    def _forget(self, held: Held) -> None:
        """Hold nothing."""
        held.cells.clear()
        held.known.clear()

    def _go_back(self, held: Held, text: Sequence[TokenId], most: int) -> None:
        """Forget what differs from `text`, and what goes beyond its first `most` tokens."""
        length = min(common_length(held.known, text), most)
        if length == len(held.known):
            return
        if held.cells.remove(TEXT, first=length):
            del held.known[length:]
        else:  # some kinds of memory cannot be taken back in part
            self._forget(held)
