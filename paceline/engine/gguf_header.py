"""Reads how the weights in a GGUF file are quantised, from its header alone.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md (magic, version, counts, metadata, tensor infos). The
`gguf` package reads it too, but parses every vocabulary entry on the way, which takes seconds; this skips them.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO

from gguf.constants import LlamaFileType

_KEY = "general.file_type"
_SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
"""Bytes of each scalar type; 8 is a string and 9 an array."""
_STRING, _ARRAY, _UINT32 = 8, 9, 4
_MAX_KEYS = 100_000


def quantisation_of(path: Path) -> str:
    """The name of the file's quantisation, "Q4_1" for example; empty if weights are F32, F16 or BF16.

    Raises:
        ValueError: not a GGUF file of version 2 or 3.
    """
    with path.open("rb") as file:
        magic, version, _, num_keys = struct.unpack("<4sIQQ", file.read(24))
        if magic != b"GGUF" or version not in (2, 3) or num_keys > _MAX_KEYS:
            raise ValueError(f"got magic {magic!r}, version {version}; expected GGUF, 2 or 3")
        for _ in range(num_keys):
            key = file.read(_read(file, "<Q")).decode()
            kind = _read(file, "<I")
            if key == _KEY and kind == _UINT32:
                name = LlamaFileType(_read(file, "<I")).name
                plain = name.removeprefix("ALL_").removeprefix("MOSTLY_")
                return "" if plain in ("F32", "F16", "BF16") else plain
            _skip(file, kind)
    return "unknown"


def _read(file: BinaryIO, layout: str) -> int:
    return int(struct.unpack(layout, file.read(struct.calcsize(layout)))[0])


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
