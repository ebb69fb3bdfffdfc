"""How far two texts agree."""

from collections.abc import Sequence

from paceline.tokens import TokenId


def common_length(left: Sequence[TokenId], right: Sequence[TokenId]) -> int:
    """Return the length of the longest common beginning; the comparisons run in C, on halves of what is left."""
    low, high = 0, min(len(left), len(right))
    if tuple(left[:high]) == tuple(right[:high]):
        return high
    while low + 1 < high:  # they agree up to `low` and differ before `high`
        middle = (low + high) // 2
        if tuple(left[low:middle]) == tuple(right[low:middle]):
            low = middle
        else:
            high = middle
    return low
