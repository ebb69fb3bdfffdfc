"""What the target would draw if a drafter's logits were its own: the same filters, the same noise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from edge.drafters.confidence import chance_of, shares
from paceline.drafter import Guess
from paceline.engine.rows import Logits
from paceline.sampling.coupled import Ranking, Sampler
from paceline.sampling.ranking import RowRanker, can_rank
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import Position, TokenId


class Drawing:
    """Draws for one generation.

    Args:
        sampling: the target's.
        prompt_length: penalties count what comes after.
        vocabulary_size: ids of the target that the logits are of; those beyond are ignored.
    """

    def __init__(
        self, sampling: SamplingSettings, *, prompt_length: int, vocabulary_size: int
    ) -> None:
        self._sampling = sampling
        self._prompt_length = prompt_length
        self._vocabulary_size = vocabulary_size
        self._has_penalties = (
            sampling.repetition_penalty != 1.0
            or sampling.presence_penalty != 0.0
            or sampling.frequency_penalty != 0.0
        )
        self._sampler: Sampler | None = None
        self._ranker: RowRanker | None = None

    def drawn(self, logits: Tensor, text: Sequence[TokenId]) -> Guess:
        """Return the token after a text, given logits [V]; the larger the margin to the next one, the surer.

        Raises:
            ModelError: the logits are not finite.
        """
        ranking = self._ranking(logits, text, k=1)
        return Guess(token=ranking.tokens[0], chance=chance_of(ranking.margin))

    def ranked(self, logits: Tensor, text: Sequence[TokenId], *, width: int) -> tuple[Guess, ...]:
        """Return the `width` likeliest tokens after a text, given logits [V]; a chance is a share among them and one more.

        Raises:
            ModelError: the logits are not finite.
        """
        ranking = self._ranking(logits, text, k=width + 1)
        return shares(ranking.tokens, ranking.scores, width=width)

    def drawn_last(self, logits: Logits, text: Sequence[TokenId], *, num_guessed: int = 0) -> Guess:
        """Return what `drawn` does, given the logits of a step's only group, the last of which are those after the text.

        Args:
            logits: of the step.
            text: with the guesses so far.
            num_guessed: how many of its last tokens are guesses.

        Raises:
            ModelError: the logits are not finite.
        """
        if not can_rank(self._sampling):
            return self.drawn(logits.of(0)[-1], text)
        self._forget_noise(len(text) - num_guessed)
        ranking = self._rankings(logits, [-1], [len(text)], k=1)[0]
        return Guess(token=ranking.tokens[0], chance=chance_of(ranking.margin))

    def ranked_leaves(
        self,
        logits: Logits,
        leaves: Mapping[int, Sequence[TokenId]],
        text: Sequence[TokenId],
        *,
        width: int,
    ) -> list[tuple[Guess, ...]]:
        """Return what `ranked` does for some leaves at once.

        Args:
            logits: of a step's only group.
            leaves: the path from the text to each, by its row in the group.
            text: committed.
            width: as in `ranked`.

        Raises:
            ModelError: the logits are not finite.
        """
        if not can_rank(self._sampling):
            whole = logits.of(0)
            return [
                self.ranked(whole[row], (*text, *path), width=width) for row, path in leaves.items()
            ]
        self._forget_noise(len(text))
        lengths = [len(text) + len(path) for path in leaves.values()]
        found = self._rankings(logits, list(leaves), lengths, k=width + 1)
        return [shares(one.tokens, one.scores, width=width) for one in found]

    def _rankings(
        self, logits: Logits, rows: list[int], lengths: Sequence[int], *, k: int
    ) -> list[Ranking]:
        positions = [Position(one) for one in lengths]
        return self._row_ranker(logits).rank(self._wanted(logits, rows), positions=positions, k=k)

    def _forget_noise(self, num_committed: int) -> None:
        """Keep the noise of committed positions no longer: it would fill the memory for that of the next ones."""
        if self._ranker is not None:
            self._ranker.forget_before(Position(num_committed))

    def _row_ranker(self, logits: Logits) -> RowRanker:
        if self._ranker is None:
            tokens = self._known_tokens(logits)
            self._ranker = RowRanker(self._sampling, tokens_W=tokens)
        return self._ranker

    def _known_tokens(self, logits: Logits) -> Tensor:
        """The tokens of the target that the logits' first columns are of, ascending."""
        values = logits.values
        tokens = torch.arange(values.shape[1]) if logits.some is None else logits.some.ids
        return tokens[tokens < self._vocabulary_size].to(values.device)

    def _wanted(self, logits: Logits, rows: list[int]) -> Tensor:
        """Some rows of the step's only group, without a copy where those are all."""
        known = logits.known_of(0)
        return known if len(rows) == len(known) and rows[0] == 0 else known[rows]

    def _ranking(self, logits: Tensor, text: Sequence[TokenId], *, k: int) -> Ranking:
        if self._sampler is None:
            self._sampler = Sampler(
                self._sampling, vocabulary_size=self._vocabulary_size, device=logits.device
            )
        # All output goes in as the row's path: what is committed differs from call to call.
        path = tuple(text[self._prompt_length :]) if self._has_penalties else ()
        return self._sampler.rank(logits, position=Position(len(text)), k=k, path=path)
