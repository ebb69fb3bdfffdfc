"""When and where to try again after a verifier was lost. Pure: time and randomness are passed in."""

from dataclasses import dataclass
from typing import Protocol

from paceline.client.settings import RetryPolicy
from paceline.settings import Address

AVOID_S = 30.0
"""How long a verifier that could not be reached is tried after the others, in seconds."""


class Generator(Protocol):
    """Draws the jitter; `random.Random` is one."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What to try next."""

    address: Address
    after_s: float
    """How long to wait before, in seconds from now."""


class Unreachable:
    """Remembers which verifiers could not be reached lately, so that not every generation finds out anew."""

    def __init__(self) -> None:
        self._failed_s: dict[Address, float] = {}

    def note(self, address: Address, *, now_s: float) -> None:
        """This one could not be reached."""
        self._failed_s[address] = now_s

    def forget(self, address: Address) -> None:
        """This one could."""
        self._failed_s.pop(address, None)

    def order(self, verifiers: tuple[Address, ...], *, now_s: float) -> tuple[Address, ...]:
        """Return them as they should be tried: those that failed within AVOID_S last, else as they come."""
        never_s = float("-inf")
        return tuple(
            sorted(verifiers, key=lambda one: now_s - self._failed_s.get(one, never_s) < AVOID_S)
        )


class Reconnection:
    """Chooses the next verifier: the same one first, which may still hold the session, then the others in turn.

    Delays double with every round over all verifiers and are drawn between half and all of it, so that the edges of a
    verifier that died do not all come back at the same moment. A verifier that said when to come back is not asked
    before. The verifiers may change meanwhile: the next one is then sought from the preferred one on.

    Args:
        verifiers: at least one, the preferred one first.
        policy: delays, and when to give up.
        generator: draws the jitter.
    """

    def __init__(
        self, verifiers: tuple[Address, ...], *, policy: RetryPolicy, generator: Generator
    ) -> None:
        self._verifiers = verifiers
        self._policy = policy
        self._generator = generator
        self._not_before_s: dict[Address, float] = {}
        self._from_first = False
        self._num_failures = 0
        self._since_s: float | None = None
        self.address = verifiers[0]
        """The verifier that is in use, or was tried last. It may be none of those to choose from any more."""

    @property
    def has_others(self) -> bool:
        """There is a verifier besides the one in use."""
        return any(one != self.address for one in self._verifiers)

    def choose_from(self, verifiers: tuple[Address, ...]) -> None:
        """From now on choose from these, at least one; the one in use stays in use."""
        if verifiers != self._verifiers:
            self._verifiers = verifiers
            self._from_first = True

    def progressed(self) -> None:
        """The verifier does its work: what failed before is forgotten."""
        self._num_failures = 0
        self._since_s = None

    def next_attempt(
        self, *, now_s: float, elsewhere: bool = False, retry_after_s: float = 0.0
    ) -> Attempt | None:
        """Return what to try after the verifier in use was lost or could not be reached; None to give up.

        Args:
            now_s: the time.
            elsewhere: the verifier in use asked us to go to another one.
            retry_after_s: it wants to be left alone for so long.
        """
        if self._since_s is None:
            self._since_s = now_s
        self._not_before_s[self.address] = now_s + retry_after_s
        attempt_number = self._num_failures
        self._num_failures += 1
        order = self._order(stay=attempt_number == 0 and not elsewhere)
        due_s = now_s + self._delay_s(attempt_number // len(self._verifiers))
        chosen = min(order, key=lambda one: max(due_s, self._not_before_s.get(one, 0.0)))
        at_s = max(due_s, self._not_before_s.get(chosen, 0.0))
        if at_s - self._since_s > self._policy.give_up_after_s:
            return None
        self.address = chosen
        return Attempt(address=chosen, after_s=at_s - now_s)

    def _order(self, *, stay: bool) -> list[Address]:
        """Return the verifiers as they are to be tried now."""
        verifiers, current = self._verifiers, self.address
        if stay and current in verifiers:
            begin = verifiers.index(current)
        elif self._from_first or current not in verifiers:
            self._from_first = False
            return sorted(verifiers, key=lambda one: one == current)
        else:
            begin = verifiers.index(current) + 1
        num = len(verifiers)
        return [verifiers[(begin + i) % num] for i in range(num)]

    def _delay_s(self, round_index: int) -> float:
        # The exponent is bounded so that a long outage does not overflow.
        longest_s = min(self._policy.max_s, self._policy.first_s * 2.0 ** min(round_index, 60))
        return longest_s * (0.5 + 0.5 * self._generator.random())
