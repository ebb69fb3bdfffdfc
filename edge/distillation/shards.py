"""Written text in files: shards that appear whole or not at all, each array as its own file to be mapped into memory.

    text/000000/tokens.npy         [N]     every token, conversations one after another
                roles.npy          [N]     who wrote it (`Role`)
                top_ids.npy        [N, k]  the likeliest tokens of the law that the token was drawn from
                top_logprobs.npy   [N, k]  their natural log-probabilities at temperature 1, float16, falling
                shard.json                 where conversations begin, what they are, sizes and sha256 of the arrays

The first token of a conversation was drawn from no law: its ids are 0, its log-probabilities -inf. Ids take two bytes
where the vocabulary allows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.distillation.array_files import (
    count_shards,
    read_about,
    read_arrays,
    shard_folder,
    unreadable,
    write_arrays,
)
from edge.distillation.conversation import Conversation

__all__ = ["Passage", "Shard", "ShardDescription", "count_shards", "read_shard", "write_shard"]

_ARRAYS = ("tokens", "roles", "top_ids", "top_logprobs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Passage:
    """One conversation in a shard."""

    number: int
    category: str
    start: int
    length: int
    temperature: float
    """Of the answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ShardDescription:
    """What `shard.json` says."""

    number: int
    vocabulary_size: int
    passages: tuple[Passage, ...]
    counts: dict[str, int] = field(default_factory=dict)
    """Conversations kept and dropped, by reason."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of the array files, by name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """A finished shard; the arrays are mapped from its files."""

    description: ShardDescription
    tokens: NDArray[Any]
    roles: NDArray[Any]
    top_ids: NDArray[Any]
    top_logprobs: NDArray[Any]


def write_shard(
    text: Path,
    number: int,
    *,
    conversations: Sequence[Conversation],
    vocabulary_size: int,
    counts: dict[str, int],
) -> None:
    """Write a shard; it is there whole once this returns, and not at all before."""
    arrays, passages = _arrays(conversations, vocabulary_size)
    description = ShardDescription(
        number=number, vocabulary_size=vocabulary_size, passages=tuple(passages), counts=counts
    )
    about = asdict(description)
    del about["sha256"]  # known once the files are written
    write_arrays(text, number, dict(zip(_ARRAYS, arrays, strict=True)), about=about)


def read_shard(text: Path, number: int, *, check: bool = False) -> Shard:
    """Open a shard.

    Args:
        text: folder of all shards.
        number: of the shard.
        check: compare the files with their checksums, which reads them whole.

    Raises:
        ConfigError: it is not there, of another format, or damaged.
    """
    folder = shard_folder(text, number)
    description = _read_description(folder)
    sums = description.sha256 if check else None
    return Shard(description=description, **read_arrays(folder, _ARRAYS, sums=sums))


def _read_description(folder: Path) -> ShardDescription:
    content = read_about(folder)
    try:
        content["passages"] = tuple(Passage(**passage) for passage in content["passages"])
        return ShardDescription(**content)
    except (KeyError, TypeError) as error:
        raise unreadable(folder, error) from error


def _arrays(
    conversations: Sequence[Conversation], vocabulary_size: int
) -> tuple[tuple[NDArray[Any], ...], list[Passage]]:
    ids_type = np.uint16 if vocabulary_size <= 1 << 16 else np.uint32
    tokens: list[NDArray[Any]] = []
    roles: list[NDArray[Any]] = []
    top_ids: list[NDArray[Any]] = []
    top_logprobs: list[NDArray[Any]] = []
    passages: list[Passage] = []
    start = 0
    for item in conversations:
        ids, logprobs = item.laws()
        width = ids.shape[1]
        tokens.append(np.array(item.tokens, dtype=ids_type))
        roles.append(np.array(item.roles, dtype=np.uint8))
        top_ids += [np.zeros((1, width), ids_type), ids.astype(ids_type)]
        top_logprobs += [np.full((1, width), -np.inf, np.float16), logprobs.astype(np.float16)]
        passages.append(
            Passage(
                number=item.script.number,
                category=item.script.category,
                start=start,
                length=len(item.tokens),
                temperature=item.script.turns[0].temperature,
            )
        )
        start += len(item.tokens)
    arrays = tuple(np.concatenate(parts) for parts in (tokens, roles, top_ids, top_logprobs))
    return arrays, passages
