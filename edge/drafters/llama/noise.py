"""The shared noise in NumPy: the same integers as `paceline.sampling.noise`, for an edge without PyTorch.

docs/sampling.md states the algorithm. The two logarithms may differ in their last bit from PyTorch's, as they may from device
to device there.

Shape suffixes: V = vocabulary, C = one chunk of it.
"""

# ruff: noqa: N806 - arrays carry shape suffixes
from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from paceline.sampling.hashing import (
    GOLDEN,
    LAST_MULTIPLIER,
    MASK_64,
    MIX_FIRST,
    MIX_SECOND,
    position_keys,
)

Floats = NDArray[np.float32]
Words = NDArray[np.uint64]

CHUNK = 32768
"""Entries hashed at a time: two buffers of it stay in a core's L2 cache."""

MAX_BYTES = 16 * 2**20
"""Noise kept per generation; one position is always kept."""

_SIGN_BIT = np.uint64(2**63)
_UNIT = np.float32(2.0**-63 * (1 - 2.0**-24))
"""Maps [-2**63, -1] to u in (-1, 0): the factor below 1 keeps u off -1, where the exponential would be infinite."""


class NoiseCache:
    """The noise of one generation by position, scaled by its temperature, bounded in bytes.

    Args:
        seed: 0 <= seed < 2**64.
        scale: the temperature.
        vocabulary_size: number of token ids.
    """

    def __init__(self, *, seed: int, scale: float, vocabulary_size: int) -> None:
        self._seed = seed
        self._scale = scale
        self._vocabulary_size = vocabulary_size
        self._max_rows = max(1, MAX_BYTES // (4 * vocabulary_size))
        self._rows: dict[int, Floats] = {}

    def get(self, position: int) -> Floats:
        """Return scale * noise at a position, [V]; not to be written to. When full, the lowest position makes room."""
        row_V = self._rows.get(position)
        if row_V is None:
            while len(self._rows) >= self._max_rows:
                del self._rows[min(self._rows)]
            row_V = noise(
                self._seed,
                position=position,
                vocabulary_size=self._vocabulary_size,
                scale=self._scale,
            )
            self._rows[position] = row_V
        return row_V


def noise(seed: int, *, position: int, vocabulary_size: int, scale: float = 1.0) -> Floats:
    """Return scale * -log(E) of every token at a position, with E exponential of rate 1: [V].

    Args:
        seed: 0 <= seed < 2**64.
        position: absolute position of the token to be drawn.
        vocabulary_size: number of token ids; the noise of a token does not depend on it.
        scale: the temperature.
    """
    out_V = np.empty(vocabulary_size, dtype=np.float32)
    words_V = _token_words(vocabulary_size)
    xor_key, multiply_key = (np.uint64(key) for key in position_keys(seed, position))
    for start in range(0, vocabulary_size, CHUNK):
        hash_C = words_V[start : start + CHUNK] ^ xor_key
        hash_C *= multiply_key
        hash_C ^= hash_C >> np.uint64(32)
        hash_C *= np.uint64(LAST_MULTIPLIER)
        hash_C |= _SIGN_BIT
        out_C = out_V[start : start + CHUNK]
        out_C[:] = hash_C.view(np.int64)
        out_C *= _UNIT
        np.log1p(out_C, out=out_C)
        np.negative(out_C, out=out_C)
        np.log(out_C, out=out_C)
        out_C *= np.float32(-scale)
    return out_V


@lru_cache(maxsize=4)
def _token_words(vocabulary_size: int) -> Words:
    """Return splitmix64's stream from state 0, one word per token, [V]; shared by all generations."""
    words_V = np.arange(1, vocabulary_size + 1, dtype=np.uint64) * np.uint64(GOLDEN & MASK_64)
    words_V ^= words_V >> np.uint64(30)
    words_V *= np.uint64(MIX_FIRST)
    words_V ^= words_V >> np.uint64(27)
    words_V *= np.uint64(MIX_SECOND)
    words_V ^= words_V >> np.uint64(31)
    return words_V
