"""The shared noise in plain Python integers and doubles, written from docs/sampling.md and nothing else."""

import math
import struct

M = 2**64 - 1
G = 0x9E3779B97F4A7C15


def mix(z: int) -> int:
    z &= M
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & M
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & M
    return z ^ (z >> 31)


def hash64(seed: int, position: int, token: int) -> int:
    word = mix((token + 1) * G)
    start = mix(seed + G)
    x = word ^ mix(start + (2 * position + 1) * G)
    x = (x * (mix(start + (2 * position + 2) * G) | 1)) & M
    x ^= x >> 32
    return (x * 0xD6E8FEB86659FD93) & M


def single(value: float) -> float:
    """Round to float32, ties to even."""
    return float(struct.unpack("<f", struct.pack("<f", value))[0])


def single_of_int(value: int) -> float:
    """Round an integer below 2**64 to float32, ties to even, without rounding to float64 first."""
    spare = max(value.bit_length() - 24, 0)
    kept, rest = value >> spare, value & ((1 << spare) - 1)
    half = (1 << spare) >> 1
    if spare and (rest > half or (rest == half and kept & 1)):
        kept += 1
    return math.ldexp(kept, spare)


def uniform(hashed: int) -> float:
    """Return u, from about 2**-63 to below 1, a float32."""
    return single(single_of_int(2**63 - (hashed & (2**63 - 1))) * (2.0**-63 * (1 - 2.0**-24)))


def gumbel(hashed: int) -> float:
    """Return -log(-log1p(-u)) in double precision."""
    return -math.log(-math.log1p(-uniform(hashed)))


def choice_seed(seed: int, choice: int) -> int:
    return seed if choice == 0 else mix(mix(seed ^ 0x632BE59BD9B4E019) + choice * G)
