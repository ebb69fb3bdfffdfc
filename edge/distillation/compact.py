"""A draft in one small file: low-bit weights, to be shipped; and back to a folder that can be loaded.

    layers            L4    4.5 bits a weight, groups of 32 with a scale
    frequent rows     L4    embeddings of the tokens that it can say; they are its output matrix too
    rare rows         L3    embeddings of all other tokens, which it only reads
    all else          F32   norms and mask slots, a few hundred numbers each

That is of a draft that learned with 4 bits; with others layers and frequent rows have as many. One that learned with exact
weights has GGUF's 8 bits everywhere: it never saw what rounding does to it.

`packed_types` tells what the types are. An output matrix of its own is kept beside the embeddings, as frequent rows
are. The file is safetensors; its metadata holds the draft's description and a checksum of everything in the file.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from edge.distillation.draft_reading import (
    DESCRIPTION,
    FORMAT,
    HEAD,
    SLOTS,
    SLOTS_FILE,
    check_draft,
    read_exact,
    read_head,
    read_slots,
    sha256_of,
)
from edge.distillation.packed_types import Levels, levels_in, stored, value_in
from paceline.errors import ConfigError

SUFFIX = ".draft"
OUTPUT = "output"
_IDS, _FREQUENT, _RARE, _HEAD_ROWS = "ids", "frequent", "rare", "head"
_PREFIX = "weights."
_WEIGHTS = "model.safetensors"
_CONFIGURATION = ("config.json", "generation_config.json")


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactTypes:
    """Names of the types, see `packed_types`."""

    layers: str = "L4"
    frequent: str = "L4"
    rare: str = "L3"

    @classmethod
    def of(cls, record: Mapping[str, Any]) -> CompactTypes:
        """Return those that a draft learned with."""
        bits = record["training"]["training"]["bits"]
        if bits is None:
            return cls(layers="Q8_0", frequent="Q8_0", rare="Q8_0")
        return cls(layers=f"L{bits}", frequent=f"L{bits}")


def pack_draft(folder: Path, file: Path, *, types: CompactTypes | None = None) -> int:
    """Write a draft's folder into one file, which is there whole or not at all; return its size in bytes.

    Args:
        folder: of the draft.
        file: to write.
        types: None: those that it learned with.

    Raises:
        ConfigError: no draft, a damaged one, or no such type.
    """
    record = check_draft(folder)
    types = types or CompactTypes.of(record)
    ids, rows = read_head(folder)
    weights = load_file(folder / _WEIGHTS)
    # Trained weights as exactly as there are: a training on rounded weights rounded these.
    weights |= {name: value for name, value in read_exact(folder).items() if name in weights}
    embeddings = weights.pop(record["matrices"]["embeddings"])
    weights.pop(
        record["matrices"]["output"] or "", None
    )  # the head's rows say all that is used of it
    is_frequent = torch.zeros(len(embeddings), dtype=torch.bool)
    is_frequent[ids] = True
    out: dict[str, Tensor] = {_IDS: ids.int()}
    kinds: dict[str, str] = {}
    parts = {
        _FREQUENT: (embeddings[ids], types.frequent),
        _RARE: (embeddings[~is_frequent], types.rare),
    }
    if not torch.equal(embeddings[ids], rows):
        parts[_HEAD_ROWS] = (rows, types.frequent)
    parts |= {f"{_PREFIX}{name}": (value, types.layers) for name, value in weights.items()}
    for name, (value, kind) in parts.items():
        parts_out, kinds[name] = stored(name, value, kind)
        out |= parts_out
    slots = read_slots(folder)
    if slots is not None:
        # In full precision: they are few, and everything that is guessed ahead begins with them.
        out[SLOTS] = slots.float().contiguous()
    configuration = {
        name: (folder / name).read_text(encoding="utf-8")
        for name in _CONFIGURATION
        if (folder / name).is_file()
    }
    description = {name: value for name, value in record.items() if name != "sha256"}
    about = {
        "description": description,
        "types": kinds,
        "configuration": configuration,
    }
    _write(file, about, out)
    return file.stat().st_size


@contextmanager
def unpacked(file: Path) -> Iterator[Path]:
    """Give a draft's folder made from a file, for as long as the block runs.

    The tokenizer is not in it: `description["tokenizer"]` is the fingerprint of the one that it needs.

    Raises:
        ConfigError: the file is no draft, of another format or damaged.
    """
    with tempfile.TemporaryDirectory(prefix="paceline-draft-") as name:
        folder = Path(name)
        _unpack(file, folder)
        yield folder


def read_description(file: Path) -> dict[str, Any]:
    """Return what a file says about its draft, without reading its weights or comparing the checksum.

    Raises:
        ConfigError: the file is no draft, or of another format.
    """
    description: dict[str, Any] = _about(file)["description"]
    return description


def read_output_type(file: Path) -> str:
    """Return the type of a packed draft's output matrix; see `packed_types`. Like `read_description`."""
    types: dict[str, str] = _about(file)["types"]
    return types.get(_HEAD_ROWS, types[_FREQUENT])


