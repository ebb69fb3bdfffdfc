"""One text in the cache: committed rows, pending rows on top, and what it shares with others.

    position   0 ............... shared_length ............ length
               [ segments of the prefix tree ][ own buffer, committed ][ own buffer, pending ]

Pending rows lie behind the committed ones in order of arrival. A commit moves the rows it keeps down, which touches
those rows only. The first part of the own buffer may itself be a segment that others see (`own_segment`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from paceline.engine.prefix import Segment
from paceline.engine.rows import COMMITTED_END, RowGroup
from paceline.errors import LocalProtocolError
from paceline.tokens import Position, TokenId


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingRow:
    """A row that is in the cache but not committed."""

    token: TokenId
    parent: int
    """Pending index, or -1 for the committed end."""
    lineage: tuple[int, ...]
    """Pending indices from the first ancestor down to the row itself."""

    @property
    def depth(self) -> int:
        """Pending ancestors."""
        return len(self.lineage) - 1


class CacheSequence:
    """A handle made by `Engine.open`. Callers read it; only the engine changes it."""

    def __init__(
        self,
        *,
        prompt: Sequence[TokenId],
        max_length: int,
        max_pending: int,
        namespace: str | None,
    ) -> None:
        self.prompt = tuple(prompt)
        self.max_length = max_length
        self.max_pending = max_pending
        self.is_open = True
        self.buffer: Tensor
        self.namespace = namespace
        self.views: list[tuple[Segment, int]] = []
        self.own_segment: Segment | None = None
        self.own_tokens: list[TokenId] = []
        self.pending: list[PendingRow] = []

    @property
    def shared_length(self) -> int:
        """Leading tokens whose rows lie in segments of others."""
        return sum(used for _, used in self.views)

    @property
    def length(self) -> Position:
        """Committed length: rows that are computed and final.

        Grows by itself while another sequence computes rows of the prompt, but never over the prompt's last token.
        """
        position = 0
        for segment, used in self.views:
            position += min(segment.filled, used)
            if segment.filled < used:
                return Position(position)
        return Position(position + len(self.own_tokens))

    @property
    def min_length(self) -> Position:
        """No rollback goes below: rows up to here are shared, or may come to be."""
        own = len(self.own_segment.tokens) if self.own_segment is not None else 0
        return Position(self.shared_length + own)

    @property
    def num_own_rows(self) -> int:
        """Rows of the own buffer that hold something."""
        filled = self.own_segment.filled if self.own_segment is not None else 0
        return max(len(self.own_tokens) + self.num_pending, filled)

    @property
    def num_pending(self) -> int:
        """Rows written since the last commit and not freed."""
        return len(self.pending)

    @property
    def waiting_for_prefix(self) -> bool:
        """Another sequence is about to compute rows of this prompt. It has nothing to run until then."""
        own = self.own_segment
        if own is not None and own.writer not in (None, self):
            return True
        return any(
            segment.filled < used and segment.writer is not self for segment, used in self.views
        )

    @property
    def num_to_prefill(self) -> int:
        """Prompt tokens that this sequence has to run itself, as things stand; at least 1 until it ran the last."""
        own = len(self.prompt) - self.shared_length - len(self.own_tokens)
        segment = self.own_segment
        if segment is not None and segment.writer not in (None, self):
            own = 1
        taken_over = sum(
            max(0, used - segment.filled) for segment, used in self.views if segment.writer is self
        )
        return max(0, own) + taken_over

    @property
    def committed_tokens(self) -> tuple[TokenId, ...]:
        """The tokens of all committed rows."""
        length = self.length
        shared = self.prompt[: min(self.shared_length, length)]
        return shared + tuple(self.own_tokens)

    @property
    def pending_tokens(self) -> tuple[TokenId, ...]:
        """Tokens of the pending rows in order of their indices."""
        return tuple(row.token for row in self.pending)

    @property
    def pending_parents(self) -> tuple[int, ...]:
        """Parents of the pending rows in order of their indices."""
        return tuple(row.parent for row in self.pending)

    def prefill_group(self, max_rows: int) -> RowGroup:
        """The next rows of the prompt, at most `max_rows`; with logits of the last row if they end the prompt.

        Raises:
            LocalProtocolError: there is nothing to prefill, or `waiting_for_prefix`.
        """
        if self.waiting_for_prefix or self.num_to_prefill == 0 or max_rows < 1:
            raise LocalProtocolError(
                f"prefill_group: got max_rows {max_rows} with {self.num_to_prefill} tokens to prefill, waiting for a "
                f"prefix: {self.waiting_for_prefix}; expected at least one of each, not waiting"
            )
        length = self.length
        tokens = self.prompt[length : length + max_rows]
        ends = length + len(tokens) == len(self.prompt)
        return RowGroup(
            sequence=self, tokens=tokens, logits="last" if ends else "none", commit=True
        )

    def lineage_of(self, parent: int) -> tuple[int, ...]:
        """Pending indices from the first ancestor down to `parent`."""
        return () if parent == COMMITTED_END else self.pending[parent].lineage
