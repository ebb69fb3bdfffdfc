"""Memory for weights on huge pages, where the system has them.

A step reads all weights. With pages of 4 KiB a part of that time goes into finding out where they are, and the processor
fetches ahead within a page only.
"""

from __future__ import annotations

import mmap

import torch
from torch import Tensor

_PAGE_BYTES = 2 << 20
_REGION_BYTES = 32 << 20
"""Asked for at once. What is not written to takes no memory."""
_ALIGNMENT = 64


class HugePages:
    """Places tensors one behind another. A region lives as long as a tensor in it."""

    def __init__(self) -> None:
        self._region: Tensor | None = None
        self._used = 0

    def place(self, values: Tensor) -> Tensor:
        """Return a tensor on the CPU with these values; the same one where the system has no huge pages."""
        values = values.contiguous()
        num_bytes = values.numel() * values.element_size()
        if self._region is None or self._used + num_bytes > len(self._region):
            self._region, self._used = _region(max(num_bytes, _REGION_BYTES)), 0
        if self._region is None:
            return values
        part = self._region[self._used : self._used + num_bytes]
        self._used += -(-num_bytes // _ALIGNMENT) * _ALIGNMENT
        return part.view(values.dtype).view(values.shape).copy_(values)


def _region(num_bytes: int) -> Tensor | None:
    """Return that many bytes, which begin with a huge page; None where the system has none."""
    if not hasattr(mmap, "MADV_HUGEPAGE"):
        return None
    # One page more, for where the first one begins.
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = mmap.mmap(-1, num_bytes + _PAGE_BYTES, flags=flags)
    try:
        memory.madvise(mmap.MADV_HUGEPAGE)
    except OSError:  # a kernel built without them
        return None
    whole = torch.frombuffer(memory, dtype=torch.uint8)
    first = -whole.data_ptr() % _PAGE_BYTES
    return whole[first : first + num_bytes]
