"""Rows of one forward pass of a block drafter: text, guesses, and mask slots behind some of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor

from paceline.engine.rows import COMMITTED_END
from paceline.tokens import TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """What one place of the text says about the positions behind it."""

    end: int
    """Length of the text up to there, with the guesses that it stands on."""
    path: tuple[TokenId, ...]
    """The last tokens of that text: those that were not committed when this was made, or by the last `after`."""
    values: Tensor
    """Logits of the positions from there on, [depth, W], over the tokens that the model can say."""

    @property
    def depth(self) -> int:
        """Positions that it knows something about, the next one included."""
        return len(self.values)

    def reaches(self, length: int, path: tuple[TokenId, ...]) -> bool:
        """Whether it knows something about the position after a text; one that it does not stand on does not count.

        Args:
            length: of the text, guesses included.
            path: its guesses, all that is not committed.
        """
        return 0 <= length - self.end < self.depth and path[: len(self.path)] == self.path

    def after(self, tokens: Sequence[TokenId], *, length: int) -> Block | None:
        """Return the same after more was committed; None if it is of no more use.

        Args:
            tokens: what was committed since.
            length: of the committed text.
        """
        common = min(len(tokens), len(self.path))
        if length >= self.end + self.depth or self.path[:common] != tuple(tokens[:common]):
            return None
        return replace(self, path=self.path[common:]) if common else self


@dataclass(slots=True, kw_only=True)
class BlockRows:
    """Rows in a tree. Those of one token after the same others are one row."""

    first_slot: int
    """Id of the first mask slot; those of the others follow."""
    tokens: list[TokenId] = field(default_factory=list)
    parents: list[int] = field(default_factory=list)
    ends: list[list[int]] = field(default_factory=list)
    """Of each path that was added, the rows of its last token and of its slots."""
    _index: dict[tuple[int, TokenId], int] = field(default_factory=dict)

    def add(self, path: Sequence[TokenId], *, num_slots: int) -> None:
        """Add what is missing of a path, and slots behind it."""
        end = COMMITTED_END
        for token in path:
            end = self._add(end, token)
        rows = [end]
        for number in range(num_slots):
            end = self._add(end, TokenId(self.first_slot + number))
            rows.append(end)
        self.ends.append(rows)

    def _add(self, parent: int, token: TokenId) -> int:
        known = self._index.get((parent, token))
        if known is not None:
            return known
        self.tokens.append(token)
        self.parents.append(parent)
        self._index[parent, token] = row = len(self.tokens) - 1
        return row
