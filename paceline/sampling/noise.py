"""The shared noise: one exponential per (seed, position, token), the same on both sides of the link.

Shape suffixes: V = vocabulary, C = one chunk of it.

The integers are bit-identical on every device: int64 arithmetic wraps, and a shift to the right is masked because
torch shifts in the sign. The two logarithms may differ in their last bit between devices and math libraries.
"""

import threading
from functools import lru_cache

import torch
from torch import Tensor

from paceline.sampling.hashing import (
    GOLDEN,
    LAST_MULTIPLIER,
    MIX_FIRST,
    MIX_SECOND,
    position_keys,
    signed,
)

CPU_CHUNK = 32768
"""Entries hashed at a time on a CPU: two int64 buffers of it fill 512 KiB, which stays in a core's L2 cache, and torch
splits no operation of this size over threads, so noise never waits for a core that something else is busy on."""

DEFAULT_CACHE_BYTES = 32 * 2**20
"""Noise kept per session: 170 positions of 49,152 tokens, or 32 of 262,144. More pays only for deeper trees."""

SIGN_BIT = -(2**63)
UNIT = 2.0**-63 * (1 - 2.0**-24)
"""Maps [-2**63, -1] to u in (0, 1): the factor below 1 keeps u off 1, where the exponential would be infinite."""

_scratch = threading.local()


