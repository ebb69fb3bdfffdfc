"""Learning rate over a training, as a share of its peak."""

import math

WARM_UP = 0.03
"""Share of the steps in which the rate rises."""
LAST = 0.02
"""Share of the peak at which it ends."""


def rate_share(step: int, num_steps: int) -> float:
    """Return the share of the peak rate at a step from 0 on: a straight rise, then half a cosine."""
    rise = max(1, round(WARM_UP * num_steps))
    if step < rise:
        return (step + 1) / rise
    place = min(1.0, (step - rise) / max(1, num_steps - rise))
    return LAST + (1 - LAST) * 0.5 * (1 + math.cos(math.pi * place))
