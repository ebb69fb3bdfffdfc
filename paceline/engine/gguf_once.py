"""Makes transformers read a GGUF file once per model instead of once per part, and without progress bars of its own.

transformers parses the whole file, every vocabulary entry in Python, for the configuration, again for the tokenizer and
again for the weights, and builds one and the same table of tensor names for every module of the model. Nothing of what
the parser returns is ever written to, so within `reading_once` the first result serves all. Where a version of
transformers or gguf lacks a name that is looked for here, that part is simply as slow, or as loud, as it comes.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache, partial
from typing import Any

import gguf
from transformers import modeling_gguf_pytorch_utils as converter

_lock = threading.RLock()
"""Names of other modules are replaced meanwhile: one thread at a time."""
_depth = 0


@contextmanager
def reading_once() -> Iterator[None]:
    """Parse a file once until this is left, when all that was kept is let go. May be nested; the outermost counts."""
    global _depth  # noqa: PLW0603 - under the lock
    with _lock, ExitStack() as stack:
        if _depth == 0:
            stack.enter_context(_replaced(gguf, "GGUFReader", _once_per_file))
            stack.enter_context(_replaced(gguf, "get_tensor_name_map", cache))
            stack.enter_context(
                _replaced(converter, "tqdm", lambda bar: partial(bar, disable=True))
            )
        _depth += 1
        try:
            yield
        finally:
            _depth -= 1


def _once_per_file(read: Callable[[str], Any]) -> Callable[[str | os.PathLike[str]], Any]:
    """Return a reader that remembers what it read, by path."""
    known = cache(read)
    return lambda path: known(os.fspath(path))


@contextmanager
def _replaced(module: Any, name: str, change: Callable[[Any], Any]) -> Iterator[None]:
    """Put `change` of what a module calls `name` in its place; nothing if it knows no such name."""
    before = getattr(module, name, None)
    if before is None:
        yield
        return
    setattr(module, name, change(before))
    try:
        yield
    finally:
        setattr(module, name, before)
