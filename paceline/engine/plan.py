"""Where the rows of a step go and what they see, worked out once and used by every layer.

Shape suffixes: N = rows of a group; K = keys it may see; Q = query heads per key head.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paceline.engine.rows import RowGroup
from paceline.engine.sequence import CacheSequence, PendingRow

FOLD_MAX_ROWS = 16
"""Groups up to this size fold the query heads of a key head into rows: one small matrix per key head instead of
several. Larger groups gain nothing and would pay for a mask that is Q times as large."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Consecutive rows of a group and the consecutive slots they are written to."""

    storage: Tensor
    slot: int
    start: int
    """First row, counted over the whole step."""
    num_rows: int

    def targets(self) -> tuple[Tensor, ...]:
        """Per layer the slots, [2, kv heads, rows, head dim]."""
        return self.storage.narrow(3, self.slot, self.num_rows).unbind(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """What a group sees in layers of one window. Outer index: storage; inner: layer."""

    keys: tuple[tuple[Tensor, ...], ...]
    """[kv heads, keys, head dim]."""
    values: tuple[tuple[Tensor, ...], ...]
    mask: Tensor | None
    """Added to scores: 0 or -inf. None: every row sees every key."""
    folded_masks: tuple[Tensor | None, ...]
    """The same with each row repeated Q times, cut into one part per storage; a part is None if it hides nothing.
    Empty for a large group that sees one storage: it does not fold."""


@dataclass(slots=True, kw_only=True)
class GroupPlan:
    """One group of a step."""

    group: RowGroup
    start: int
    stop: int
    pending: tuple[PendingRow, ...]
    """What becomes pending after the step; empty for a group that commits."""
    runs: tuple[Run, ...]
    reads: tuple[tuple[Tensor, int], ...]
    """Storages in order of position and how many of their leading rows are seen."""
    positions: NDArray[np.int64]
    length: int
    """Committed rows before the step."""
    new_visible: NDArray[np.bool_]
    """[N, keys that are not committed]: the last columns of the full mask; all others are seen."""
    queries_per_key: int
    _views: dict[int | None, View] = field(default_factory=dict)

    @property
    def folds(self) -> bool:
        """Small enough to fold query heads into rows."""
        return self.stop - self.start <= FOLD_MAX_ROWS

    def view(self, window: int | None) -> View:
        """Keys, values and mask for layers in which a row sees only `window` positions, its own included."""
        view = self._views.get(window)
        if view is None:
            view = self._views[window] = self._make_view(window)
        return view

    def _make_view(self, window: int | None) -> View:
        num_committed = self.length
        first = 0
        if window is not None:
            first = min(max(0, int(self.positions.min()) - window + 1), num_committed)
        keys, values = [], []
        skip = first
        for storage, num_rows in self.reads:
            if skip < num_rows:
                keys.append(storage[:, 0, :, skip:num_rows].unbind(0))
                values.append(storage[:, 1, :, skip:num_rows].unbind(0))
            skip = max(0, skip - num_rows)
        mask = self._mask(window, first, num_committed)
        folded: tuple[Tensor | None, ...] = ()
        if self.folds or len(keys) > 1:
            folded = self._fold_mask(mask, [piece[0].shape[1] for piece in keys])
        return View(keys=tuple(keys), values=tuple(values), mask=mask, folded_masks=folded)

    def _key_positions(self) -> NDArray[np.int64]:
        """[K]; before the step's rows are registered."""
        if self.group.commit:
            return np.arange(self.length + len(self.positions))
        depths = [row.depth for row in self.group.sequence.pending]
        pending = self.length + np.array(depths, dtype=np.int64)
        return np.concatenate((np.arange(self.length), pending, self.positions))

    def _fold_mask(self, mask: Tensor | None, lengths: list[int]) -> tuple[Tensor | None, ...]:
        if mask is None:
            return (None,) * len(lengths)
        parts = torch.split(mask.repeat_interleave(self.queries_per_key, dim=0), lengths, dim=1)
        if len(parts) == 1:
            return parts
        return tuple(part.contiguous() if part.any() else None for part in parts)

    def _mask(self, window: int | None, first: int, num_committed: int) -> Tensor | None:
        near_NK: NDArray[np.bool_] | None = None
        if window is not None:
            distance_NK = self.positions[:, None] - self._key_positions()[None, first:]
            near_NK = distance_NK < window
            if near_NK.all():
                near_NK = None
        if near_NK is None and self.new_visible.all():
            return None
        num_rows, num_new = self.new_visible.shape
        visible_NK = np.ones((num_rows, num_committed - first + num_new), dtype=np.bool_)
        visible_NK[:, num_committed - first :] = self.new_visible
        if near_NK is not None:
            visible_NK &= near_NK
        storage = self.reads[0][0]
        mask = torch.zeros(visible_NK.shape, dtype=storage.dtype)
        mask.masked_fill_(torch.from_numpy(~visible_NK), float("-inf"))
        return mask.to(storage.device)


def plan_group(group: RowGroup, *, start: int, queries_per_key: int) -> GroupPlan:
    """Plan a group whose rows begin at row `start` of the step."""
    sequence, num_rows = group.sequence, len(group.tokens)
    length = sequence.length
    if group.commit:
        pending: tuple[PendingRow, ...] = ()
        depths: Sequence[int] = range(num_rows)
        num_before = 0
        new_visible = np.tri(num_rows, dtype=np.bool_)
        runs = _commit_runs(sequence, start=start, num_rows=num_rows)
    else:
        pending = _new_pending(group)
        depths = [row.depth for row in pending]
        num_before = sequence.num_pending
        new_visible = np.zeros((num_rows, num_before + num_rows), dtype=np.bool_)
        for index, row in enumerate(pending):
            new_visible[index, list(row.lineage)] = True
        slot = len(sequence.own_tokens) + num_before
        runs = (Run(storage=sequence.buffer, slot=slot, start=start, num_rows=num_rows),)
    return GroupPlan(
        group=group,
        start=start,
        stop=start + num_rows,
        pending=pending,
        runs=runs,
        reads=_reads(sequence, num_keys=length + num_before + num_rows),
        positions=length + np.asarray(depths, dtype=np.int64),
        length=length,
        new_visible=new_visible,
        queries_per_key=queries_per_key,
    )


def _new_pending(group: RowGroup) -> tuple[PendingRow, ...]:
    """The rows of a group as pending rows with their lineages."""
    sequence = group.sequence
    base = sequence.num_pending
    parents = group.parents
    if parents is None:
        parents = (-1, *range(base, base + len(group.tokens) - 1))
    rows: list[PendingRow] = []
    for index, (token, parent) in enumerate(zip(group.tokens, parents, strict=True), start=base):
        above = rows[parent - base].lineage if parent >= base else sequence.lineage_of(parent)
        rows.append(PendingRow(token=token, parent=parent, lineage=(*above, index)))
    return tuple(rows)


def _commit_runs(sequence: CacheSequence, *, start: int, num_rows: int) -> tuple[Run, ...]:
    """Slots for rows at the committed end: unfilled segments that the sequence took over, then its own buffer."""
    runs: list[Run] = []
    end = start + num_rows
    for segment, used in sequence.views:
        count = min(used - segment.filled, end - start)
        if count > 0:
            runs.append(
                Run(storage=segment.storage, slot=segment.filled, start=start, num_rows=count)
            )
            start += count
    if start < end:
        slot = len(sequence.own_tokens)
        runs.append(Run(storage=sequence.buffer, slot=slot, start=start, num_rows=end - start))
    return tuple(runs)


def _reads(sequence: CacheSequence, *, num_keys: int) -> tuple[tuple[Tensor, int], ...]:
    """The storages that hold the first `num_keys` rows of a sequence."""
    reads: list[tuple[Tensor, int]] = []
    for segment, used in sequence.views:
        count = min(used, num_keys)
        if count > 0:
            reads.append((segment.storage, count))
        num_keys -= count
    if num_keys > 0:
        reads.append((sequence.buffer, num_keys))
    return tuple(reads)
