"""The llama-cpp-python library, imported only when a draft asks for it: it is an optional extra."""

from __future__ import annotations

import logging
from functools import cache
from importlib import import_module
from importlib.metadata import version
from typing import Any

from paceline.errors import ConfigError

log = logging.getLogger(__name__)

INSTALL = "pip install 'paceline[llama]'"
DISTRIBUTION = "llama-cpp-python"
LEAST_VERSION = "0.3.36"
"""Older ones lack some of what is called here, or call it otherwise."""

_NEEDED = ("llama_memory_seq_rm", "llama_memory_seq_cp", "llama_init_from_model", "llama_log_set")
_kept: list[Any] = []
"""What the library may call as long as it lives, so for good."""
_SAID: dict[int, int] = {3: logging.INFO, 4: logging.WARNING}
"""Log levels of ggml (`ggml_log_level` in ggml.h) that are more than chatter, as Python's."""


@cache
def library() -> Any:
    """Return llama.cpp's C API.

    Raises:
        ConfigError: it is not installed, or too old; says how to install it.
    """
    try:
        api = import_module("llama_cpp.llama_cpp")
    except (ImportError, OSError, RuntimeError) as error:  # a library for another machine included
        raise ConfigError(
            f"draft: llama: drafts run on {DISTRIBUTION}, which cannot be imported ({error}); install it with: {INSTALL}, "
            "which compiles C++ for some minutes, and see docs/llama.md"
        ) from error
    if not all(hasattr(api, name) for name in _NEEDED):
        raise ConfigError(
            f"draft: got {DISTRIBUTION} {version(DISTRIBUTION)}, expected {LEAST_VERSION} or later; upgrade it with: {INSTALL}"
        )
    callback = api.llama_log_callback(_told)
    api.llama_log_set(callback, None)
    _kept.append(callback)
    api.llama_backend_init()
    return api


def _told(level: int, text: bytes, _: Any) -> None:
    """Put what llama.cpp says into our log."""
    if sentence := text.decode(errors="replace").strip():
        log.log(_SAID.get(level, logging.DEBUG), "llama.cpp: %s", sentence)
