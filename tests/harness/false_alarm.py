"""How likely a deviation this large is, were the claim true: p-values without a statistics package."""

import math

import torch
from torch import Tensor


def chi_square_p(observed: Tensor, expected: Tensor) -> float:
    """Return Pearson's p-value of counts against expected counts of the same total."""
    expected = expected.double()
    statistic = ((observed.double() - expected) ** 2 / expected).sum()
    freedom = torch.tensor((observed.numel() - 1) / 2, dtype=torch.float64)
    return float(torch.special.gammaincc(freedom, statistic / 2))


def uniform_p(values: Tensor) -> float:
    """Return a bound on the Kolmogorov-Smirnov p-value of values against the uniform law on [0, 1].

    The Dvoretzky-Kiefer-Wolfowitz inequality with Massart's constant: it holds for every sample size.
    """
    ordered = values.double().sort().values
    size = ordered.numel()
    steps = torch.arange(size + 1, dtype=torch.float64) / size
    distance = max(float((steps[1:] - ordered).max()), float((ordered - steps[:-1]).max()))
    return min(1.0, 2 * math.exp(-2 * size * distance**2))


def binomial_p(hits: int, *, trials: int, chance: float) -> float:
    """Return a bound on the two-sided p-value of a number of hits (Chernoff, with relative entropy)."""
    rate = hits / trials
    entropy = 0.0
    if rate > 0:
        entropy += rate * math.log(rate / chance)
    if rate < 1:
        entropy += (1 - rate) * math.log((1 - rate) / (1 - chance))
    return min(1.0, 2 * math.exp(-trials * entropy))
