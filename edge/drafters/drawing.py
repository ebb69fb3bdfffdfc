"""What the target would draw if a drafter's logits were its own: the same filters, the same noise."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from edge.drafters.confidence import chance_of, shares
from paceline.drafter import Guess
from paceline.sampling.coupled import Ranking, Sampler
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

    def _ranking(self, logits: Tensor, text: Sequence[TokenId], *, k: int) -> Ranking:
        if self._sampler is None:
            self._sampler = Sampler(
                self._sampling, vocabulary_size=self._vocabulary_size, device=logits.device
            )
        # All output goes in as the row's path: what is committed differs from call to call.
        path = tuple(text[self._prompt_length :]) if self._has_penalties else ()
        return self._sampler.rank(logits, position=Position(len(text)), k=k, path=path)
