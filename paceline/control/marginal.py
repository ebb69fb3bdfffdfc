"""Which guesses of a tree are worth sending: a pure function of what was measured, used by the edge for drafters of trees.

A guess that is there in time adds its chance to the tokens that a step commits, and costs what the step gets longer by its row, what
others wait for it, and its bytes. A step of E tokens in T seconds gains by it while

    chance / cost > E / T        or        chance >= cost * E / T = floor

(the rule for ratios of sums: what raises E / T is what is worth more than E / T). What comes late is worth less; the tree knows of
each guess whether it does (`paceline.session.pace`). `docs/tree-stream.md` derives both, and says what was tried and lost.
"""

import math
from dataclasses import dataclass, fields, replace

from paceline.errors import LocalProtocolError
from paceline.session.growth import Growth
from paceline.session.pace import Pace

BYTE_S = 48e-6
"""What a byte of a proposal is taken to cost, in seconds: the time of one on an uplink of 167 kbit/s. It is chosen so that at the
recorded first guess of 0.79 no round trip up to 200 ms costs more than 32 bytes per committed token; the curve is in docs/tree-stream.md."""

NODE_BYTES = 4.0
"""Payload of a guess: token, parent, and its part of the message."""


FLOOR_LEAST = 0.005
"""No floor is lower: there would be no end of guesses."""

FLOOR_MOST = 0.9
"""No floor is higher: what is nearly certain is worth any row, and tells how things are."""

SLACK_SHARE = 0.02
"""By how much of a step the beginning of the next one may be wrong, besides the jitter of the link."""

TELL_CHANGE = 0.25
"""A floor that has changed by less than this part of it is nothing to be told of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What is known of a link, a drafter of trees and a verifier. 0 stands for what is not known yet, but for prices.

    Raises:
        LocalProtocolError: a value is negative or not finite.
    """

    rtt_s: float
    jitter_s: float
    forward_s: float
    """Time of the drafter for one forward pass."""
    step_s: float
    """Mean time from one step of the verifier for a session to the next."""
    light_s: float
    """The same for a step with few rows, as those are that a rejection is followed by."""
    tokens_per_step: float
    """Committed tokens of a step."""
    row_s: float
    """What a step gets longer by one row."""
    row_price_s: float
    """What the verifier says that a row costs its other sessions."""

    def __post_init__(self) -> None:
        """Check every field."""
        for item in fields(self):
            value = getattr(self, item.name)
            if not 0.0 <= value < math.inf:
                raise LocalProtocolError(
                    f"{item.name}: got {value}, expected a finite number of at least 0"
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a tree grows from now on, and why."""

    growth: Growth
    measured: Measured
    byte_s: float
    """Price of a byte."""

    @property
    def sentence(self) -> str:
        """One line for people, ASCII, at most 480 characters. Written when it is read: most decisions change nothing."""
        return _sentence(self)

    def differs_from(self, other: "Decision | None") -> bool:
        """Return whether people should hear of it after that other one."""
        if other is None or (other.growth.pace is None) != (self.growth.pace is None):
            return True
        before, after = other.growth.floor, self.growth.floor
        return abs(after - before) > TELL_CHANGE * before


def choose(measured: Measured, *, usual: Growth, byte_s: float = BYTE_S) -> Decision:
    """Return how to grow a tree.

    Args:
        measured: now.
        usual: width, leaves, and the floor as long as too little is known.
        byte_s: price of a byte of payload, in seconds; at least 0.
    """
    if not measured.rtt_s or not measured.step_s:
        growth = replace(usual, pace=None)
    else:
        pace = Pace(
            rtt_s=measured.rtt_s,
            step_s=measured.light_s or measured.step_s,
            forward_s=measured.forward_s,
            slack_s=measured.jitter_s + SLACK_SHARE * measured.step_s,
        )
        growth = replace(usual, pace=pace, floor=floor(measured, byte_s=byte_s))
    return Decision(growth=growth, measured=measured, byte_s=byte_s)


def floor(measured: Measured, *, byte_s: float) -> float:
    """Return the least chance at which a guess that comes in time is worth its cost. `step_s` is known."""
    cost_s = measured.row_s + measured.row_price_s + NODE_BYTES * byte_s
    rate = max(1.0, measured.tokens_per_step) / measured.step_s
    return min(max(cost_s * rate, FLOOR_LEAST), FLOOR_MOST)


def _sentence(decision: Decision) -> str:
    measured, growth = decision.measured, decision.growth
    send = f"send guesses with a chance of {_percent(growth.floor)} or more"
    if growth.pace is None:
        names = {"round trip": measured.rtt_s, "time of a step": measured.step_s}
        unknown = " and the ".join(name for name, value in names.items() if not value)
        return f"{send}: as usual, the {unknown} is not known yet"
    token_s = measured.step_s / max(1.0, measured.tokens_per_step)
    parts = [
        f"a token takes {_ms(token_s)}",
        f"a row costs {_ms(measured.row_s)} of it and others {_ms(measured.row_price_s)}",
        f"{NODE_BYTES:.0f} bytes count as {_ms(NODE_BYTES * decision.byte_s)}",
    ]
    if growth.floor == FLOOR_MOST:
        parts.append("hardly any guess is worth that")
    late = measured.rtt_s / growth.pace.step_s
    parts.append(
        f"after a rejection the verifier is {math.ceil(late)} steps of {_ms(growth.pace.step_s)} further before a new guess is "
        f"there, over {_ms(measured.rtt_s)}"
    )
    return f"{send}: {'; '.join(parts)}"


def _ms(seconds: float) -> str:
    ms = seconds * 1e3
    return f"{ms:.0f} ms" if ms >= 10 or not ms else f"{ms:.2g} ms"


def _percent(share: float) -> str:
    return f"{share * 100:.2g} %"
