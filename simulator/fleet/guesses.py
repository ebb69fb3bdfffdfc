"""Which guesses of an answer are right, as the model asks it: where is the next wrong one. Pure."""

from __future__ import annotations

from simulator.acceptance.replay import ENDLESS, Acceptance, IndependentAcceptance
from simulator.fleet.settings import DrafterModel

NEVER = 1 << 40
"""Beyond every text."""

MIN_KEPT = 256
"""Positions that are looked up at once, so that answers of one seed share them."""

MOST_KEPT = 4096
"""Answers that are kept; above it all are forgotten."""

NOTHING = IndependentAcceptance((0.0,), seed=0)


class Guesses:
    """The guesses of one answer.

    Args:
        acceptance: says whether each is right.
        length: of the text.
    """

    __slots__ = ("next_wrong", "reach")

    def __init__(self, acceptance: Acceptance, *, length: int) -> None:
        guesses = [acceptance.at(position) for position in range(length)]
        self.next_wrong = [NEVER] * (length + 1)
        """By position: the first one from there on at which the draft's guess is wrong."""
        for position in range(length - 1, -1, -1):
            is_right = guesses[position].matches(1)
            self.next_wrong[position] = self.next_wrong[position + 1] if is_right else position
        reaches = [guess.reach if guess.num_candidates else 0 for guess in guesses]
        self.reach = None if all(reach >= ENDLESS for reach in reaches) else reaches
        """By position: how many tokens in a row the draft would guess from there; None if it never stops by itself."""

    def count(self, known: int, tip: int, *, most: int) -> int:
        """Return how many tokens the draft guesses at `tip`, the end of a chain that hangs at `known`."""
        if self.reach is None:
            return most
        most = min(most, self.reach[known] - (tip - known))
        num = 0
        while num < most and self.reach[tip + num]:
            num += 1
        return num


class GuessBook:
    """The guesses of all answers of a drafter, kept for those that share a seed.

    Args:
        drafter: whose guesses; without one none is right.
    """

    def __init__(self, drafter: DrafterModel | None) -> None:
        self._drafter = drafter
        self._kept: dict[tuple[int, int], Guesses] = {}

    def of(self, seed: int, *, length: int) -> Guesses:
        """Return the guesses of an answer of at most `length` tokens."""
        seed = seed if self._drafter is not None else 0
        rounded = MIN_KEPT
        while rounded <= length:
            rounded *= 2
        found = self._kept.get((seed, rounded))
        if found is None:
            if len(self._kept) >= MOST_KEPT:
                self._kept.clear()
            drafter = self._drafter
            guesses = NOTHING if drafter is None else drafter.guesses(seed)
            found = Guesses(guesses, length=rounded)
            self._kept[seed, rounded] = found
        return found
