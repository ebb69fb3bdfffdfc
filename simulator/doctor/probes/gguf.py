"""Looks at GGUF files that llama.cpp is to draft with: at their headers only, their weights are left alone."""

import importlib.metadata
import struct
from dataclasses import replace
from pathlib import Path

from edge.draft_spec import CombinationSpec, HierarchySpec, LlamaSpec, Spec, TreeSpec
from edge.drafters.llama.library import DISTRIBUTION, library
from edge.drafters.llama.spelling import check_words
from paceline.engine.gguf_header import quantisation_of, words_of
from paceline.engine.source import load_tokenizer, resolve
from paceline.errors import ConfigError, IncompatibleError, PacelineError
from simulator.doctor.verdicts.gguf import GgufFinding


def gguf_files(spec: Spec) -> tuple[str, ...]:
    """Return the files that llama.cpp computes for a drafter."""
    match spec:
        case LlamaSpec():
            return (spec.file,)
        case CombinationSpec():
            return tuple(file for part in spec.parts for file in gguf_files(part))
        case HierarchySpec():
            return tuple(file for part in spec.helpers for file in gguf_files(part))
        case TreeSpec():
            return gguf_files(spec.model)
        case _:
            return ()


def look_at_gguf(file: str, *, target: str | None) -> GgufFinding:
    """Return what can be told of a file without its weights.

    Args:
        file: as it stands behind llama:.
        target: the target's name, as in --target; None if it cannot be used, so that there is nothing to compare with.
    """
    path = Path(file).expanduser()
    version, library_error = _library()
    found = GgufFinding(name=file, library=version, library_error=library_error)
    if not path.is_file():
        return replace(found, error=f"{file}: there is no such file")
    try:
        quantisation, words = quantisation_of(path), words_of(path)
        file_bytes = path.stat().st_size
    except (OSError, ValueError, struct.error) as error:
        return replace(found, error=f"{file}: no whole GGUF file: {error}")
    return replace(
        found,
        quantisation=quantisation,
        num_words=len(words),
        file_bytes=file_bytes,
        differs="" if target is None else _difference(words, path=path, target=target),
    )


def _difference(words: tuple[str, ...], *, path: Path, target: str) -> str:
    """Return why ids mean other words than the target's, or nothing."""
    try:
        tokenizer = load_tokenizer(resolve(target))
        check_words(words.__getitem__, count=len(words), path=path, tokenizer=tokenizer)
    except IncompatibleError as error:
        return str(error).removeprefix("draft: ")
    except PacelineError as error:  # it was there a moment ago
        return f"{target}: {error}"
    return ""


def _library() -> tuple[str, str]:
    """Return the library's version, or why it cannot be used."""
    try:
        library()
        return importlib.metadata.version(DISTRIBUTION), ""
    except ConfigError as error:
        return "", str(error).removeprefix("draft: ")
