"""Text on this machine under a licence that allows to train on it: Python's own library and packages' descriptions.

Only what says its licence in a way that a program can read is taken. What was taken is written down with its hash.
"""

from __future__ import annotations

import hashlib
import sysconfig
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

PYTHON_LICENCE = "PSF-2.0"
LICENCES = frozenset({"MIT", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "PSF-2.0", "MIT-0"})
"""SPDX identifiers of the packages whose descriptions are taken."""

SHORTEST = 1000
LONGEST = 60_000
"""Characters of a document; of a longer one the beginning, or a few long ones would make up most of the text."""

# Tests quote data of other origin; the rest is generated or not Python's own.
_LEFT_OUT = (
    "site-packages",
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "lib2to3",
    "encodings",
    "pydoc_data",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One text and where it is from."""

    name: str
    licence: str
    text: str

    @property
    def is_prose(self) -> bool:
        """Whether it is text for people; programs are the rest."""
        return not self.name.endswith(".py")

    @property
    def origin(self) -> dict[str, str]:
        """Name, licence and hash, for the record."""
        digest = hashlib.sha256(self.text.encode()).hexdigest()
        return {"name": self.name, "licence": self.licence, "sha256": digest}


def find_documents() -> tuple[Document, ...]:
    """Return what this machine has, in an order that does not depend on the file system."""
    found = [*_library(Path(sysconfig.get_path("stdlib"))), *_descriptions()]
    return tuple(sorted(found, key=lambda document: document.name))


def read_documents(paths: Sequence[Path]) -> tuple[Document, ...]:
    """Return a user's own documents; their licence is the user's business."""
    return tuple(
        Document(
            name=str(path), licence="as the user says", text=path.read_text("utf-8", "replace")
        )
        for path in paths
    )


def _library(folder: Path) -> Iterator[Document]:
    for path in folder.rglob("*.py"):
        name = path.relative_to(folder)
        if any(part in _LEFT_OUT for part in name.parts):
            continue
        text = path.read_text("utf-8", "replace")
        if len(text) >= SHORTEST:
            yield Document(name=f"python/{name}", licence=PYTHON_LICENCE, text=text[:LONGEST])
    from pydoc_data.topics import topics  # noqa: PLC0415 - half a megabyte of text

    for title, text in topics.items():
        if len(text) >= SHORTEST:
            yield Document(
                name=f"python-reference/{title}", licence=PYTHON_LICENCE, text=text[:LONGEST]
            )


def _descriptions() -> Iterator[Document]:
    for distribution in distributions():
        metadata: Any = distribution.metadata  # a message; its type says less than it can
        licence = metadata.get("License-Expression")
        text = metadata.get_payload()
        if licence in LICENCES and isinstance(text, str) and len(text) >= SHORTEST:
            name = f"{metadata['Name']} {distribution.version}"
            yield Document(name=name, licence=licence, text=text[:LONGEST])