class NoiseCache:
    """The noise of one session by position, scaled by its temperature, bounded in bytes.

    Belongs to one thread. Holds at least one position, whatever the bound.
    """

    def __init__(
        self,
        *,
        seed: int,
        scale: float,
        vocabulary_size: int,
        device: torch.device,
        max_bytes: int = DEFAULT_CACHE_BYTES,
        tokens: Tensor | None = None,
    ) -> None:
        """Make an empty cache.

        Args:
            seed: as in `noise`.
            scale: as in `noise`.
            vocabulary_size: as in `noise`; the number of `tokens`.
            device: as in `noise`.
            max_bytes: bound of what is kept.
            tokens: [V] int64: keep the noise of these tokens, in this order; None: of the first ones.
        """
        self._words = None if tokens is None else token_words(tokens)
        self._seed = seed
        self._scale = scale
        self._vocabulary_size = vocabulary_size
        self._device = device
        self._max_rows = max(1, max_bytes // (4 * vocabulary_size))
        self._first = 0
        self._rows: dict[int, Tensor] = {}

    @property
    def num_bytes(self) -> int:
        """Bytes of noise held now."""
        return 4 * self._vocabulary_size * len(self._rows)

    def get(self, position: int) -> Tensor:
        """Return scale * noise at a position, [V] float32; not to be written to.

        When full, the farthest position makes room: what comes next is needed first.
        """
        row_V = self._rows.get(position)
        if row_V is None:
            row_V = self._compute(position)
            if position >= self._first:
                while len(self._rows) >= self._max_rows:
                    del self._rows[max(self._rows)]
                self._rows[position] = row_V
        return row_V

    def prepare(self, position: int) -> bool:
        """Compute the noise of a position ahead of time; return whether there was anything to do and room for it."""
        full = len(self._rows) >= self._max_rows
        if full or position < self._first or position in self._rows:
            return False
        self._rows[position] = self._compute(position)
        return True

    def forget_before(self, position: int) -> None:
        """Drop positions before this one; they are committed and never drawn again."""
        self._first = max(self._first, position)
        for old in [known for known in self._rows if known < self._first]:
            del self._rows[old]

    def _compute(self, position: int) -> Tensor:
        return noise(
            self._seed,
            position=position,
            vocabulary_size=self._vocabulary_size,
            device=self._device,
            scale=self._scale,
            words=self._words,
        )


def noise(
    seed: int,
    *,
    position: int,
    vocabulary_size: int,
    device: torch.device | str = "cpu",
    scale: float = 1.0,
    words: Tensor | None = None,
) -> Tensor:
    """Return scale * -log(E) of every token at a position, with E exponential of rate 1: [V] float32.

    -log(E) is standard Gumbel noise: the argmax of logits + temperature * noise is a draw from
    softmax(logits / temperature).

    Args:
        seed: 0 <= seed < 2**64.
        position: absolute position of the token to be drawn.
        vocabulary_size: number of token ids; the noise of a token does not depend on it.
        device: where to compute it.
        scale: the temperature. Scaled once here, so that a row's score is one addition, which rounds the same
            on every device and for every batch (a fused multiply-add does not).
        words: [V] what `token_words` says of other tokens than the first ones.
    """
    device = torch.device(device)
    out_V = torch.empty(vocabulary_size, dtype=torch.float32, device=device)
    words_V = _first_words(vocabulary_size, device) if words is None else words
    chunk = CPU_CHUNK if device.type == "cpu" else vocabulary_size
    keys = position_keys(seed, position)
    for start in range(0, vocabulary_size, chunk):
        out_C = out_V[start : start + chunk]
        hash_C = _hash(words_V[start : start + chunk], keys)
        _negated_uniforms(hash_C, out=out_C).log1p_().neg_().log_().mul_(-scale)
    return out_V


def hash_tokens(seed: int, *, position: int, tokens: Tensor) -> Tensor:
    """Return the 64-bit hash of (seed, position, token) for int64 token ids, as int64 with the same bits."""
    return _hash(token_words(tokens), position_keys(seed, position)).clone()


def token_words(tokens: Tensor) -> Tensor:
    """Return splitmix64's stream from state 0 at int64 token ids, one word per token."""
    return _mix(tokens.add(1).mul_(signed(GOLDEN)))


def _negated_uniforms(hash_C: Tensor, *, out: Tensor) -> Tensor:
    """Write -u to `out`, with u from about 2**-63 to below 1 made of the low 63 bits of each hash; overwrites the hashes.

    Setting the sign bit leaves those bits as an integer in [-2**63, -1]: never 0, so that log(E) stays finite.
    Conversion to float32 takes the exponent from the leading bits and rounds the next 24 to the mantissa, so u is as
    precise near 0, where the smallest E decides, as anywhere. Both steps are exact IEEE operations.
    """
    out.copy_(hash_C.bitwise_or_(SIGN_BIT))
    return out.mul_(UNIT)


def _hash(words_C: Tensor, keys: tuple[int, int]) -> Tensor:
    """Return the hashes of token words under a position's keys; valid until the next call in this thread.

    Token words are well mixed already, and both keys are, so one multiplication by a random odd key, a fold of the
    high half onto the low one and a last multiplication suffice: 6 passes over the words.
    """
    hash_C, shifted_C = _buffers(words_C)
    torch.bitwise_xor(words_C, signed(keys[0]), out=hash_C)
    hash_C.mul_(signed(keys[1]))
    _fold(hash_C, shifted_C, bits=32)
    return hash_C.mul_(signed(LAST_MULTIPLIER))


def _fold(value: Tensor, buffer: Tensor, *, bits: int) -> None:
    """Xor an int64 tensor with itself shifted right, zeros coming in."""
    torch.bitwise_right_shift(value, bits, out=buffer)
    value.bitwise_xor_(buffer.bitwise_and_(2 ** (64 - bits) - 1))


def _mix(value: Tensor) -> Tensor:
    """Apply `hashing.mix` in place."""
    buffer = torch.empty_like(value)
    _fold(value, buffer, bits=30)
    _fold(value.mul_(signed(MIX_FIRST)), buffer, bits=27)
    _fold(value.mul_(signed(MIX_SECOND)), buffer, bits=31)
    return value


@lru_cache(maxsize=8)
def _first_words(vocabulary_size: int, device: torch.device) -> Tensor:
    """Return the words of the first tokens, [V] int64; shared by all sessions."""
    with torch.inference_mode(mode=False):
        return token_words(torch.arange(vocabulary_size, dtype=torch.int64, device=device))


def _buffers(words_C: Tensor) -> tuple[Tensor, Tensor]:
    """Return two int64 buffers of this thread, as long as `words_C` and on its device.

    Fresh ones would cost more in page faults than the arithmetic does.
    """
    key = str(words_C.device)
    pair: tuple[Tensor, Tensor] | None = _scratch.__dict__.get(key)
    size = words_C.numel()
    if pair is None or pair[0].numel() < size:
        # A tensor made in inference mode could not be written to outside of it.
        with torch.inference_mode(mode=False):
            empty = torch.empty((2, size), dtype=torch.int64, device=words_C.device)
            pair = (empty[0], empty[1])
        _scratch.__dict__[key] = pair
    return pair[0][:size], pair[1][:size]
