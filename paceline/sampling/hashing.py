"""The integer half of the shared noise: keys from (seed, position) and the words they are mixed with.

All arithmetic is on unsigned 64-bit integers that wrap. docs/sampling.md states the whole algorithm for other
languages; tests/data/noise_vectors.json holds values to check one against.
"""

MASK_64 = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
"""Odd number next to 2**64 divided by the golden ratio: the step of splitmix64's counter."""

MIX_FIRST = 0xBF58476D1CE4E5B9
MIX_SECOND = 0x94D049BB133111EB
"""Multipliers of splitmix64's finaliser (Stafford's variant 13)."""

LAST_MULTIPLIER = 0xD6E8FEB86659FD93
"""Multiplier of the last round of the hash (degski's 64-bit mixer)."""

CHOICE_SALT = 0x632BE59BD9B4E019
"""Keeps seeds of further choices apart from the keys of any position."""


def mix(value: int) -> int:
    """Return splitmix64's finaliser of an integer, of which the low 64 bits count; a bijection on them."""
    value &= MASK_64
    value = (value ^ (value >> 30)) * MIX_FIRST & MASK_64
    value = (value ^ (value >> 27)) * MIX_SECOND & MASK_64
    return value ^ (value >> 31)


def position_keys(seed: int, position: int) -> tuple[int, int]:
    """Return the two keys of a position: one to xor with, and an odd one to multiply by.

    They are the outputs 2 * position and 2 * position + 1 of splitmix64 started at mix(seed + GOLDEN). Both
    keys together have 127 bits, so two (seed, position) pairs never share noise by accident.

    Args:
        seed: 0 <= seed < 2**64.
        position: absolute position of the token to be drawn, at least 0.
    """
    start = mix(seed + GOLDEN)
    xor_key = mix(start + (2 * position + 1) * GOLDEN)
    multiply_key = mix(start + (2 * position + 2) * GOLDEN) | 1
    return xor_key, multiply_key


def choice_seed(seed: int, choice_index: int) -> int:
    """Return the seed of one of several choices for the same request.

    The first choice keeps the seed of the request, so asking for more choices does not change it.

    Args:
        seed: the seed of the request, 0 <= seed < 2**64.
        choice_index: 0 for the first choice.
    """
    if choice_index == 0:
        return seed
    return mix(mix(seed ^ CHOICE_SALT) + choice_index * GOLDEN)


def signed(value: int) -> int:
    """Return the signed 64-bit integer with the bits of an unsigned one, as torch.int64 wants it."""
    return value - 2**64 if value >= 2**63 else value
