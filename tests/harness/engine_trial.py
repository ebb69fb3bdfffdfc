"""Runs random programs on an engine and checks every logit against a plain forward of the row's own path."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from hypothesis import strategies as st

from paceline.engine.engine import Engine
from paceline.engine.rows import RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.errors import OverloadedError
from paceline.tokens import TokenId

MAX_LENGTH = 40
MAX_PENDING = 12


class Reference:
    """Logits by plain forwards of whole texts."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def logits(self, text: tuple[int, ...]) -> torch.Tensor:
        """Logits [V] behind the last token of `text`."""
        if text not in self._known:
            with torch.inference_mode():
                rows = self._model(torch.tensor([text]), use_cache=False).logits[0].float()
            for index in range(len(text)):
                self._known[text[: index + 1]] = rows[index]
        return self._known[text]


@dataclass(slots=True, eq=False)
class Mirror:
    """What a sequence should hold, kept in the plainest way."""

    handle: CacheSequence
    reserved_rows: int
    buffer_address: int
    committed: list[int] = field(default_factory=list)
    pending: list[tuple[int, int]] = field(default_factory=list)
    """(token, parent)."""

    def text(self, index: int) -> tuple[int, ...]:
        """The whole text that ends in a pending row."""
        tail: list[int] = []
        while index >= 0:
            token, index = self.pending[index]
            tail.append(token)
        return (*self.committed, *reversed(tail))


