"""The rules of the engine's interface, checked before anything changes."""

from __future__ import annotations

from collections.abc import Sequence

from paceline.engine.rows import COMMITTED_END, RowGroup
from paceline.engine.sequence import CacheSequence
from paceline.errors import InvalidRequestError, LocalProtocolError
from paceline.messages import ModelIdentity
from paceline.tokens import TokenId


def check_open(
    identity: ModelIdentity, *, max_length: int, max_pending: int, prompt: Sequence[TokenId]
) -> None:
    """Raise unless a sequence may have these bounds and this prompt."""
    if not 1 <= max_length <= identity.context_length:
        raise InvalidRequestError(
            f"max_length: got {max_length}, expected 1 to {identity.context_length}, the model's context"
        )
    if max_pending < 0:
        raise InvalidRequestError(f"max_pending: got {max_pending}, expected at least 0")
    if len(prompt) > max_length:
        raise InvalidRequestError(
            f"prompt: got {len(prompt)} tokens, expected at most max_length, {max_length}"
        )
    _check_tokens("prompt", prompt, identity)


def check_groups(identity: ModelIdentity, groups: Sequence[RowGroup]) -> None:
    """Raise unless these rows may run in one step."""
    if not groups:
        raise LocalProtocolError("groups: got none, expected at least one")
    seen: set[CacheSequence] = set()
    for index, group in enumerate(groups):
        name = f"groups[{index}]"
        if group.sequence in seen:
            raise LocalProtocolError(f"{name}: its sequence is in an earlier group of this step")
        seen.add(group.sequence)
        _check_open_sequence(name, group.sequence)
        if not group.tokens:
            raise LocalProtocolError(f"{name}.tokens: got none, expected at least one")
        try:
            _check_tokens(f"{name}.tokens", group.tokens, identity)
        except InvalidRequestError as error:
            raise LocalProtocolError(str(error)) from error
        if group.sequence.waiting_for_prefix:
            raise LocalProtocolError(
                f"{name}: its sequence waits for a prefix that another one computes; leave it out of the step or "
                "call take_over"
            )
        if group.commit:
            _check_committing(name, group)
        else:
            _check_pending(name, group)


def check_commit(sequence: CacheSequence, path: Sequence[int], keep: Sequence[int]) -> None:
    """Raise unless `path` is a chain off the committed end and `keep` hangs off its end."""
    _check_open_sequence("commit", sequence)
    end = COMMITTED_END
    for index in path:
        if not 0 <= index < sequence.num_pending or sequence.pending[index].parent != end:
            raise LocalProtocolError(
                f"commit.path: got {tuple(path)}; {index} is no pending child of {end} (pending parents: "
                f"{sequence.pending_parents})"
            )
        end = index
    known = {end}
    for index in keep:
        inside = 0 <= index < sequence.num_pending and index not in known
        if not inside or sequence.pending[index].parent not in known:
            raise LocalProtocolError(
                f"commit.keep: got {tuple(keep)} after path {tuple(path)}; {index} is no pending row below its end "
                f"whose parent comes before (pending parents: {sequence.pending_parents})"
            )
        known.add(index)


def check_rollback(sequence: CacheSequence, length: int) -> None:
    """Raise unless the committed text can be shortened to `length`."""
    _check_open_sequence("rollback", sequence)
    if length == sequence.length:
        return
    if not sequence.min_length <= length <= sequence.length:
        raise LocalProtocolError(
            f"rollback.length: got {length}, expected {sequence.min_length} to {sequence.length}; what is below is "
            "shared or may be"
        )


def _check_open_sequence(name: str, sequence: CacheSequence) -> None:
    if not sequence.is_open:
        raise LocalProtocolError(f"{name}: the sequence is closed")


def _check_tokens(name: str, tokens: Sequence[TokenId], identity: ModelIdentity) -> None:
    size = identity.vocabulary_size
    if tokens and not (min(tokens) >= 0 and max(tokens) < size):
        raise InvalidRequestError(
            f"{name}: got ids from {min(tokens)} to {max(tokens)}, expected 0 to {size - 1}"
        )


def _check_committing(name: str, group: RowGroup) -> None:
    """Rows that are committed at once: a chain, nothing pending, within max_length, as the prompt says."""
    sequence = group.sequence
    if group.parents is not None or sequence.num_pending:
        raise LocalProtocolError(
            f"{name}: rows that commit at once are a chain off the committed end (parents=None) and need an empty "
            f"pending set; got parents {group.parents} and {sequence.num_pending} pending rows"
        )
    end = sequence.length + len(group.tokens)
    if end > sequence.max_length:
        raise LocalProtocolError(
            f"{name}: its rows end at {end}, expected at most max_length, {sequence.max_length}"
        )
    _check_prompt(name, sequence, group.tokens)


def _check_pending(name: str, group: RowGroup) -> None:
    """Rows that stay pending: the prompt is complete; room, known parents, positions within max_length."""
    sequence = group.sequence
    base = sequence.num_pending
    if sequence.length < len(sequence.prompt):
        raise LocalProtocolError(
            f"{name}: {len(sequence.prompt) - sequence.length} tokens of its prompt are not computed yet; prefill them "
            "first (commit=True)"
        )
    if base + len(group.tokens) > sequence.max_pending:
        raise LocalProtocolError(
            f"{name}: {base} rows are pending and {len(group.tokens)} come, expected at most {sequence.max_pending}"
        )
    parents = group.parents
    if parents is None:
        parents = (COMMITTED_END, *range(base, base + len(group.tokens) - 1))
    if len(parents) != len(group.tokens):
        raise LocalProtocolError(
            f"{name}.parents: got {len(parents)}, expected one per token, {len(group.tokens)}"
        )
    # Those that are pending already were checked when they came: only the new ones are looked at.
    depths: list[int] = []
    for row, parent in enumerate(parents):
        if not COMMITTED_END <= parent < base + row:
            raise LocalProtocolError(
                f"{name}.parents[{row}]: got {parent}, expected -1 to {base + row - 1}"
            )
        above = depths[parent - base] if parent >= base else len(sequence.lineage_of(parent))
        depths.append(above + 1)
    deepest = sequence.length + max(depths)
    if deepest > sequence.max_length:
        raise LocalProtocolError(
            f"{name}: its rows end at {deepest}, expected at most max_length, {sequence.max_length}"
        )


def _check_prompt(name: str, sequence: CacheSequence, tokens: Sequence[TokenId]) -> None:
    """What is committed inside the prompt must be the prompt: others may share it."""
    length = sequence.length
    expected = sequence.prompt[length : length + len(tokens)]
    if tuple(tokens[: len(expected)]) != expected:
        raise LocalProtocolError(
            f"{name}: the tokens from position {length} on are not those of the prompt that the sequence was opened with"
        )
