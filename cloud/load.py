"""How busy a verifier was over the last seconds. Pure: whoever asks brings the time.

What happened is kept in slices of one second, so that memory and cost are the same for steps of 1 ms and of 10 s. A step
counts when it ends.
"""

from dataclasses import dataclass

SLICE_S = 1.0
NUM_SLICES = 5
"""The newest slice is the running second, so that the window covers the last 4 to 5 s."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Means over the window."""

    step_s: float = 0.0
    """Time of a step; that of the last steps there were if there was none in the window; 0 before the first."""
    queue_s: float = 0.0
    """How long a session waited for its step; 0 if nobody was served."""
    busy: float = 0.0
    """Part of the time in which the model worked; 0 to 1."""
    row_price_s: float = 0.0
    """What one more draft row costs the other sessions of its step together, in seconds of their waiting, as
    `cloud.scheduler` has it; the mean over the steps."""


@dataclass(slots=True, kw_only=True)
class _Slice:
    """Sums over the steps that ended within one second."""

    number: int
    num_steps: int = 0
    step_s: float = 0.0
    num_served: int = 0
    queue_s: float = 0.0
    row_price_s: float = 0.0


class LoadWindow:
    """Takes every step and tells the load.

    Args:
        started_s: when the verifier began; the window does not reach farther back.
    """

    def __init__(self, *, started_s: float) -> None:
        self._started_s = started_s
        self._slices: list[_Slice] = []
        self._last_step_s = 0.0

    def add_step(self, *, ended_s: float, step_s: float, row_price_s: float) -> None:
        """Take a step."""
        found = self._slice(ended_s)
        found.num_steps += 1
        found.step_s += step_s
        found.row_price_s += row_price_s

    def add_served(self, *, ended_s: float, queue_s: float) -> None:
        """Take a session that got tokens from a step."""
        found = self._slice(ended_s)
        found.num_served += 1
        found.queue_s += queue_s

    def load(self, *, now_s: float) -> Load:
        """Return how things are now."""
        self._forget(now_s)
        num_steps = sum(each.num_steps for each in self._slices)
        if num_steps == 0:
            return Load(step_s=self._last_step_s)
        worked_s = sum(each.step_s for each in self._slices)
        num_served = sum(each.num_served for each in self._slices)
        since_s = max((_number(now_s) - NUM_SLICES + 1) * SLICE_S, self._started_s)
        self._last_step_s = worked_s / num_steps
        return Load(
            step_s=self._last_step_s,
            queue_s=sum(each.queue_s for each in self._slices) / max(1, num_served),
            # A step may have begun before the window.
            busy=min(1.0, worked_s / max(now_s - since_s, 1e-9)),
            row_price_s=sum(each.row_price_s for each in self._slices) / num_steps,
        )

    def _slice(self, at_s: float) -> _Slice:
        number = _number(at_s)
        if not self._slices or self._slices[-1].number != number:
            self._forget(at_s)
            self._slices.append(_Slice(number=number))
        return self._slices[-1]

    def _forget(self, now_s: float) -> None:
        oldest = _number(now_s) - NUM_SLICES + 1
        kept = [each for each in self._slices if each.number >= oldest]
        if self._slices and not kept:
            last = [each for each in self._slices if each.num_steps]
            if last:
                self._last_step_s = last[-1].step_s / last[-1].num_steps
        self._slices = kept


def _number(at_s: float) -> int:
    return int(at_s // SLICE_S)