class Trial:
    """One program; every operation draws its own arguments."""

    def __init__(
        self, engine: Engine, reference: Reference, *, tolerance: float, draw: Any, prompts: Any
    ) -> None:
        self.engine = engine
        self.reference = reference
        self.tolerance = tolerance
        self.draw = draw
        self.prompts = prompts
        self.open: list[Mirror] = []
        self.num_checked = 0
        self.num_shared = 0
        self.num_waited = 0

    def run(self, num_operations: int) -> None:
        operations = [
            *[self.do_forward] * 4,
            self.do_open,
            self.do_open,
            self.do_commit,
            self.do_commit,
            self.do_rollback,
            self.do_close,
            self.do_take_over,
        ]
        try:
            self.do_open()
            for _ in range(num_operations):
                self.draw(st.sampled_from(operations))()
                self.check_memory()
        finally:
            for mirror in self.open:
                self.engine.close(mirror.handle)
            self.engine.clear_prefixes()
        memory = self.engine.memory
        assert (memory.reserved, memory.used, memory.shared) == (0, 0, 0)

    def do_open(self) -> None:
        if len(self.open) >= 4:
            return
        prompt = self.draw(self.prompts)
        tenant = self.draw(st.sampled_from(["", "a", "a", "a", "b"]))
        before = self.engine.memory
        try:
            handle = self.engine.open(
                max_length=MAX_LENGTH, max_pending=MAX_PENDING, prompt=prompt, tenant=tenant
            )
        except OverloadedError:
            assert self.engine.memory.reserved == before.reserved
            return
        self.num_shared += handle.shared_length > 0
        self.num_waited += handle.waiting_for_prefix
        rows = MAX_LENGTH - handle.shared_length + MAX_PENDING
        assert handle.shared_length < max(1, len(prompt))
        assert tenant or handle.shared_length == 0
        mirror = Mirror(handle, rows, handle.buffer.data_ptr())
        if not handle.views:
            mirror.committed = list(handle.committed_tokens)  # it may have been copied
        self.open.append(mirror)

    def do_forward(self) -> None:
        groups: list[RowGroup] = []
        checks: list[list[tuple[int, ...]]] = []
        for mirror in self.open:
            handle = mirror.handle
            if handle.waiting_for_prefix or self.draw(st.sampled_from([0, 0, 0, 1])):
                continue
            if handle.num_to_prefill:
                self._prefill(mirror, groups, checks)
            else:
                self._grow(mirror, groups, checks)
        if not groups:
            return
        written = self.engine.work.rows_written
        logits = self.engine.forward(groups)
        assert self.engine.work.rows_written - written == sum(len(item.tokens) for item in groups)
        for index, texts in enumerate(checks):
            values = logits.of(index)
            assert len(values) == len(texts)
            for value, text in zip(values, texts, strict=True):
                error = float((value - self.reference.logits(text)).abs().max())
                assert error <= self.tolerance, (text, error)
                self.num_checked += 1

    def _prefill(self, mirror: Mirror, groups: list[RowGroup], checks: list[Any]) -> None:
        handle = mirror.handle
        group = handle.prefill_group(self.draw(st.sampled_from([2, 7, 30])))
        groups.append(group)
        mirror.committed = [*handle.prompt[: handle.length], *group.tokens]
        checks.append([tuple(mirror.committed)] if group.logits == "last" else [])

    def _grow(self, mirror: Mirror, groups: list[RowGroup], checks: list[Any]) -> None:
        base = len(mirror.pending)
        room = MAX_LENGTH - len(mirror.committed)
        num_rows = self.draw(st.integers(1, 5))
        if base + num_rows > MAX_PENDING:
            return
        start_pending = list(mirror.pending)
        tokens: list[TokenId] = []
        parents: list[int] = []
        for _ in range(num_rows):
            parent = self.draw(st.integers(-1, len(mirror.pending) - 1))
            if len(mirror.text(parent)) - len(mirror.committed) + 1 > room:
                mirror.pending = start_pending
                return
            token = self.draw(st.integers(4, 12))
            tokens.append(TokenId(token))
            parents.append(parent)
            mirror.pending.append((token, parent))
        wanted = self.draw(st.sampled_from(["all", "all", "last", "none"]))
        groups.append(
            RowGroup(sequence=mirror.handle, tokens=tokens, parents=parents, logits=wanted)
        )
        texts = [mirror.text(index) for index in range(base, base + num_rows)]
        checks.append({"all": texts, "last": texts[-1:], "none": []}[wanted])

    def do_commit(self) -> None:
        for mirror in self.open:
            if not mirror.pending:
                continue
            path: list[int] = []
            end = -1
            while self.draw(st.booleans()):
                children = [i for i, (_, parent) in enumerate(mirror.pending) if parent == end]
                if not children:
                    break
                end = self.draw(st.sampled_from(children))
                path.append(end)
            keep: list[int] = []
            for index, (_, parent) in enumerate(mirror.pending):
                if parent in {end, *keep} and index not in path and self.draw(st.booleans()):
                    keep.append(index)
            moved = self.engine.work.rows_moved
            self.engine.commit(mirror.handle, path, keep)
            assert self.engine.work.rows_moved - moved <= len(path) + len(keep)
            mirror.committed = list(mirror.text(end))
            numbers = {end: -1} | {old: new for new, old in enumerate(keep)}
            mirror.pending = [
                (mirror.pending[old][0], numbers[mirror.pending[old][1]]) for old in keep
            ]

    def do_rollback(self) -> None:
        for mirror in self.open:
            handle = mirror.handle
            if handle.length > handle.min_length and self.draw(st.booleans()):
                length = self.draw(st.integers(handle.min_length, handle.length))
                self.engine.rollback(handle, length)
                mirror.committed = mirror.committed[:length]
                mirror.pending = []

    def do_close(self) -> None:
        if self.open:
            index = self.draw(st.integers(0, len(self.open) - 1))
            self.engine.close(self.open.pop(index).handle)

    def do_take_over(self) -> None:
        for mirror in self.open:
            if mirror.handle.waiting_for_prefix and self.draw(st.booleans()):
                self.engine.take_over(mirror.handle)
                assert not mirror.handle.waiting_for_prefix

    def check_memory(self) -> None:
        memory = self.engine.memory
        rows = sum(mirror.reserved_rows for mirror in self.open)
        assert memory.reserved == rows * self.engine.row_bytes
        assert memory.reserved + memory.shared <= memory.budget
        assert memory.used <= memory.reserved + memory.shared
        for mirror in self.open:
            handle = mirror.handle
            assert handle.buffer.data_ptr() == mirror.buffer_address
            assert handle.pending_parents == tuple(parent for _, parent in mirror.pending)
            # Another sequence may have filled more of a shared prefix since.
            length = len(mirror.committed)
            assert handle.committed_tokens[:length] == tuple(mirror.committed)
            assert handle.length >= length
            assert handle.length == length or handle.length <= handle.min_length
            for segment, used in handle.views:
                if segment.filled < used:
                    # Somebody computes it who needs it himself, so nobody waits for ever.
                    writer = segment.writer
                    assert writer is not None
                    assert writer.is_open
                    assert writer is segment.owner or segment.users[writer] > segment.filled
