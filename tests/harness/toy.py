"""A target and drafters that need no model: the next token is a function of the whole text."""

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from paceline.session.offer import Offer
from paceline.tokens import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyTarget:
    """Draws the next token by hashing the text, so that any slip changes everything after it."""

    vocabulary_size: int = 24
    seed: int = 0

    def draw(self, text: Sequence[TokenId]) -> TokenId:
        """Return the token after `text`."""
        return TokenId(_hash(self.seed, text) % self.vocabulary_size)

    def run(self, text: Sequence[TokenId], count: int) -> tuple[TokenId, ...]:
        """Return the `count` tokens after `text`: the plain decoding that every session must equal."""
        grown = list(text)
        for _ in range(count):
            grown.append(self.draw(grown))
        return tuple(grown[len(text) :])

    def walk(self, text: Sequence[TokenId], offer: Offer) -> tuple[TokenId, ...]:
        """Return what one step draws over `offer`: down the tree as long as it guessed right, and one token more."""
        children = {
            (parent, token): row
            for row, (parent, token) in enumerate(zip(offer.parents, offer.tokens, strict=True))
        }
        grown, row = list(text), -1
        while True:
            token = self.draw(grown)
            grown.append(token)
            if (row, token) not in children:
                return tuple(grown[len(text) :])
            row = children[row, token]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToyDrafter:
    """Guesses what `target` draws: right with probability `accuracy`, by a hash of the text; else surely wrong."""

    target: ToyTarget
    accuracy: float
    seed: int = 1

    def guess(self, text: Sequence[TokenId]) -> TokenId:
        """Return the guess for the token after `text`."""
        right = self.target.draw(text)
        if _hash(self.seed, text) % 10_000 < self.accuracy * 10_000:
            return right
        return TokenId((right + 1) % self.target.vocabulary_size)

    def chain(self, text: Sequence[TokenId], count: int) -> tuple[TokenId, ...]:
        """Return the guesses for the `count` tokens after `text`."""
        grown = list(text)
        for _ in range(count):
            grown.append(self.guess(grown))
        return tuple(grown[len(text) :])


def _hash(seed: int, text: Sequence[TokenId]) -> int:
    return zlib.crc32(struct.pack(f"<{len(text) + 1}I", seed, *text))
