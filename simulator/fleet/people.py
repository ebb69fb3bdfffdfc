"""When people ask, and how long questions and answers are. Pure; drawn from seeds.

Questions of one edge come as a Poisson process: at random, every so often on average, whatever was answered before. Who is still
reading an answer asks right after it. Lengths are log-normal, as lengths of texts are.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

from numpy.random import Generator, default_rng

from paceline.errors import ConfigError
from simulator.fleet.settings import Ask

PEOPLE = 3
"""Tells these seeds from others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class People:
    """What people do, the same at every edge.

    The mean lengths are those of LMSYS-Chat-1M (Zheng et al., arXiv 2309.11998, table 1); the spreads are ours.

    Raises:
        ConfigError: a field is out of its range.
    """

    every_s: float
    """Mean time from one question to the next at an edge."""
    prompt_tokens: float = 69.5
    """Mean."""
    prompt_spread: float = 1.0
    """Standard deviation of the logarithm; 0: all are as long as the mean."""
    answer_tokens: float = 214.5
    answer_spread: float = 1.0
    most_tokens: int = 1024
    """Longer prompts and answers are cut here."""
    num_texts: int = 512
    """Different answers: which guesses are right is drawn from so many."""

    def __post_init__(self) -> None:
        """Check the fields."""
        for item in fields(self):
            value, least = getattr(self, item.name), 0.0 if item.name.endswith("spread") else 1e-9
            if not least <= value < math.inf:
                raise ConfigError(
                    f"{item.name}: got {value}, expected a number {'of at least 0' if not least else 'above 0'}"
                )
        if self.most_tokens < max(self.prompt_tokens, self.answer_tokens):
            raise ConfigError(
                f"most_tokens: got {self.most_tokens}, expected at least the mean lengths, "
                f"{self.prompt_tokens:g} and {self.answer_tokens:g}"
            )

    @property
    def mean_answer_tokens(self) -> float:
        """Mean length of answers once the longest are cut, rounding aside."""
        return _cut_mean(self.answer_tokens, self.answer_spread, most=self.most_tokens)

    def asks(self, *, seed: int, edge: int) -> Iterator[Ask]:
        """Return the questions of an edge, without end."""
        generator = default_rng((PEOPLE, seed, edge))
        at_s = 0.0
        while True:
            at_s += float(generator.exponential(self.every_s))  # numpy's own floats are slow
            yield Ask(
                at_s=at_s,
                prompt_tokens=self._length(self.prompt_tokens, self.prompt_spread, generator),
                max_tokens=self._length(self.answer_tokens, self.answer_spread, generator),
                seed=int(generator.integers(self.num_texts)),
            )

    def _length(self, mean: float, spread: float, generator: Generator) -> int:
        drawn = math.exp(_log_median(mean, spread) + spread * generator.standard_normal())
        return max(1, min(self.most_tokens, round(drawn)))


def _log_median(mean: float, spread: float) -> float:
    """Return the mean of the logarithm of a log-normal distribution."""
    return math.log(mean) - spread * spread / 2.0


def _cut_mean(mean: float, spread: float, *, most: float) -> float:
    """Return the mean of min(X, most) for a log-normal X."""
    if spread == 0.0:
        return min(mean, most)
    place = (math.log(most) - _log_median(mean, spread)) / spread
    return mean * _normal(place - spread) + most * (1.0 - _normal(place))


def _normal(value: float) -> float:
    """Return the chance that a standard normal variable is below a value."""
    return 0.5 * math.erfc(-value / math.sqrt(2.0))
