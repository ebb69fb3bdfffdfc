"""How often and in which bursts a draft was right, against what independent draws of the same rate would give. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from simulator.acceptance.guess_trace import MOST_RANKS, GuessedText

LAGS = (1, 2, 4, 8)
RUNS = (1, 2, 4, 8, 16)


@dataclass(frozen=True, slots=True, kw_only=True)
class Burstiness:
    """Of the draft's first guesses in some texts."""

    num_positions: int
    by_rank: tuple[float, ...]
    """Part of the positions at which candidate 1, 2 ... was right."""
    runs: tuple[float, ...]
    """Chance that at least 1, 2, 3 ... 16 guesses in a row are right, counted from where one was wrong."""
    autocorrelation: tuple[float, ...]
    """Of being right, at distances LAGS; 0 for independent draws. NaN where it is not defined."""

    @property
    def acceptance(self) -> float:
        """Part of the positions at which the first candidate was right."""
        return self.by_rank[0]

    def within(self, rank: int) -> float:
        """Return the part of the positions at which one of the first `rank` candidates was right."""
        return sum(self.by_rank[:rank])

    def run_at_least(self, length: int) -> float:
        """Return the chance of a run of at least `length`; see `runs`."""
        return self.runs[length - 1]

    def tokens_per_round(self, draft_length: int) -> float:
        """Return how many tokens a verification of a chain yields on average."""
        return 1.0 + sum(self.runs[:draft_length])

    def independent_tokens_per_round(self, draft_length: int) -> float:
        """Return the same for independent draws of the same rate.

        Source: Leviathan et al., arXiv 2211.17192, equation 1.
        """
        return sum(self.acceptance**length for length in range(draft_length + 1))


def burstiness(texts: Sequence[GuessedText]) -> Burstiness:
    """Count; at least one text."""
    ranks = [text.ranks for text in texts]
    total = sum(map(len, ranks))
    counts = [sum(each.count(rank) for each in ranks) for rank in range(1, MOST_RANKS + 1)]
    right = [[rank == 1 for rank in each] for each in ranks]
    return Burstiness(
        num_positions=total,
        by_rank=tuple(count / total for count in counts),
        runs=_runs(right),
        autocorrelation=tuple(_autocorrelation(right, lag) for lag in LAGS),
    )


def _runs(texts: Sequence[Sequence[bool]]) -> tuple[float, ...]:
    """Return the chances of runs of 1 ... 16, from the chance to go on after j right ones.

    A run that the end of its text cuts off counts as far as it was seen (Kaplan and Meier, 1958).
    """
    seen, gone_on = [0] * max(RUNS), [0] * max(RUNS)
    for text in texts:
        length = 0
        for is_right in text:
            if length < len(seen):
                seen[length] += 1
                gone_on[length] += is_right
            length = length + 1 if is_right else 0
    chances, chance = [], 1.0
    for here, further in zip(seen, gone_on, strict=True):
        chance *= further / here if here else 0.0
        chances.append(chance)
    return tuple(chances)


def _autocorrelation(texts: Sequence[Sequence[bool]], lag: int) -> float:
    """Return the correlation of being right at two positions `lag` apart in the same text."""
    total = sum(map(len, texts))
    mean = sum(map(sum, texts)) / total
    pairs = [(text[index], text[index + lag]) for text in texts for index in range(len(text) - lag)]
    variance = mean * (1 - mean)
    if not pairs or variance == 0.0:
        return float("nan")
    return sum((a - mean) * (b - mean) for a, b in pairs) / len(pairs) / variance
