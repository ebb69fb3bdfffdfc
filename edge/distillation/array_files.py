"""Folders of arrays that appear whole or not at all, each array in a file of its own to be mapped into memory.

FOLDER/000000/NAME.npy ...   the arrays
              shard.json     format, what they are, sha256 of every file above
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paceline.errors import ConfigError

FORMAT = 1
DESCRIPTION = "shard.json"


def shard_folder(parent: Path, number: int) -> Path:
    """Return where a shard is."""
    return parent / f"{number:06d}"


def count_shards(parent: Path) -> int:
    """Return how many shards are there from number 0 on; a gap ends the count."""
    number = 0
    while (shard_folder(parent, number) / DESCRIPTION).is_file():
        number += 1
    return number


def write_arrays(
    parent: Path, number: int, arrays: Mapping[str, NDArray[Any]], *, about: Mapping[str, Any]
) -> dict[str, str]:
    """Write a shard and return the sums of its files; it is there whole once this returns, and not at all before."""
    temporary = parent / f".{number:06d}.unfinished"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir(parents=True)
    sums: dict[str, str] = {}
    for name, values in arrays.items():
        path = temporary / f"{name}.npy"
        np.save(path, values)
        sums[path.name] = _sha256(path)
        _sync(path)
    path = temporary / DESCRIPTION
    content = {"format": FORMAT, **about, "sha256": sums}
    path.write_text(json.dumps(content), encoding="utf-8")
    _sync(path)
    temporary.rename(shard_folder(parent, number))
    _sync(parent)
    return sums


def read_about(folder: Path) -> dict[str, Any]:
    """Return what a shard says about itself.

    Raises:
        ConfigError: it is not there, or of another format.
    """
    path = folder / DESCRIPTION
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found = content.pop("format")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise unreadable(folder, error) from error
    if found != FORMAT:
        raise ConfigError(f"shard {path}: of another format than {FORMAT}; start in a new folder")
    return content


def unreadable(folder: Path, error: Exception) -> ConfigError:
    """Return the error for a description that makes no sense."""
    path = folder / DESCRIPTION
    return ConfigError(f"shard {path}: cannot be read: {error!r}; remove {folder}")


def read_arrays(
    folder: Path, names: Sequence[str], *, sums: Mapping[str, str] | None
) -> dict[str, NDArray[Any]]:
    """Map arrays into memory.

    Args:
        folder: of the shard.
        names: of the arrays.
        sums: by file name, to be compared, which reads the files whole; None: they are trusted.

    Raises:
        ConfigError: a file is damaged.
    """
    arrays: dict[str, NDArray[Any]] = {}
    for name in names:
        path = folder / f"{name}.npy"
        if sums is not None and _sha256(path) != sums[path.name]:
            raise ConfigError(
                f"shard {path}: its sha256 is not the one in {DESCRIPTION}; remove {folder}"
            )
        arrays[name] = np.load(path, mmap_mode="r", allow_pickle=False)
    return arrays


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
