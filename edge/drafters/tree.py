"""A causal language model as a drafter of trees: several guesses for a position, several leaves in one forward pass.

The rows of live guesses stay in the engine's cache as pending rows and see their ancestors only, so a leaf costs one row however
deep it hangs. A commit makes the rows of the committed guesses final and keeps those below them.

Tree attention: Miao et al., "SpecInfer" (arXiv 2305.09781), section 4.2.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from edge.drafters.judging import Judge, Made
from edge.drafters.model import ModelDraft, ModelDrafter, as_model_errors
from paceline.control.node_scores import NodeScores
from paceline.drafter import Guess
from paceline.engine.engine import Engine
from paceline.engine.rows import COMMITTED_END, Logits, RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

MAX_PENDING = 768
"""Most rows of guesses in the cache: the largest window, and what was contradicted and is not dropped yet."""

LONGEST_TAIL = 64
"""A text that went on by more than this without us is computed in pieces, as a prompt is."""


class TreeDrafter(ModelDrafter):
    """Guesses trees with a model. Chances are corrected by what became of earlier guesses of the same rank.

    Args:
        engine: the model.
        vocabulary_size: ids of the tokenizer, as the verifier counts them.
    """

    def __init__(self, engine: Engine, *, vocabulary_size: int) -> None:
        super().__init__(engine, vocabulary_size=vocabulary_size)
        self._scores = {is_greedy: NodeScores() for is_greedy in (True, False)}

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> "TreeModelDraft":
        """See `Drafter`."""
        return TreeModelDraft(
            self._engine,
            prompt_length=prompt_length,
            max_tokens=max_tokens,
            sampling=sampling,
            vocabulary_size=self._vocabulary_size,
            scores=self._scores[sampling.is_greedy],
        )


@dataclass(slots=True)
class _Rows:
    """Rows for one forward pass, and where every guess has its own."""

    index: dict[tuple[int, TokenId], int]
    """Pending index by parent and token."""
    base: int
    tokens: list[TokenId] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)

    def add(self, parent: int, token: TokenId) -> int:
        self.tokens.append(token)
        self.parents.append(parent)
        self.index[parent, token] = row = self.base + len(self.tokens) - 1
        return row

    def add_leaf(self, path: Sequence[TokenId]) -> int:
        """Add a row for the last token of a path and for what is missing above it; return its pending index."""
        parent = COMMITTED_END
        for token in path[:-1]:
            known = self.index.get((parent, token))
            parent = self.add(parent, token) if known is None else known
        return self.add(parent, path[-1])


class TreeModelDraft(ModelDraft):
    """One generation. Made by `TreeDrafter.open`."""

    def __init__(
        self,
        engine: Engine,
        *,
        prompt_length: int,
        max_tokens: int,
        sampling: SamplingSettings,
        vocabulary_size: int,
        scores: NodeScores,
    ) -> None:
        super().__init__(
            engine,
            prompt_length=prompt_length,
            max_tokens=max_tokens,
            sampling=sampling,
            vocabulary_size=vocabulary_size,
            max_pending=MAX_PENDING,
        )
        self._judge = Judge(scores)
        self._index: dict[tuple[int, TokenId], int] | None = None
        """Pending index by parent and token; None where the engine has to be asked."""
        self._settled: tuple[TokenId, ...] = ()
        """What the text held beyond `_known` when rows were last dropped for what it contradicts."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: the prompt is prefilled in pieces; all that comes later is done by `branch`."""
        sequence = self._sequence
        if sequence is not None and sequence.length >= len(sequence.prompt):
            return False
        return super().prepare(text)

    def branch(
        self, text: Sequence[TokenId], paths: Sequence[Sequence[TokenId]], *, width: int
    ) -> tuple[tuple[Guess, ...], ...]:
        """See `TreeDraft`. Nothing comes after a text longer than the model's context or a path longer than the cache, nor after strange tokens."""
        self._judge.judge(text)
        room, known = self.room(text), self._vocabulary_size
        usable = [
            tuple(path) for path in paths if len(path) < room and max(path, default=0) < known
        ]
        if not usable:
            return tuple(() for _ in paths)
        found: dict[tuple[TokenId, ...], tuple[Guess, ...]] = {}
        with as_model_errors():
            self._settle(text)
            sequence = self._sequence
            assert sequence is not None, "settled"
            tail = tuple(text[len(self._known) :])
            # Nothing is guessed after what does not fit the cache even alone.
            left = [path for path in usable if len(tail) + len(path) <= MAX_PENDING]
            while left:
                rows, leaves = self._rows(sequence, tail, left)
                group = RowGroup(sequence=sequence, tokens=rows.tokens, parents=rows.parents)
                logits = self._engine.forward([group])
                self._index = rows.index
                places = {leaf - rows.base: path for leaf, path in zip(leaves, left, strict=False)}
                left = left[len(leaves) :]
                for made in self._made(logits, places, text, width=width):
                    self._judge.note(made)
                    found[made.path] = self._judge.calibrated(made)
        return tuple(found.get(tuple(path), ()) for path in paths)

    def _made(
        self,
        logits: Logits,
        places: Mapping[int, tuple[TokenId, ...]],
        text: Sequence[TokenId],
        *,
        width: int,
    ) -> list[Made]:
        """Return guesses after the path of each row."""
        ranked = self._drawing.ranked_leaves(logits, places, text, width=width)
        return [
            Made(length=len(text), path=path, guesses=guesses)
            for path, guesses in zip(places.values(), ranked, strict=True)
        ]

    def _settle(self, text: Sequence[TokenId]) -> None:
        """Let the cache hold the text but for a tail of a few tokens, and only rows that the text does not contradict."""
        sequence, length = self._sequence, len(self._known)
        goes_on = length < len(text) and list(text[:length]) == self._known
        if sequence is not None and sequence.num_pending:
            if not goes_on:
                self._drop_pending(sequence)
            elif tuple(text[length:]) != self._settled:
                self._commit(sequence, text)
        if (
            sequence is None
            or not goes_on
            or sequence.length < len(sequence.prompt)
            or len(text) - len(self._known) > LONGEST_TAIL
        ):
            if sequence is not None:
                self._drop_pending(sequence)
            while self._advance(text):
                pass
        self._settled = tuple(text[len(self._known) :])

    def _commit(self, sequence: CacheSequence, text: Sequence[TokenId]) -> None:
        """Make the rows of what was committed final, all but that of the last token: it stays for what comes after it."""
        index = self._taken_index(sequence)
        path: list[int] = []
        end = COMMITTED_END
        for token in text[len(self._known) : -1]:
            row = index.get((end, token))
            if row is None:
                break
            path.append(row)
            end = row
        keep: list[int] = []
        if len(self._known) + len(path) == len(text) - 1:
            alive = {index[end, text[-1]]} if (end, text[-1]) in index else set()
            for row, pending in enumerate(sequence.pending):
                if row in alive or pending.parent in alive:
                    alive.add(row)
                    keep.append(row)
        self._engine.commit(sequence, path, keep)
        self._known.extend(text[len(self._known) : len(self._known) + len(path)])

    def _rows(
        self,
        sequence: CacheSequence,
        tail: tuple[TokenId, ...],
        paths: Sequence[tuple[TokenId, ...]],
    ) -> tuple[_Rows, list[int]]:
        """Return the rows to run, and the pending index of each path's last: of all paths, or of the first that fit."""
        rows = _Rows(index=self._taken_index(sequence), base=sequence.num_pending)
        leaves = [rows.add_leaf((*tail, *path)) for path in paths]
        if rows.base + len(rows.tokens) > MAX_PENDING:
            self._drop_pending(sequence)
            rows, leaves = _Rows(index={}, base=0), []
            for path in paths:
                if leaves and len(rows.tokens) + len(tail) + len(path) > MAX_PENDING:
                    break
                leaves.append(rows.add_leaf((*tail, *path)))
        return rows, leaves

    def _computed(self, text: Sequence[TokenId], count: int) -> Logits:
        """See `ModelDraft`; a chain has no use for the rows of a tree."""
        if self._sequence is not None:
            self._drop_pending(self._sequence)
        return super()._computed(text, count)

    def _taken_index(self, sequence: CacheSequence) -> dict[tuple[int, TokenId], int]:
        """Return where every guess has its row. From now on the engine is asked, until somebody knows better."""
        index, self._index = self._index, None
        if index is not None:
            return index
        return {(row.parent, row.token): number for number, row in enumerate(sequence.pending)}

    def _drop_pending(self, sequence: CacheSequence) -> None:
        self._index = None
        if sequence.num_pending:
            self._engine.rollback(sequence, len(self._known))
