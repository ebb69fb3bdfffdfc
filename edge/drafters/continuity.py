"""What tends to follow what, learned from committed text: it decides between tokens that a block of guesses leaves open.

The positions of a block are guessed apart: each knows the text before the block, none knows which token the one before it became.
So "in New" and "in the York" are as likely as they are wrong. What followed the last tokens elsewhere in the text, or in answers
before it, tells which tokens go together.

Source: "DART" (arXiv 2601.19278), whose tree search adds 0.5 log p of an n-gram model to a path's score.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import log

from edge.drafters.suffix import SuffixDraft
from paceline.ngram.history import LONGEST
from paceline.ngram.rules import blended
from paceline.tokens import TokenId

WEIGHT = 0.5
"""Of the logarithm of a token's chance by the text, beside its logit."""
FLOOR = 0.01
"""Chance of a token that followed nowhere: what is less likely by the text gains nothing."""


class Continuity(SuffixDraft):
    """The index of one text and of the answers before it: the suffix n-gram's own, asked for all tokens and not for the best."""

    def learn(self, committed: Sequence[TokenId]) -> None:
        """Learn all of a committed text that is new."""
        while self._learn(committed):
            pass

    def gains(self, end: Sequence[TokenId]) -> dict[TokenId, float]:
        """Return what to add to the logits of tokens that followed where a text ended like this; all others gain nothing.

        Args:
            end: the last tokens of the text, guesses among them.
        """
        return {
            token: WEIGHT * log(chance / FLOOR)
            for token, chance in self.chances(end).items()
            if chance > FLOOR
        }

    def chances(self, end: Sequence[TokenId]) -> dict[TokenId, float]:
        """Return the chance of each token that followed where a text ended like this; what is missing to 1 is that of all others.

        Args:
            end: as in `gains`.
        """
        end = end[-LONGEST:]
        found = list(self._history.matches(end))
        if self._memory is not None:
            found.extend(self._memory.matches(end))
        return blended(found)
