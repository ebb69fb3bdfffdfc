"""Keeps the C library from growing without end while arrays of ever new sizes come and go."""

from __future__ import annotations

import ctypes
import sys

_MMAP_THRESHOLD = -3  # M_MMAP_THRESHOLD of <malloc.h>
_LARGE_BYTES = 1 << 20


def return_large_blocks() -> None:
    """Have glibc give every freed block of a mebibyte or more back to the system at once.

    Left alone it raises that bound to 32 MiB and keeps what lies below in a heap full of holes: writing text took 10 GB
    after some minutes, with this 3 GB. Does nothing where there is no glibc.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, _LARGE_BYTES)
