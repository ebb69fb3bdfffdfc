"""Shape of one row of the cache and the memory it takes."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class KVLayout:
    """What every layer of a model stores for one row."""

    num_layers: int
    num_kv_heads: int
    head_dim: int
    dtype: torch.dtype
    device: torch.device

    @property
    def row_bytes(self) -> int:
        """Keys and values of one row in all layers."""
        elements = self.num_layers * 2 * self.num_kv_heads * self.head_dim
        return elements * self.dtype.itemsize

    def allocate(self, num_rows: int) -> Tensor:
        """A new buffer [layers, 2, kv heads, rows, head dim], contents undefined."""
        shape = (self.num_layers, 2, self.num_kv_heads, num_rows, self.head_dim)
        return torch.empty(shape, dtype=self.dtype, device=self.device)
