"""The folder of a run: what it was started with, so that it goes on with the same, and who works in it just now.

OUT/recipe.json      what the text and the draft depend on
text/000000/     shards of written text (`shards`)
documents.json   licensed text that was used: name, licence, sha256
training/        state of the training
practice-training/  drafts of that student on the text (`practice`), if it practises; training-practised/ goes on from it
draft/           the draft
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edge.distillation.licensed import Document
from paceline.errors import ConfigError

RECIPE = "recipe.json"
DOCUMENTS = "documents.jsonl"


@contextmanager
def working_in(folder: Path, *, on: str) -> Iterator[None]:
    """Own one kind of work in a folder, which is made if it is not there.

    Writing and training may go on at once: training reads finished shards only.

    Raises:
        ConfigError: another process owns it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / f".{on}.lock").open("w")
    except OSError as error:
        raise ConfigError(f"out: cannot use the folder {folder}: {error}") from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(
                f"out: another process does {on} in {folder}; wait for it or choose another folder"
            ) from error
        yield


def settle(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write down what a run depends on, or check that it is what the run was started with.

    Raises:
        ConfigError: a value differs from the one the run was started with.
    """
    path = folder / RECIPE
    if not path.is_file():
        write_atomically(path, json.dumps(dict(recipe), indent=2))
        return
    started = json.loads(path.read_text(encoding="utf-8"))
    for name in sorted({*started, *recipe}):
        if started.get(name) != recipe.get(name):
            raise ConfigError(
                f"{name}: got {recipe.get(name)!r}, but {folder} was started with {started.get(name)!r}; give the same "
                "or choose a new folder"
            )


def kept_value(folder: Path, name: str) -> Any:
    """Return what a run was started with under a name, None if it was not started yet or knows no such name."""
    path = folder / RECIPE
    return json.loads(path.read_text(encoding="utf-8")).get(name) if path.is_file() else None


def kept_documents(folder: Path) -> tuple[Document, ...] | None:
    """Return the texts that a run was started with, or None: a package installed since must not change them."""
    path = folder / DOCUMENTS
    if not path.is_file():
        return None
    lines = path.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return tuple(
        Document(name=item["name"], licence=item["licence"], text=item["text"]) for item in found
    )


def keep_documents(folder: Path, documents: Sequence[Document]) -> None:
    """Keep texts with name, licence and hash."""
    lines = [json.dumps(document.origin | {"text": document.text}) for document in documents]
    write_atomically(folder / DOCUMENTS, "".join(f"{line}\n" for line in lines))


def fingerprint_of(documents: Sequence[Document]) -> str:
    """Return one hash of the origins of all documents."""
    digest = hashlib.sha256()
    for document in documents:
        digest.update(json.dumps(document.origin).encode())
    return digest.hexdigest()


def write_atomically(path: Path, text: str) -> None:
    """Replace a file: a reader, or a process that comes after a kill, sees the old one or the new one."""
    temporary = path.with_name(f".{path.name}.unfinished")
    with temporary.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
