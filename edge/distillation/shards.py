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

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edge.distillation.conversation import Conversation
from paceline.errors import ConfigError

FORMAT = 1
DESCRIPTION = "shard.json"
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


def shard_folder(text: Path, number: int) -> Path:
    """Return where a shard is."""
    return text / f"{number:06d}"


def count_shards(text: Path) -> int:
    """Return how many shards are there from number 0 on; a gap ends the count."""
    number = 0
    while (shard_folder(text, number) / DESCRIPTION).is_file():
        number += 1
    return number


def write_shard(
    text: Path,
    number: int,
    *,
    conversations: Sequence[Conversation],
    vocabulary_size: int,
    counts: dict[str, int],
) -> ShardDescription:
    """Write a shard; it is there whole once this returns, and not at all before."""
    arrays, passages = _arrays(conversations, vocabulary_size)
    temporary = text / f".{number:06d}.unfinished"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    sums: dict[str, str] = {}
    for name, values in zip(_ARRAYS, arrays, strict=True):
        path = temporary / f"{name}.npy"
        np.save(path, values)
        sums[path.name] = _sha256(path)
        _sync(path)
    description = ShardDescription(
        number=number,
        vocabulary_size=vocabulary_size,
        passages=tuple(passages),
        counts=counts,
        sha256=sums,
    )
    path = temporary / DESCRIPTION
    path.write_text(json.dumps({"format": FORMAT} | asdict(description)), encoding="utf-8")
    _sync(path)
    temporary.rename(shard_folder(text, number))
    _sync(text)
    return description


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
    arrays: dict[str, NDArray[Any]] = {}
    for name in _ARRAYS:
        path = folder / f"{name}.npy"
        if check and _sha256(path) != description.sha256[path.name]:
            raise ConfigError(
                f"shard {path}: its sha256 is not the one in {DESCRIPTION}; remove {folder}"
            )
        arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
    return Shard(description=description, **arrays)


def _read_description(folder: Path) -> ShardDescription:
    path = folder / DESCRIPTION
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ConfigError(
                f"shard {path}: of another format than {FORMAT}; start in a new folder"
            )
        content["passages"] = tuple(Passage(**passage) for passage in content["passages"])
        return ShardDescription(**content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"shard {path}: cannot be read: {error!r}; remove {folder}") from error


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


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """A rename must not reach the disk before what it makes visible."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
