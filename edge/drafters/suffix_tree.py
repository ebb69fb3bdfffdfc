"""A model that drafts trees and knows what followed elsewhere in the text, or in earlier answers.

At each leaf the suffix n-gram says which tokens followed where a text ended like the path down to it, and how likely they are. The
guesses are those of both laws taken together, in equal parts: what the text says for sure becomes a guess whatever the model thinks,
and what the text knows nothing of is the model's own. The model's pass stays the same; a look into the index takes microseconds.

A block adds part of a logarithm instead (`continuity`): its positions know too little of each other and ask the text to decide. The
model here knows what stands before, and may be wrong all the same, by more than such a gain makes good. docs/drafters.md has figures.

How often guesses come true depends on who has made them, so tokens that followed have chances of their own.

Source of the mixture: Kuhn and De Mori, "A Cache-Based Natural Language Model for Speech Recognition" (1990).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import IntEnum
from math import log

import torch

from edge.drafters.continuity import Continuity
from edge.drafters.judging import Judge, Made
from edge.drafters.suffix import MEMORY_TOKENS
from edge.drafters.tree import TreeDrafter, TreeModelDraft
from paceline.control.node_scores import NodeScores
from paceline.engine.engine import Engine
from paceline.engine.rows import Logits
from paceline.ngram.history import LONGEST, History
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId


class Kind(IntEnum):
    """Who has made a guess. More kinds were tried, and take longer to learn than they help."""

    OWN = 0
    """The model alone."""
    FOLLOWED = 1
    """The token followed where the text ended like this."""


class SuffixTreeDrafter(TreeDrafter):
    """Guesses trees with a model and the suffix n-gram; its generations share what earlier answers said.

    Args:
        engine: the model.
        vocabulary_size: ids of the tokenizer, as the verifier counts them.
    """

    def __init__(self, engine: Engine, *, vocabulary_size: int) -> None:
        super().__init__(engine, vocabulary_size=vocabulary_size)
        self._memory = History(MEMORY_TOKENS)
        self._kinds = {is_greedy: tuple(NodeScores() for _ in Kind) for is_greedy in (True, False)}

    def open(
        self, *, prompt_length: int, max_tokens: int, sampling: SamplingSettings
    ) -> SuffixTreeDraft:
        """See `Drafter`."""
        scores = self._kinds[sampling.is_greedy]
        draft = SuffixTreeDraft(
            self._engine,
            prompt_length=prompt_length,
            max_tokens=max_tokens,
            sampling=sampling,
            vocabulary_size=self._vocabulary_size,
            scores=scores[0],
        )
        continuity = Continuity(
            prompt_length, most_tokens=max(1, prompt_length + max_tokens), memory=self._memory
        )
        draft.recall(continuity, scores=scores, temperature=sampling.temperature or 1.0)
        return draft


class SuffixTreeDraft(TreeModelDraft):
    """One generation. Made by `SuffixTreeDrafter.open`."""

    def recall(
        self, continuity: Continuity, *, scores: Sequence[NodeScores], temperature: float
    ) -> None:
        """Take what a drafter's generations share; once, before anything else.

        Args:
            continuity: of this text.
            scores: of each kind of guess.
            temperature: by which logits become the law that the text's is mixed with; 1 for greedy answers.
        """
        self._continuity = continuity
        self._judge = Judge(*scores)
        self._temperature = temperature

    def prepare(self, text: Sequence[TokenId]) -> bool:
        """See `Draft`: the prompt is read in pieces, then computed in pieces."""
        return self._continuity.prepare(text) or super().prepare(text)

    def close(self) -> None:
        """See `Draft`: the answer stays in the drafter's memory."""
        self._continuity.close()
        super().close()

    def _made(
        self,
        logits: Logits,
        places: Mapping[int, tuple[TokenId, ...]],
        text: Sequence[TokenId],
        *,
        width: int,
    ) -> list[Made]:
        """See `TreeModelDraft`: the guesses of both."""
        self._continuity.learn(text)
        end = tuple(text[-LONGEST:])
        said = {row: self._continuity.chances((*end, *path)) for row, path in places.items()}
        self._mix(logits, said)
        made = super()._made(logits, places, text, width=width)
        return [
            replace(one, kinds=tuple(Kind(guess.token in chances) for guess in one.guesses))
            for one, chances in zip(made, said.values(), strict=True)
        ]

    @torch.inference_mode()
    def _mix(self, logits: Logits, said: Mapping[int, Mapping[TokenId, float]]) -> None:
        """Add to the law of each row what the text says, as much again: in place, nobody else reads this step's logits.

        What the text leaves open is added to nothing: the sum of a row changes, which changes no order.
        """
        found = [
            (row, token, log(chance))
            for row, chances in said.items()
            for token, chance in chances.items()
            if chance > 0.0 and token < self._vocabulary_size
        ]
        if not found:
            return
        values = logits.known_of(0)
        rows, tokens, logs = (
            torch.tensor(column, device=values.device) for column in zip(*found, strict=True)
        )
        if logits.some is not None:
            ids = logits.some.ids
            columns = torch.searchsorted(ids, tokens).clamp_(max=len(ids) - 1)
            is_said = ids[columns] == tokens
            rows, tokens, logs = rows[is_said], columns[is_said], logs[is_said]
        sums = (values / self._temperature).logsumexp(dim=1)
        by_model = values[rows, tokens] / self._temperature
        values[rows, tokens] = torch.logaddexp(by_model, sums[rows] + logs) * self._temperature
