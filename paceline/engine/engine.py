"""A causal language model with a rollback cache.

`Engine.forward` runs rows of many sequences at once, packed into one matrix; each row sees the committed text of its
sequence, its ancestors among the pending rows, and itself. `commit` makes a path of pending rows final and frees the
rest; `rollback` shortens committed text. One thread uses an engine, always the same one.

Arithmetic: weights and activations are float32 or bfloat16; logits become float32 after the output matrix. The same
row gives logits that differ in the last bits with the shape of the batch it rides in.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy, deepcopy
from typing import Any

import torch
from torch import Tensor

from paceline.clock import MonotonicClock
from paceline.engine.attention import STEP_KEYWORD, AttentionBackend, SdpaBackend
from paceline.engine.cache import RollbackCache
from paceline.engine.check import check_commit, check_groups, check_open, check_rollback
from paceline.engine.partial_head import PartialHead, limited
from paceline.engine.plan import GroupPlan, plan_group
from paceline.engine.probe import probe
from paceline.engine.rows import (
    COMMITTED_END,
    EngineSettings,
    Logits,
    MemoryStats,
    RowGroup,
    StepSplit,
    WorkCounters,
)
from paceline.engine.sequence import CacheSequence, PendingRow
from paceline.engine.step import Step
from paceline.errors import ModelError
from paceline.messages import ModelIdentity
from paceline.tokens import TokenId


class Engine:
    """See the module. Made by `load_model`."""

    def __init__(
        self,
        model: Any,
        *,
        identity: ModelIdentity,
        settings: EngineSettings | None = None,
        backend: AttentionBackend | None = None,
    ) -> None:
        """Wrap a transformers model in evaluation mode that was loaded with our attention.

        Raises:
            ModelError: the model caches something that the engine cannot.
        """
        self.identity = identity
        self._model = model
        self._layout, self._queries_per_key = probe(model)
        self._settings = settings or EngineSettings()
        self._cache = RollbackCache(layout=self._layout, settings=self._settings)
        self._backend = backend or SdpaBackend()
        self._clock = MonotonicClock()
        self.reset_counters()
        self._head_start_ns = 0
        self._hidden: Tensor | None = None
        model.get_output_embeddings().register_forward_pre_hook(self._note_head)

    @property
    def memory(self) -> MemoryStats:
        """Bytes of the cache just now."""
        return self._cache.memory

    @property
    def device(self) -> torch.device:
        """Where logits are."""
        return self._layout.device

    @property
    def row_bytes(self) -> int:
        """Cache memory of one row."""
        return self._layout.row_bytes

    @property
    def step_split(self) -> StepSplit:
        """Where the time of all steps since the warm-up went; subtract two to look at some steps."""
        plan_ns, attention_ns, head_ns, linear_ns = self._spent_ns
        return StepSplit(
            num_steps=self._num_steps,
            num_rows=self._rows_written,
            plan_ns=plan_ns,
            attention_ns=attention_ns,
            head_ns=head_ns,
            linear_ns=linear_ns,
        )

    @property
    def work(self) -> WorkCounters:
        """Rows written, moved and copied since the warm-up."""
        return WorkCounters(
            rows_written=self._rows_written,
            rows_moved=self._rows_moved,
            rows_copied=self._cache.rows_copied,
        )

    def open(
        self,
        *,
        max_length: int,
        max_pending: int,
        prompt: Sequence[TokenId] = (),
        tenant: str = "",
    ) -> CacheSequence:
        """Open a sequence and reserve all memory it can ever need beyond what it shares.

        Args:
            max_length: most tokens of text; no row may have a position at or beyond it.
            max_pending: most rows written and not yet committed.
            prompt: the text to be prefilled; its beginning is taken from the prefix cache as far as it is there, its
                last token never. Prefill with `CacheSequence.prefill_group`. Empty: there is none, any rows may come.
            tenant: whose prefixes it may share; see `EngineSettings.sharing`.

        Raises:
            InvalidRequestError: longer than the model's context, or a token outside its vocabulary.
            OverloadedError: the memory budget does not allow it now.
        """
        check_open(self.identity, max_length=max_length, max_pending=max_pending, prompt=prompt)
        return self._cache.open(
            max_length=max_length, max_pending=max_pending, prompt=prompt, tenant=tenant
        )

    @torch.inference_mode()
    def forward(self, groups: Sequence[RowGroup]) -> Logits:
        """Run rows of any number of sequences in one step, each sequence in at most one group.

        Nothing changes if this raises.

        Raises:
            LocalProtocolError: a group breaks a rule of `RowGroup`; the message names it.
        """
        check_groups(self.identity, groups)
        started_ns = self._clock.now_ns()
        plans: list[GroupPlan] = []
        tokens: list[TokenId] = []
        for group in groups:
            plans.append(
                plan_group(group, start=len(tokens), queries_per_key=self._queries_per_key)
            )
            tokens.extend(group.tokens)
        wanted, offsets = _wanted_rows(plans)
        positions = [position for plan in plans for position in plan.positions.tolist()]
        rows = torch.tensor([tokens, positions], device=self._layout.device)
        step = Step(tuple(plans), backend=self._backend, clock=self._clock)
        planned_ns = self._clock.now_ns()
        values = self._run(rows[:1], rows[1:], wanted, step)
        ended_ns = self._clock.now_ns()
        self._register(plans)
        self._count(step, len(tokens), started_ns, planned_ns, ended_ns, has_head=bool(wanted))
        head = self._model.get_output_embeddings()
        some = head.tokens if isinstance(head, PartialHead) else None
        hidden, self._hidden = self._hidden, None
        return Logits(values=values, offsets=offsets, some=some, hidden=hidden)

    def commit(
        self, sequence: CacheSequence, path: Sequence[int], keep: Sequence[int] = ()
    ) -> None:
        """Make pending rows final and free all others but `keep`.

        Args:
            sequence: an open sequence.
            path: pending indices from a child of the committed end down, each the child of the one before. May be empty.
            keep: rows that stay pending, below the end of the path, parents before children; they are renumbered
                0, 1, 2 ... in this order.

        Raises:
            LocalProtocolError: not such a path or such rows.
        """
        check_commit(sequence, path, keep)
        self._rows_moved += self._move(sequence, (*path, *keep))
        tokens = [sequence.pending[index].token for index in path]
        numbers = {old: new for new, old in enumerate(keep)}
        if path:
            numbers[path[-1]] = COMMITTED_END
        numbers.setdefault(COMMITTED_END, COMMITTED_END)
        pending: list[PendingRow] = []
        for new, old in enumerate(keep):
            row = sequence.pending[old]
            parent = numbers[row.parent]
            above = pending[parent].lineage if parent != COMMITTED_END else ()
            pending.append(PendingRow(token=row.token, parent=parent, lineage=(*above, new)))
        sequence.pending = pending
        self._cache.note_committed(sequence, tokens)

    def rollback(self, sequence: CacheSequence, length: int) -> None:
        """Shorten the committed text to `length` tokens and free every pending row.

        Raises:
            LocalProtocolError: beyond the text, or below `CacheSequence.min_length`.
        """
        check_rollback(sequence, length)
        sequence.pending = []
        del sequence.own_tokens[max(0, length - sequence.shared_length) :]

    def close(self, sequence: CacheSequence) -> None:
        """Free a sequence; its text stays in the prefix cache as far as sharing allows. Closing twice does nothing."""
        if sequence.is_open:
            with torch.inference_mode():
                self._cache.close(sequence)

    def take_over(self, sequence: CacheSequence) -> None:
        """Let a sequence that waits for a prefix compute it itself, because the one it waits for does not get on."""
        self._cache.take_over(sequence)

    def clear_prefixes(self) -> None:
        """Drop every cached prefix that no open sequence uses."""
        self._cache.clear_prefixes()

    def limit_output(self, ids: Tensor, rows: Tensor | None = None) -> None:
        """From now on compute logits of some tokens only; those of all others are -inf.

        Args:
            ids: [W] the tokens.
            rows: [W, hidden] their rows of the output matrix, in any floating type; None: the model's own.

        Raises:
            ModelError: they do not fit the model.
        """
        whole = self._model.get_output_embeddings()
        try:
            head = limited(whole, ids, whole.weight[ids] if rows is None else rows)
        except ValueError as error:
            raise ModelError(f"{self.identity.name}: its partial output matrix: {error}") from error
        head.register_forward_pre_hook(self._note_head)
        self._model.set_output_embeddings(head)

    def twin(self, settings: EngineSettings | None = None) -> Engine:
        """Return another engine on the same weights, which are not copied, with an empty cache of its own.

        Args:
            settings: memory and sharing; None: those of this one.
        """
        twin = copy(self)
        # The model's own objects are copied, for it knows whom to tell of a forward pass; its tensors are not.
        known: dict[int, object] = {
            id(value): value for value in (*self._model.parameters(), *self._model.buffers())
        }
        settings = settings or self._settings
        vars(twin).update(
            _model=deepcopy(self._model, known | {id(self): twin}),
            _settings=settings,
            _cache=RollbackCache(layout=self._layout, settings=settings),
        )
        twin.reset_counters()
        return twin

    def __deepcopy__(self, memo: dict[int, object]) -> Engine:
        """See `twin`: whatever holds an engine is copied without its weights."""
        del memo
        return self.twin()

    def warm_up(self, *, num_sequences: int = 2, num_rows: int = 4) -> None:
        """Run a few steps, so that the first request does not pay for first-time work."""
        sequences = [
            self.open(max_length=2 * num_rows, max_pending=num_rows) for _ in range(num_sequences)
        ]
        try:
            for _ in range(2):
                tokens = [TokenId(0)] * num_rows
                self.forward([RowGroup(sequence=item, tokens=tokens) for item in sequences])
                for item in sequences:
                    self.rollback(item, 0)
        finally:
            for item in sequences:
                self.close(item)
        self.reset_counters()

    def reset_counters(self) -> None:
        """Let `step_split` and `work` start again."""
        self._num_steps = self._rows_written = self._rows_moved = 0
        self._spent_ns = [0, 0, 0, 0]
        """For planning, attention, the output matrix, and all else."""

    def _run(self, tokens: Tensor, positions: Tensor, wanted: Sequence[int], step: Step) -> Tensor:
        """Logits [wanted rows, V] in float32."""
        inputs = {"input_ids": tokens, "position_ids": positions, "use_cache": False}
        inputs[STEP_KEYWORD] = step
        if not wanted:
            self._model.base_model(**inputs)
            return torch.empty((0, 0), device=tokens.device)
        # Most steps want all rows; to pick them would copy them.
        is_all = len(wanted) == tokens.shape[1]
        keep = slice(None) if is_all else torch.tensor(wanted, device=tokens.device)
        output = self._model(**inputs, logits_to_keep=keep)
        logits: Tensor = output.logits[0]
        return logits.float()

    def _register(self, plans: Sequence[GroupPlan]) -> None:
        """The rows are in the cache: say so."""
        for plan in plans:
            if plan.group.commit:
                self._cache.note_committed(plan.group.sequence, plan.group.tokens)
            else:
                plan.group.sequence.pending.extend(plan.pending)

    def _move(self, sequence: CacheSequence, order: Sequence[int]) -> int:
        """Bring pending rows into a new order behind the committed ones; returns how many had to move."""
        moves = [(new, old) for new, old in enumerate(order) if new != old]
        if moves:
            base = len(sequence.own_tokens)
            new, old = (
                torch.tensor(slots, device=self._layout.device) + base
                for slots in zip(*moves, strict=True)
            )
            with torch.inference_mode():
                rows = sequence.buffer.index_select(3, old)
                sequence.buffer.index_copy_(3, new, rows)
        return len(moves)

    def _note_head(self, _: Any, inputs: tuple[Tensor, ...]) -> None:
        self._hidden = inputs[0].flatten(0, -2) if inputs else None  # by keyword: not known
        self._head_start_ns = self._clock.now_ns()

    def _count(
        self,
        step: Step,
        num_rows: int,
        started_ns: int,
        planned_ns: int,
        ended_ns: int,
        *,
        has_head: bool,
    ) -> None:
        head_ns = ended_ns - self._head_start_ns if has_head else 0
        linear_ns = ended_ns - planned_ns - step.attention_ns - head_ns
        self._num_steps += 1
        self._rows_written += num_rows
        took_ns = (planned_ns - started_ns, step.attention_ns, head_ns, linear_ns)
        for index, spent_ns in enumerate(took_ns):
            self._spent_ns[index] += spent_ns


def _wanted_rows(plans: Sequence[GroupPlan]) -> tuple[list[int], tuple[int, ...]]:
    """Rows whose logits are wanted, and where each group's begin among them."""
    wanted: list[int] = []
    offsets = [0]
    for plan in plans:
        match plan.group.logits:
            case "all":
                wanted.extend(range(plan.start, plan.stop))
            case "last":
                wanted.append(plan.stop - 1)
            case "none":
                pass
        offsets.append(len(wanted))
    return wanted, tuple(offsets)
