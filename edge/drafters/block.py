"""A one-pass block drafter: a model with mask slots says in one forward pass what may stand at each of the next positions.

A pass reads what is new of the text and the slots behind it. What it says is kept and asked position by position: for a chain, for
any number of leaves of a tree, until the guesses leave the block or the text goes another way. Only then there is another pass.
Each position is drawn with the target's own noise, after what follows elsewhere in the text has had its say (`continuity`). How
far in the block a guess stands says most of how good it is, so each depth has chances of its own.

Invariant: between two calls the cache holds text and no slot; slots are freed with the pass that ran them.

Sources: Xia et al., "Speculative Decoding" (SpecDec, arXiv 2203.16487); "DART" (arXiv 2601.19278), whose n-gram term
is used here. DART searches level by level with a beam; the tree here grows best first, by the product of the chances on the way
(`paceline.session.growth`).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from edge.drafters.block_rows import Block, BlockRows
from edge.drafters.continuity import Continuity
from edge.drafters.judging import Judge, Made
from edge.drafters.model import ModelDraft, ModelDrafter, as_model_errors
from edge.drafters.suffix import MEMORY_TOKENS
from edge.drafters.tree import LONGEST_TAIL
from paceline.control.node_scores import NodeScores
from paceline.drafter import Guess
from paceline.engine.engine import Engine
from paceline.engine.rows import Logits, RowGroup, SomeTokens
from paceline.ngram.history import LONGEST, History
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

MAX_PENDING = 512
"""Most rows of a pass: a text's tail, paths to leaves, and slots."""
MOST_BLOCKS = 16
"""Blocks that are remembered, the latest ones."""


class BlockDrafter(ModelDrafter):
    """Guesses several positions at once.

    Args:
        engine: the model; its inputs go on with the slots behind the tokens.
        vocabulary_size: ids of the tokenizer, as the verifier counts them.
        first_slot: id of the first slot.
        num_slots: a block has one position more.
    """

    def __init__(
        self, engine: Engine, *, vocabulary_size: int, first_slot: int, num_slots: int
    ) -> None:
        super().__init__(engine, vocabulary_size=vocabulary_size)
        self._first_slot, self._num_slots = first_slot, num_slots
        self._vocabulary_size = min(self._vocabulary_size, first_slot)
        self._memory = History(MEMORY_TOKENS)
        self._scores = {
            is_greedy: tuple(NodeScores() for _ in range(num_slots + 1))
            for is_greedy in (True, False)
        }

    @property
    def num_positions(self) -> int:
        """Positions of a block."""
        return self._num_slots + 1

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> BlockDraft:
        """See `Drafter`."""
        continuity = Continuity(
            prompt_length, most_tokens=max(1, prompt_length + max_tokens), memory=self._memory
        )
        draft = BlockDraft(
            self._engine,
            prompt_length=prompt_length,
            max_tokens=max_tokens,
            sampling=sampling,
            vocabulary_size=self._vocabulary_size,
            max_pending=MAX_PENDING,
        )
        draft.use(
            continuity=continuity,
            scores=self._scores[sampling.is_greedy],
            first_slot=self._first_slot,
        )
        return draft


