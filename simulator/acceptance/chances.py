"""How likely each candidate of a draft is, as recorded: what a well calibrated draft would say of its own guesses. Pure."""

from __future__ import annotations

from math import log2

from simulator.acceptance.guess_trace import GuessTrace

FINENESS = 2
"""Bins of confidence for each doubling of it."""

PRIOR = 0.05
"""Every rank counts as met so often in each bin before anything is."""


class RankChances:
    """Shares of the ranks among recorded guesses of like confidence.

    Args:
        trace: of the pair of models.
        width: ranks 1 to this are told apart.
        temperature: only such answers; None: any.
    """

    def __init__(self, trace: GuessTrace, *, width: int, temperature: float | None = None) -> None:
        self._step = trace.confidence.step
        counts: dict[int, list[float]] = {}
        everything = [PRIOR] * (width + 1)
        for text in trace.chosen(temperature=temperature):
            for rank, sure in zip(text.ranks, text.confidence, strict=True):
                place = rank if 1 <= rank <= width else 0
                for found in (counts.setdefault(_bin(sure), [PRIOR] * (width + 1)), everything):
                    found[place] += 1.0
        self._shares = {key: _shares(found) for key, found in counts.items()}
        self._mean = _shares(everything)

    def at(self, confidence: float) -> tuple[float, ...]:
        """Return the chance of each rank, the first candidate's first.

        Args:
            confidence: in the unit of the trace.
        """
        return self._shares.get(_bin(confidence / self._step), self._mean)


def _bin(steps: float) -> int:
    return int(log2(1.0 + steps) * FINENESS)


def _shares(counts: list[float]) -> tuple[float, ...]:
    return tuple(count / sum(counts) for count in counts[1:])
