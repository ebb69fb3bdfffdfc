"""A GGUF file as a drafter of trees: several guesses for a position, several leaves in one call of llama.cpp.

Keys and values of live guesses stay and are shared between the branches through them; a commit makes those of the committed
guesses the text's own.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing

from edge.drafters.judging import Judge, Made
from edge.drafters.llama.branches import Branches, NoRoomError, Share, Wave
from edge.drafters.llama.cells import MOST_ROWS, Cells
from edge.drafters.llama.chain import Held, LlamaDraft, LlamaDrafter
from edge.drafters.llama.gguf_model import GgufModel
from edge.drafters.llama.noise import Floats
from paceline.control.node_scores import NodeScores
from paceline.drafter import Guess
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

MOST_PENDING = 512
"""Guesses with keys and values; beyond, all are dropped and those that are asked for computed again."""

LONGEST_TAIL = 64
"""A text that went on by more than this without us is computed in pieces, as a prompt is."""

_MOST_LOGIT_BYTES = 16 * 2**20
"""llama.cpp keeps room for logits of every sequence."""


class LlamaTreeDrafter(LlamaDrafter):
    """Guesses trees with a GGUF file. Chances are corrected by what became of earlier guesses of the same rank.

    Args:
        model: see `LlamaDrafter`.
        vocabulary_size: see `LlamaDrafter`.
        threads: see `LlamaDrafter`.
    """

    extra_cells = MOST_PENDING

    def __init__(
        self, model: GgufModel, *, vocabulary_size: int, threads: int | None = None
    ) -> None:
        super().__init__(model, vocabulary_size=vocabulary_size, threads=threads)
        self.num_sequences = max(16, min(64, _MOST_LOGIT_BYTES // (4 * model.vocabulary_size)))
        self._scores = {is_greedy: NodeScores() for is_greedy in (True, False)}

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> LlamaTreeDraft:
        """See `Drafter`."""
        return LlamaTreeDraft(
            self,
            prompt_length=prompt_length,
            max_tokens=max_tokens,
            sampling=sampling,
            scores=self._scores[sampling.is_greedy],
        )


class LlamaTreeDraft(LlamaDraft):
    """One generation. Made by `LlamaTreeDrafter.open`."""

    def __init__(
        self,
        drafter: LlamaDrafter,
        *,
        prompt_length: int,
        max_tokens: int,
        sampling: SamplingSettings,
        scores: NodeScores,
    ) -> None:
        super().__init__(
            drafter, prompt_length=prompt_length, max_tokens=max_tokens, sampling=sampling
        )
        self._num_sequences = drafter.num_sequences
        self._scores = scores
        self._judge = Judge(scores)
        self._branches: Branches | None = None

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: a prompt is computed in pieces; what comes later is done by `branch`."""
        return self._branches is None and super().prepare(text)

    def branch(
        self, text: Sequence[TokenId], paths: Sequence[Sequence[TokenId]], *, width: int
    ) -> tuple[tuple[Guess, ...], ...]:
        """See `TreeDraft`. Nothing comes after a text longer than the model's context, or with tokens it does not know."""
        self._judge.judge(text)
        wanted = [tuple(path) for path in paths]
        usable = [path for path in dict.fromkeys(wanted) if self._room((*text, *path))]
        if not usable:
            return tuple(() for _ in wanted)
        found = {}
        # Closed at once, and not by whoever lets go of an error last: what it gives back may be another draft's by then.
        with closing(self._leaves(text, usable)) as leaves:
            for path, logits in leaves:
                guesses = self._drawing.ranked(logits, (*text, *path), width=width)
                self._judge.note(Made(length=len(text), path=path, guesses=guesses))
                found[path] = self._calibrated(guesses)
        return tuple(found.get(path, ()) for path in wanted)

    def close(self) -> None:
        """Give the cells back, without branches."""
        if self._held is not None:
            self._drop(self._held)
        super().close()

    def _calibrated(self, guesses: Sequence[Guess]) -> tuple[Guess, ...]:
        return tuple(
            Guess(token=guess.token, chance=self._scores.chance(guess.chance, rank=rank))
            for rank, guess in enumerate(guesses, start=1)
        )

    def _leaves(
        self, text: Sequence[TokenId], paths: Sequence[tuple[TokenId, ...]]
    ) -> Generator[tuple[tuple[TokenId, ...], Floats]]:
        """Compute the last token of each path; give the logits after it, valid until the next is asked for."""
        held, branches = self._settle(text)
        tail = tuple(text[len(held.known) :])
        waiting = [(*tail, *path) for path in paths]
        while waiting:
            try:
                wave = branches.plan(waiting[: self._num_sequences // 2], most_rows=MOST_ROWS)
            except NoRoomError:
                self._drop(held)
                branches = self._new_branches(held)
                continue
            for share in wave.shares:
                _share(held.cells, share)
            self._compute(held, wave.rows)
            try:
                for path, row in wave.leaves.items():
                    yield path[len(tail) :], held.cells.logits(row)
            finally:
                self._finish(held, branches, wave)
            waiting = [path for path in waiting if path not in wave.leaves]

    def _settle(self, text: Sequence[TokenId]) -> tuple[Held, Branches]:
        """Let the cells hold the text but for a tail of a few tokens, and no guess that the text contradicts."""
        held, branches = self._cells(text), self._branches
        goes_on = len(held.known) < len(text) and list(text[: len(held.known)]) == held.known
        if branches is not None and goes_on:
            settled = branches.commit(text[len(held.known) :])
            if settled.share is not None:
                _share(held.cells, settled.share)
            for sequence in settled.removed:
                held.cells.remove(sequence)
            held.known.extend(text[len(held.known) : len(held.known) + settled.num_tokens])
        if not goes_on or len(text) - len(held.known) > LONGEST_TAIL:
            self._drop(held)
            while self._advance(text):
                pass
        return held, self._branches or self._new_branches(held)

    def _new_branches(self, held: Held) -> Branches:
        self._branches = Branches(
            len(held.known), num_sequences=self._num_sequences, most_rows=MOST_PENDING
        )
        return self._branches

    def _finish(self, held: Held, branches: Branches, wave: Wave) -> None:
        for sequence in wave.passing:
            held.cells.remove(sequence)
        branches.end(wave)

    def _drop(self, held: Held) -> None:
        """Forget all guesses."""
        if self._branches is not None:
            for sequence in self._branches.drop():
                held.cells.remove(sequence)
            self._branches = None

    def _forget(self, held: Held) -> None:
        super()._forget(held)
        self._branches = None

    def _advance(self, text: Sequence[TokenId]) -> bool:
        """See `LlamaDraft`; a chain has no use for the rows of a tree."""
        self._drop(self._cells(text))
        return super()._advance(text)


def _share(cells: Cells, share: Share) -> None:
    cells.share(share.source, share.target, first=share.first, end=share.end)
