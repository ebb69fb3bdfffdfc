"""Whether what was learned is used: only while it is right where the plain draft is wrong, clearly more often than the other way round.

At each judged place is known what both had as their first guess, whichever was sent: the two are compared on the same places, each place before
it is learned from. Places where both are right or both wrong say nothing (McNemar's test); old ones fade, since text changes.
"""

from math import sqrt

OPEN = 2.0
"""Standard deviations by which the learned one must lead to be used."""
CLOSE = 0.5
"""With less lead it is not used any longer."""
FADING = 1 - 1 / 1024
"""What a judged place keeps of its weight when another one is judged."""


class Gate:
    """Compares; begins closed."""

    def __init__(self) -> None:
        self.is_open = False
        """The learned one is used."""
        self._wins = 0.0
        self._losses = 0.0

    @property
    def lead(self) -> float:
        """By how many standard deviations the learned one is ahead; one place counts as a doubt."""
        return (self._wins - self._losses) / sqrt(self._wins + self._losses + 1.0)

    def note(self, *, plain: bool, learned: bool) -> None:
        """Count a judged place: whose first guess was the target's token?"""
        self._wins = self._wins * FADING + (learned and not plain)
        self._losses = self._losses * FADING + (plain and not learned)
        self.is_open = self.lead >= (CLOSE if self.is_open else OPEN)
