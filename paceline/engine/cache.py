"""Memory of the engine: who holds how many rows, what is shared, what goes when room is needed.

Every byte is in one of two accounts. `reserved`: buffers of open sequences, taken whole when they open, so that no
sequence fails half way. `shared`: segments of the prefix tree that lie in no open sequence's buffer; they go, the
longest unused first, when somebody needs the room.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from paceline.engine.layout import KVLayout
from paceline.engine.prefix import Match, PrefixTree, Segment
from paceline.engine.rows import EngineSettings, MemoryStats
from paceline.engine.sequence import CacheSequence
from paceline.errors import OverloadedError
from paceline.tokens import TokenId

_WASTE_DIVISOR = 8
"""A closing sequence's buffer is kept as it is if at most this part (1/8) of it would be wasted; else it is copied."""


class RollbackCache:
    """Opens and closes sequences under a byte budget."""

    def __init__(self, *, layout: KVLayout, settings: EngineSettings) -> None:
        self._layout = layout
        self._settings = settings
        self._tree = PrefixTree()
        self._open: set[CacheSequence] = set()
        self._reserved = 0
        self._shared = 0
        self.rows_copied = 0

    @property
    def memory(self) -> MemoryStats:
        """Bytes held just now."""
        own = sum(sequence.num_own_rows for sequence in self._open)
        # A segment that its owner has not outlived is counted with the owner's rows.
        rows = own + sum(segment.filled for segment in self._tree if segment.owner is None)
        return MemoryStats(
            reserved=self._reserved,
            used=rows * self._layout.row_bytes,
            shared=self._shared,
            budget=self._settings.memory_bytes,
        )

    def open(
        self, *, max_length: int, max_pending: int, prompt: Sequence[TokenId], tenant: str
    ) -> CacheSequence:
        """See `Engine.open`."""
        namespace = self._namespace(tenant)
        match = Match(path=())
        if namespace is not None:
            match = self._tree.match(namespace, prompt)
        views = _limited(match, len(prompt) - 1)
        sequence = CacheSequence(
            prompt=prompt,
            max_length=max_length,
            max_pending=max_pending,
            namespace=namespace,
        )
        sequence.views = views
        # Users first: what is about to be shared must not be evicted to make room for the rest.
        for segment, used in views:
            segment.users[sequence] = used
            if segment.filled < used and segment.writer is None:
                segment.writer = sequence
        try:
            num_rows = self._num_rows(sequence)
            self._make_room(num_rows * self._layout.row_bytes)
            sequence.buffer = self._layout.allocate(num_rows)
        except (OverloadedError, RuntimeError, MemoryError) as error:
            for segment, _ in views:
                del segment.users[sequence]
                if segment.writer is sequence:
                    segment.writer = None
            if isinstance(error, OverloadedError):
                raise
            raise OverloadedError(
                f"cache: the machine has no memory for {num_rows} rows of {self._layout.row_bytes} bytes: {error}; lower "
                "the engine's memory budget"
            ) from error
        self._reserved += num_rows * self._layout.row_bytes
        self._open.add(sequence)
        if self._settings.copies:
            self._copy_views(
                sequence
            )  # and leaves its text to the cache when it closes, not before
        elif namespace is not None and match.length < len(prompt):
            self._register_prompt(sequence, namespace, match)
        return sequence

    def close(self, sequence: CacheSequence) -> None:
        """See `Engine.close`."""
        self._open.remove(sequence)
        sequence.is_open = False
        sequence.pending = []
        num_bytes = sequence.buffer.shape[3] * self._layout.row_bytes
        complete = sequence.length >= sequence.min_length
        if sequence.own_segment is not None:
            self._bequeath(sequence, sequence.own_segment, num_bytes)
        elif complete and sequence.namespace is not None and sequence.own_tokens:
            self._publish(sequence, sequence.namespace, num_bytes)
        self._reserved -= num_bytes
        views, sequence.views = sequence.views, []
        for segment, _ in reversed(views):
            del segment.users[sequence]
            self._settle(segment)
        del sequence.buffer

    def take_over(self, sequence: CacheSequence) -> None:
        """Let a sequence that waits compute the shared prefix itself."""
        for segment, used in sequence.views:
            if segment.filled < used:
                segment.writer = sequence
        own = sequence.own_segment
        if own is not None and own.filled < len(own.tokens):
            own.writer = sequence

    def clear_prefixes(self) -> None:
        """Drop every segment that no open sequence uses."""
        while (segment := self._tree.oldest_evictable()) is not None:
            self._evict(segment)

    def note_committed(self, sequence: CacheSequence, tokens: Sequence[TokenId]) -> None:
        """Rows of `tokens` are computed and stand at the committed end."""
        done = 0
        for segment, used in sequence.views:
            count = min(used - segment.filled, len(tokens) - done)
            if count > 0:
                segment.filled += count
                done += count
                _hand_over(segment)
        sequence.own_tokens.extend(tokens[done:])
        own = sequence.own_segment
        if own is not None and own.filled < len(own.tokens):
            own.filled = min(len(sequence.own_tokens), len(own.tokens))
            if own.filled == len(own.tokens):
                own.writer = None

    def _num_rows(self, sequence: CacheSequence) -> int:
        """The rows of a new sequence's own buffer."""
        shared = 0 if self._settings.copies else sequence.shared_length
        return sequence.max_length - shared + sequence.max_pending

    def _copy_views(self, sequence: CacheSequence) -> None:
        """Bring what a sequence shares into its own buffer; from then on it shares nothing."""
        length = 0
        for segment, used in sequence.views:
            sequence.buffer[:, :, :, length : length + used] = segment.storage[:, :, :, :used]
            length += used
            del segment.users[sequence]
        self.rows_copied += length
        sequence.own_tokens = list(sequence.prompt[:length])
        sequence.views = []

    def _namespace(self, tenant: str) -> str | None:
        """Whose segments a tenant may see and add to; None for nobody's."""
        match self._settings.sharing:
            case "tenant":
                return tenant or None
            case "all":
                return ""
            case "none":
                return None

    def _make_room(self, num_bytes: int) -> None:
        """Evict until `num_bytes` more fit.

        Raises:
            OverloadedError: they do not, whatever is evicted.
        """
        budget = self._settings.memory_bytes
        while self._reserved + self._shared + num_bytes > budget:
            segment = self._tree.oldest_evictable()
            if segment is None:
                free = budget - self._reserved - self._shared
                raise OverloadedError(
                    f"cache: {num_bytes} bytes are needed and {free} of {budget} are free; try again when a session "
                    "has ended, or raise the engine's memory budget"
                )
            self._evict(segment)

    def _evict(self, segment: Segment) -> None:
        self._tree.remove(segment)
        self._shared -= segment.num_bytes

    def _register_prompt(self, sequence: CacheSequence, namespace: str, match: Match) -> None:
        """Let others see the new part of a prompt while it is computed."""
        parent, offset = match.path[-1] if match.path else (None, 0)
        segment = Segment(
            tokens=list(sequence.prompt[match.length :]),
            storage=sequence.buffer,
            num_bytes=0,
            parent=parent,
            offset=offset,
            writer=sequence,
            owner=sequence,
        )
        self._tree.add(namespace, match, segment)
        sequence.own_segment = segment

    def _bequeath(self, sequence: CacheSequence, own: Segment, buffer_bytes: int) -> None:
        """Leave the own segment to the cache, with the output behind the prompt if nobody else left the same."""
        assert sequence.namespace is not None
        num_own = len(sequence.own_tokens)
        if num_own > len(own.tokens):
            match = self._tree.match(sequence.namespace, sequence.committed_tokens)
            if match.path[-1] == (own, len(own.tokens)):
                own.tokens = list(sequence.own_tokens)
                own.filled = num_own
        # Others wait for no more than `needed`, and the new storage has room for no more.
        own.storage, own.num_bytes = self._house(
            sequence.buffer,
            first=0,
            num_filled=own.filled,
            num_rows=own.needed,
            buffer_bytes=buffer_bytes,
        )
        if own.needed > 0:
            del own.tokens[own.needed :]
        own.owner = None
        self._shared += own.num_bytes
        if own.writer is sequence:
            own.writer = None
        self._settle(own)

    def _publish(self, sequence: CacheSequence, namespace: str, buffer_bytes: int) -> None:
        """Leave a text to the cache whose prompt was there before."""
        tokens = sequence.committed_tokens
        match = self._tree.match(namespace, tokens)
        if not match.is_filled or match.length == len(tokens):
            return
        parent, offset = match.path[-1] if match.path else (None, 0)
        rest = len(tokens) - match.length
        first = len(sequence.own_tokens) - rest
        # Making room for the new segment must not evict what it is about to hang off.
        pinned = [item for item, _ in match.path if sequence not in item.users]
        for item in pinned:
            item.users[sequence] = 0
        storage, num_bytes = self._house(
            sequence.buffer, first=first, num_filled=rest, num_rows=rest, buffer_bytes=buffer_bytes
        )
        for item in pinned:
            del item.users[sequence]
        segment = Segment(
            tokens=list(tokens[match.length :]),
            storage=storage,
            num_bytes=num_bytes,
            parent=parent,
            offset=offset,
            filled=rest,
        )
        self._shared += num_bytes
        self._tree.add(namespace, match, segment)

    def _house(
        self, buffer: Tensor, *, first: int, num_filled: int, num_rows: int, buffer_bytes: int
    ) -> tuple[Tensor, int]:
        """Storage for rows that outlive their sequence, and its bytes: a copy that fits, or the buffer as it is.

        The buffer stays reserved until the caller gives it back, so a copy must fit beside it; where it does not, the
        buffer itself changes from reserved to shared, which takes no memory but may waste some.
        """
        num_bytes = num_rows * self._layout.row_bytes
        wasted = buffer_bytes - num_bytes
        if wasted * _WASTE_DIVISOR > buffer_bytes and num_rows > 0:
            try:
                self._make_room(num_bytes)
                storage = self._layout.allocate(num_rows)
            except (OverloadedError, RuntimeError, MemoryError):
                pass  # no room in the budget, or none in the machine: the buffer serves as well
            else:
                storage[:, :, :, :num_filled] = buffer[:, :, :, first : first + num_filled]
                self.rows_copied += num_filled
                return storage, num_bytes
        return buffer[:, :, :, first:], buffer_bytes

    def _settle(self, segment: Segment) -> None:
        """Restore the tree's rules for a segment that lost its owner or a user."""
        if segment.owner is not None:
            if segment.writer is not None and not segment.writer.is_open:
                segment.writer = segment.owner
            return
        waiting = segment.waiting
        if waiting:
            if segment.writer not in waiting:
                segment.writer = waiting[0]
            return
        segment.writer = None
        if segment.filled == 0:
            self._evict(segment)
        else:
            del segment.tokens[segment.filled :]


def _hand_over(segment: Segment) -> None:
    """A sequence that is not the owner has filled some of a segment: tell the owner, see who goes on."""
    owner = segment.owner
    if owner is not None:
        # The owner still has to run its prompt's last token itself: it needs the logits.
        known = min(segment.filled, len(segment.tokens) - 1)
        owner.own_tokens.extend(segment.tokens[len(owner.own_tokens) : known])
    if segment.filled == len(segment.tokens):
        segment.writer = None
    elif segment.writer is not None and segment.users.get(segment.writer, 0) <= segment.filled:
        segment.writer = owner or next(iter(segment.waiting), None)


def _limited(match: Match, length: int) -> list[tuple[Segment, int]]:
    """The beginning of a match, so that at least one token of the prompt is left to compute."""
    views: list[tuple[Segment, int]] = []
    for segment, used in match.path:
        count = min(used, length)
        if count > 0:
            views.append((segment, count))
        length -= count
    return views
