"""Which verifiers an edge may use, in which order, and which one to measure next. Pure.

Verifiers named by a policy come first, in its order, then those the edge was started with. A policy counts for those that have
answered and serve what the edge was started for: the same tokenizer and the same weights. So a policy that names nonsense
stops no text and changes none. One that shows another tokenizer is never used.

All are asked again and again, those in use as well: behind an address may stand another verifier the next day.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from paceline.control.messages import MAX_TELEMETRY_VERIFIERS
from paceline.errors import ConfigError
from paceline.messages import ModelIdentity
from paceline.settings import Address, parse_address

PROBE_S = 10.0
"""Shortest time between two questions to one verifier, in seconds."""


@dataclass(slots=True, kw_only=True)
class _Known:
    """What a verifier answered."""

    asked_s: float | None = None
    answers: bool = False
    problem: str = ""
    """Why it cannot serve us; empty if it can, as far as is known."""
    is_proven: bool = False
    """It has shown that it serves what the edge was started for."""
    was_told: bool = False
    """The problem has been logged."""


class Roster:
    """See the module.

    Args:
        own: the verifiers the edge was started with; at least one.
        target: what they serve, as the first that answered said.
        follows: policies may name others.
    """

    def __init__(self, own: Sequence[Address], *, target: ModelIdentity, follows: bool) -> None:
        self._own = tuple(own)
        self._target = target
        self._follows = follows
        self._assigned: tuple[Address, ...] = ()
        self._known: dict[Address, _Known] = {one: _Known() for one in self._own}

    @property
    def usable(self) -> tuple[Address, ...]:
        """The verifiers to use, the preferred one first; at least one."""
        named = [one for one in self._assigned if self._known[one].is_proven]
        fit = [one for one in (*named, *self._own) if not self._known[one].problem]
        # If none fits, the user's own word counts: the error then says what is wrong.
        return tuple(dict.fromkeys(fit)) or self._own

    @property
    def weights(self) -> dict[Address, bytes]:
        """The weights that usable verifiers must serve which only a policy names: what they have shown may be over."""
        wanted = self._target.weights_fingerprint
        return {one: wanted for one in self.usable if one not in self._own}

    @property
    def all(self) -> tuple[Address, ...]:
        """Every verifier the edge knows of, as many as telemetry takes."""
        return tuple(self._known)[:MAX_TELEMETRY_VERIFIERS]

    @property
    def asked(self) -> tuple[Address, ...]:
        """Those of them that were asked at least once."""
        return tuple(one for one in self.all if self._known[one].asked_s is not None)

    def answers(self, verifier: Address) -> bool:
        """Return whether it answered when it was asked last."""
        known = self._known.get(verifier)
        return known is not None and known.answers

    def assign(self, names: Sequence[str]) -> tuple[str, ...]:
        """Take what a policy names, none to forget it; return what cannot be an address."""
        places, wrong = [], []
        for name in names if self._follows else ():
            try:
                places.append(parse_address(name))
            except ConfigError:
                wrong.append(name)
        self._assigned = tuple(dict.fromkeys(places))
        self._known = {
            one: self._known.get(one) or _Known()
            for one in dict.fromkeys((*self._assigned, *self._own))
        }
        return tuple(wrong)

    def due(self, *, now_s: float) -> Address | None:
        """Return which verifier to measure now: the one not asked for the longest time, or None."""

        def asked_s(one: Address) -> float:
            asked = self._known[one].asked_s
            return float("-inf") if asked is None else asked

        oldest = min(self._known, key=asked_s)
        return oldest if now_s - asked_s(oldest) >= PROBE_S else None

    def answered(self, verifier: Address, *, now_s: float, target: ModelIdentity) -> str:
        """Note that it answered, and what it serves; return a problem that is news, or nothing."""
        known = self._known.get(verifier)
        if known is None:
            return ""  # no policy names it any more
        known.asked_s, known.answers = now_s, True
        problem = self._problem(target)
        known.is_proven = not problem
        has_tokenizer = target.tokenizer_fingerprint == self._target.tokenizer_fingerprint
        # Which of the user's own verifiers have which weights is the user's business.
        known.problem = "" if verifier in self._own and has_tokenizer else problem
        if not known.problem:
            known.was_told = False
        return self._news(known)

    def silent(self, verifier: Address, *, now_s: float) -> None:
        """Note that it did not answer, or refused."""
        known = self._known.get(verifier)
        if known is not None:
            known.asked_s, known.answers = now_s, False

    def _problem(self, target: ModelIdentity) -> str:
        wanted = self._target
        if target.tokenizer_fingerprint != wanted.tokenizer_fingerprint:
            return f"it serves {target.name} with another tokenizer than {wanted.name}"
        if (
            not target.weights_fingerprint
            or target.weights_fingerprint != wanted.weights_fingerprint
        ):
            return f"it serves {target.name}, whose weights are not those of {wanted.name} here"
        return ""

    @staticmethod
    def _news(known: _Known) -> str:
        if not known.problem or known.was_told:
            return ""
        known.was_told = True
        return known.problem