class BlockDraft(ModelDraft):
    """One generation. Made by `BlockDrafter.open`."""

    def use(self, *, continuity: Continuity, scores: Sequence[NodeScores], first_slot: int) -> None:
        """Take what a drafter's generations share; once, before anything else.

        Args:
            continuity: of this text.
            scores: for each position of a block, the next one first.
            first_slot: id of the first slot.
        """
        self._continuity = continuity
        self._scores = tuple(scores)
        self._judges = tuple(Judge(one) for one in scores)
        self._first_slot = first_slot
        self._blocks: list[Block] = []
        self._some: SomeTokens | None = None
        self._committed: list[TokenId] = []
        self._chain: list[TokenId] = []
        """The text of the last chain and its guesses."""

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: the prompt is prefilled in pieces; all that comes later is done with the next pass."""
        sequence = self._sequence
        if sequence is not None and sequence.length >= len(sequence.prompt):
            return False
        return self._continuity.prepare(text) or super().prepare(text)

    def guess(
        self, text: Sequence[TokenId], limit: int, *, num_guessed: int = 0
    ) -> tuple[Guess, ...]:
        """See `ScoringDraft`: the likeliest path through the block, token by token."""
        num_committed = len(text) - num_guessed
        self._learn(text[:num_committed])
        tokens, guesses = list(text), list[Guess]()
        strays = self._strays(tokens)
        for _ in range(min(limit, self.room(text))):
            is_new = not guesses and num_guessed == 0
            block = None if strays else self._known_block(tokens, (), is_new=is_new)
            if block is None:
                block = self._run_blocks(tokens, [()], num_committed=num_committed)[()]
            (found,) = self._ranked([block], tokens, [()], width=1)
            made = Made(length=num_committed, path=tuple(tokens[num_committed:]), guesses=found[:1])
            guess = self._noted(block, made)[0]
            tokens.append(guess.token)
            guesses.append(guess)
            strays = False
        self._chain = tokens
        return tuple(guesses)

    def branch(
        self, text: Sequence[TokenId], paths: Sequence[Sequence[TokenId]], *, width: int
    ) -> tuple[tuple[Guess, ...], ...]:
        """See `TreeDraft`. Leaves within a block cost no pass; where one is needed, the likeliest leaf gets a whole block."""
        self._learn(text)
        room, known = self.room(text), self._vocabulary_size
        usable = [
            tuple(path) for path in paths if len(path) < room and max(path, default=0) < known
        ]
        if not usable:
            return tuple(() for _ in paths)
        known_blocks = {
            path: self._known_block(text, path, is_new=not path) for path in dict.fromkeys(usable)
        }
        missing = [path for path, block in known_blocks.items() if block is None]
        run = self._run_blocks(text, missing, num_committed=len(text))
        blocks = {
            path: chosen
            for path, block in known_blocks.items()
            if (chosen := block or run.get(path)) is not None
        }
        if not blocks:
            return tuple(() for _ in paths)
        found = {}
        ranked = self._ranked(list(blocks.values()), text, list(blocks), width=width)
        for (path, block), guesses in zip(blocks.items(), ranked, strict=True):
            found[path] = self._noted(block, Made(length=len(text), path=path, guesses=guesses))
        return tuple(found.get(tuple(path), ()) for path in paths)

    def close(self) -> None:
        """See `Draft`."""
        self._continuity.close()
        self._blocks.clear()
        super().close()

    def _learn(self, committed: Sequence[TokenId]) -> None:
        """Take note of what was committed, and forget what it contradicts."""
        self._continuity.learn(committed)
        for judge in self._judges:
            judge.judge(committed)
        before, length = self._committed, len(committed)
        # Compared once per call: what a block stands on beyond it is short.
        goes_on = len(before) <= length and list(committed[: len(before)]) == before
        new = list(committed[len(before) if goes_on else 0 :])
        alive = (one.after(new, length=length) for one in self._blocks if goes_on)
        self._blocks = [one for one in alive if one is not None][-MOST_BLOCKS:]
        self._committed = [*before, *new] if goes_on else new

    def _noted(self, block: Block, made: Made) -> tuple[Guess, ...]:
        """Remember guesses until they are judged; return them with chances that hold at their depth of the block."""
        depth = made.length + len(made.path) - block.end
        self._judges[depth].note(made)
        scores = self._scores[depth]
        return tuple(
            Guess(token=guess.token, chance=scores.chance(guess.chance, rank=rank))
            for rank, guess in enumerate(made.guesses, start=1)
        )

    def _strays(self, text: Sequence[TokenId]) -> bool:
        """Whether a chain goes on from other tokens than the block would guess: it knows nothing of them."""
        chain = self._chain
        common = min(len(chain), len(text))
        if chain[:common] != text[:common]:
            return True
        while len(chain) < len(text):  # others guessed on where we had stopped
            block = self._known_block(chain, (), is_new=False)
            if block is None:
                return True
            ((best,),) = self._ranked([block], chain, [()], width=1)
            if best.token != text[len(chain)]:
                return True
            chain = [*chain, best.token]
        return False

    def _known_block(
        self, text: Sequence[TokenId], path: tuple[TokenId, ...], *, is_new: bool
    ) -> Block | None:
        """Return the nearest block that knows something about the position after a path.

        Args:
            text: committed text and guesses, or less of the committed text.
            path: guesses behind it.
            is_new: take only one that has read the whole of it.
        """
        length = len(text) + len(path)
        guessed = (*text[len(self._committed) :], *path)
        reaching = [block for block in self._blocks if block.reaches(length, guessed)]
        best = max(reaching, key=lambda block: block.end, default=None)
        return best if best is None or not is_new or best.end == length else None

    def _run_blocks(
        self, text: Sequence[TokenId], paths: Sequence[tuple[TokenId, ...]], *, num_committed: int
    ) -> dict[tuple[TokenId, ...], Block]:
        """Run one pass, or more if it would be too long.

        Args:
            text: committed text and guesses.
            paths: guesses behind it.
            num_committed: tokens of the text that are committed.

        Returns:
            A block for each path, a whole one for the first, of one position for the others; none for a path that is
            too long for a pass.
        """
        blocks: dict[tuple[TokenId, ...], Block] = {}
        left = list(paths)
        while left:
            with as_model_errors():
                self._settle(text)
                tail = tuple(text[len(self._known) :])
                left = [path for path in left if len(tail) + len(path) <= MAX_PENDING]
                if not left:
                    break
                rows = BlockRows(first_slot=self._first_slot)
                for path in left:
                    length = len(tail) + len(path)
                    if rows.ends and len(rows.tokens) + length > MAX_PENDING:
                        break
                    room = min(self._max_length - len(text) - len(path), MAX_PENDING - length)
                    num_slots = 0 if blocks or rows.ends else min(len(self._scores) - 1, room)
                    rows.add((*tail, *path), num_slots=num_slots)
                values = self._run_rows(rows, tail)
            for path, places in zip(left, rows.ends, strict=False):
                base = (*text[num_committed:], *path)
                block = Block(end=len(text) + len(path), path=base, values=values[places])
                blocks[path] = block
            left = left[len(rows.ends) :]
        # One of a single position has said all that it knows.
        self._blocks.extend(block for block in blocks.values() if block.depth > 1)
        return blocks

    def _run_rows(self, rows: BlockRows, tail: Sequence[TokenId]) -> Tensor:
        """Return the logits of rows, [rows, W]. The text's tail is in the cache then, nothing else."""
        sequence = self._sequence
        assert sequence is not None, "settled"
        group = RowGroup(sequence=sequence, tokens=rows.tokens, parents=rows.parents)
        logits = self._engine.forward([group])
        # The tail came first, so it is the first rows: nothing has to move, and all else is freed.
        self._engine.commit(sequence, range(len(tail)))
        self._known.extend(tail)
        self._some = logits.some
        return logits.known_of(0)

    def _settle(self, text: Sequence[TokenId]) -> None:
        """Let the cache hold the text but for a tail of at least one token and not many."""
        sequence = self._sequence
        if sequence is not None and sequence.length >= len(sequence.prompt):
            self._go_back(text, len(text) - 1)
            if len(text) - len(self._known) <= LONGEST_TAIL:
                return
        while self._advance(text):
            pass

    def _ranked(
        self,
        blocks: Sequence[Block],
        text: Sequence[TokenId],
        paths: Sequence[tuple[TokenId, ...]],
        *,
        width: int,
    ) -> list[tuple[Guess, ...]]:
        """Return the best candidates after each path by its block, by what the text says, and by the target's noise."""
        with as_model_errors():
            rows = []
            for block, path in zip(blocks, paths, strict=True):
                depth = len(text) + len(path) - block.end
                end = (*text[-LONGEST:], *path)
                rows.append(self._with_gains(block.values[depth], end))
            values = torch.stack(rows)
            logits = Logits(values=values, offsets=(0, len(rows)), some=self._some)
            places = dict(enumerate(paths))
            return self._drawing.ranked_leaves(logits, places, text, width=width)

    def _with_gains(self, row: Tensor, end: Sequence[TokenId]) -> Tensor:
        """Return logits of a position, [W], with what the text says of what follows its last tokens."""
        gains = self._continuity.gains(end)
        if not gains:
            return row
        tokens = torch.tensor(list(gains), device=row.device)
        added = torch.tensor(list(gains.values()), device=row.device)
        if self._some is not None:
            ids = self._some.ids
            columns = torch.searchsorted(ids, tokens).clamp_(max=len(ids) - 1)
            is_said = ids[columns] == tokens
            tokens, added = columns[is_said], added[is_said]
        return row.index_add(0, tokens, added)