def read_levels(file: Path) -> dict[str, Levels]:
    """Return the weights of a packed draft that are on levels, by their names in the model; the output matrix as OUTPUT.

    Raises:
        ConfigError: the file is no draft, of another format or damaged.
    """
    about, tensors = _read(file)
    kinds: dict[str, str] = about["types"]
    names = {name: name.removeprefix(_PREFIX) for name in kinds if name.startswith(_PREFIX)}
    names[_HEAD_ROWS if _HEAD_ROWS in kinds else _FREQUENT] = OUTPUT
    found = {own: levels_in(tensors, name, kinds[name]) for name, own in names.items()}
    return {name: value for name, value in found.items() if value is not None}


def _unpack(file: Path, folder: Path) -> None:
    about, tensors = _read(file)
    ids = tensors.pop(_IDS).long()
    plain = {name: value_in(tensors, name, kind) for name, kind in about["types"].items()}
    frequent, rare = plain.pop(_FREQUENT), plain.pop(_RARE)
    embeddings = torch.empty((len(frequent) + len(rare), frequent.shape[1]))
    is_rare = torch.ones(len(embeddings), dtype=torch.bool)
    is_rare[ids] = False
    embeddings[ids], embeddings[is_rare] = frequent, rare
    rows = plain.pop(_HEAD_ROWS, frequent)
    weights = {name.removeprefix(_PREFIX): value for name, value in plain.items()}
    matrices = about["description"]["matrices"]
    weights[matrices["embeddings"]] = embeddings
    if matrices["output"] is not None:
        weights[matrices["output"]] = torch.zeros_like(embeddings).index_copy_(0, ids, rows)
    half = {name: value.bfloat16().contiguous() for name, value in weights.items()}
    save_file(half, folder / _WEIGHTS, metadata={"format": "pt"})
    save_file({"ids": ids.int(), "rows": rows.bfloat16().contiguous()}, folder / HEAD)
    if SLOTS in tensors:
        save_file({SLOTS: tensors[SLOTS]}, folder / SLOTS_FILE)
    for name, text in about["configuration"].items():
        if name in _CONFIGURATION:
            (folder / name).write_text(text, encoding="utf-8")
    sums = {path.name: sha256_of(path) for path in sorted(folder.iterdir())}
    description = about["description"] | {"sha256": sums}
    (folder / DESCRIPTION).write_text(json.dumps(description), encoding="utf-8")


def _write(file: Path, about: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    whole = about | {"sha256": _checksum(about, tensors)}
    temporary = file.with_name(f".{file.name}.unfinished")
    save_file(tensors, temporary, metadata={"paceline": json.dumps(whole)})
    with temporary.open("rb") as written:
        os.fsync(written.fileno())
    temporary.replace(file)


def _read(file: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    about = _about(file)
    try:
        tensors = load_file(file)
    except Exception as error:
        raise ConfigError(f"draft {file}: cannot be read: {error!r}") from error
    expected = about.pop("sha256", None)
    found = _checksum(about, tensors)
    if found != expected:
        raise ConfigError(
            f"draft {file}: damaged: checksum {found}, expected {expected}; copy it again, or pack it again with "
            "`paceline distil --only pack`"
        )
    return about, tensors


def _checksum(about: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 of what a file says and of every byte of its tensors, whatever their order in the file."""
    found = sha256(json.dumps(about, sort_keys=True).encode())
    for name, value in sorted(tensors.items()):
        found.update(f"\n{name} {value.dtype} {tuple(value.shape)}\n".encode())
        found.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return found.hexdigest()


def _about(file: Path) -> dict[str, Any]:
    try:
        with safe_open(file, framework="pt") as content:
            about: dict[str, Any] = json.loads(content.metadata()["paceline"])
        found = about["description"]["format"]
    except Exception as error:
        raise ConfigError(f"draft {file}: cannot be read: {error!r}") from error
    if found != FORMAT:
        raise ConfigError(f"draft {file}: of format {found}, expected {FORMAT}")
    return about
