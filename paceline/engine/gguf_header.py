"""Reads how the weights in a GGUF file are quantised, and what its tokens are called, from its header alone.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (magic, version, counts, metadata, tensor infos). The
`gguf` package reads it too, but parses every vocabulary entry on the way, which takes seconds; this skips them.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from gguf.constants import LlamaFileType

_KEY = "general.file_type"
_WORDS = "tokenizer.ggml.tokens"
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each scalar type; 8 is a string and 9 an array."""
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_MAX_KEYS = 100_000
_MAX_WORDS = 10_000_000
_MAX_BYTES = 1 << 16
"""Of a key or a word."""


def quantisation_of(path: Path) -> str:
    """The name of the file's quantisation, "Q4_1" for example; empty if weights are F32, F16 or BF16.

    Raises:
        ValueError: not a GGUF file of version 2 or 3.
    """
    with path.open("rb") as file:
        if _find(file, _KEY) != _UINT32:
            return "unknown"
        name = LlamaFileType(_read(file, "<I")).name
        plain = name.removeprefix("ALL_").removeprefix("MOSTLY_")
        return "" if plain in ("F32", "F16", "BF16") else plain


def words_of(path: Path) -> tuple[str, ...]:
    """Return what a file calls its tokens, by their ids.

    Raises:
        ValueError: not a GGUF file of version 2 or 3, or one without a vocabulary.
    """
    with path.open("rb") as file:
        if _find(file, _WORDS) != _ARRAY or _read(file, "<I") != _STRING:
            raise ValueError(f"it has no list of words ({_WORDS})")
        length = _read(file, "<Q")
        if length > _MAX_WORDS:
            raise ValueError(f"got {length} words, expected at most {_MAX_WORDS}")
        return tuple(_text(file) for _ in range(length))


def _find(file: BinaryIO, wanted: str) -> int | None:
    """Move to the value of a key and return its type; None if there is no such key."""
    begin = file.read(24)
    magic, version, _, num_keys = struct.unpack("<4sIQQ", begin.ljust(24, b"\0"))
    if magic != b"GGUF" or version not in (2, 3) or num_keys > _MAX_KEYS:
        raise ValueError(f"got magic {magic!r}, version {version}; expected GGUF, 2 or 3")
    for _ in range(num_keys):
        key = _text(file)
        kind = _read(file, "<I")
        if key == wanted:
            return kind
        _skip(file, kind)
    return None


def _read(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])


def _text(file: BinaryIO) -> str:
    length = _read(file, "<Q")
    if length > _MAX_BYTES:
        raise ValueError(f"got a text of {length} bytes, expected at most {_MAX_BYTES}")
    return file.read(length).decode(errors="replace")


def _skip(file: BinaryIO, kind: int) -> None:
    """Move past a value."""
    if kind == _STRING:
        file.seek(_read(file, "<Q"), 1)
    elif kind == _ARRAY:
        inner, length = _read(file, "<I"), _read(file, "<Q")
        if inner in _SIZES:
            file.seek(length * _SIZES[inner], 1)
        else:
            for _ in range(length):
                _skip(file, inner)
    elif kind in _SIZES:
        file.seek(_SIZES[kind], 1)
    else:
        raise ValueError(f"got value type {kind}, expected 0 to 12")
