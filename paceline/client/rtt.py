"""How far away a verifier is: the smallest of the recent measurements, since everything else only adds. Pure."""

from collections import deque

from paceline.settings import Address

RECENT = 8
"""Measurements remembered per verifier."""


class RttMeter:
    """Round trips by verifier."""

    def __init__(self) -> None:
        self._recent: dict[Address, deque[float]] = {}

    def add(self, address: Address, rtt_s: float) -> None:
        """Remember one measurement."""
        self._recent.setdefault(address, deque(maxlen=RECENT)).append(rtt_s)

    def rtt_s(self, address: Address) -> float:
        """Return the smallest recent one in seconds; 0 if there is none."""
        return min(self._recent.get(address, ()), default=0.0)
