"""How far ahead an edge drafts, and who decides it: the orchestrator while it is there, else the edge itself. Pure.

The orchestrator's policy is followed while its presence says that it is online, the broker's link is up and a policy for this
edge is there. Without one of them the edge goes on by itself, from the values it has, with the function that the
orchestrator uses as well (`paceline.control.drafting`). Neither is needed to generate text.

A tree ends where its guesses are not worth their cost, which the edge alone can tell (`paceline.control.marginal`). A policy is an upper
bound for it: no guess is deeper than its length, and its window, which is meant for one guess at a position, counts for as many as the
tree may have there.
"""

from collections.abc import Callable
from enum import StrEnum

from paceline.control import marginal
from paceline.control.drafting import Bounds, Drafting, Measured, choose
from paceline.control.messages import EdgePolicy, Presence
from paceline.session.growth import Growth


class LengthPolicy(StrEnum):
    """Who chooses how far ahead to draft."""

    FIXED = "fixed"
    """The user."""

    CLOSED_FORM = "closed-form"
    """The orchestrator if there is one, else the edge's own controller."""

    MARGINAL = "marginal"
    """Of a tree: each guess by what it is worth and costs."""


class Steering:
    """What is known of the control plane, and what follows from it.

    Args:
        start: how far to draft before anything is known.
        length_policy: fixed keeps `start` whatever is measured or told.
        bounds: for the edge's own choice.
        explain: is told in a sentence why, whenever the length changes, or what a tree is grown by.
        growth: how a tree grows before anything is known; None: the drafter makes chains.
        byte_s: what a byte of a tree's proposals is taken to cost, in seconds.
    """

    def __init__(
        self,
        *,
        start: Drafting,
        length_policy: LengthPolicy,
        bounds: Bounds,
        explain: Callable[[str], None] | None = None,
        growth: Growth | None = None,
        byte_s: float = marginal.BYTE_S,
    ) -> None:
        self._own = start
        self._byte_s = byte_s
        self._is_pinned = length_policy is LengthPolicy.FIXED or bounds.longest == 0
        self._usual = growth
        self._decision: marginal.Decision | None = None
        self._told_decision: marginal.Decision | None = None
        self._bounds = bounds
        self._explain = explain
        self._policy: EdgePolicy | None = None
        self._is_linked = False
        self._orchestrator: Presence | None = None
        self._asked: tuple[int, int] | None = None
        """Revision followed and length wanted when an answer was wanted last."""
        self._told_length = start.draft_length
        self.num_outdated = 0
        """Policies that were ignored: a newer one was known."""

    # --- what holds now

    @property
    def drafting(self) -> Drafting:
        """How far ahead to draft."""
        if self.follows:
            assert self._policy is not None
            return self._bounded(_of(self._policy))
        return self._own

    @property
    def growth(self) -> Growth | None:
        """How a tree grows; None for chains."""
        return self._usual if self._decision is None else self._decision.growth

    @property
    def grows(self) -> bool:
        """Trees are grown by what is measured: `tree_measured` is wanted, not `measured`."""
        return self._usual is not None and not self._is_pinned

    @property
    def policy(self) -> EdgePolicy | None:
        """The newest one, followed or not."""
        return self._policy

    @property
    def follows(self) -> bool:
        """The orchestrator decides how far to draft."""
        return self._policy is not None and self.is_led and not self._is_pinned

    @property
    def is_led(self) -> bool:
        """An orchestrator is there."""
        online = self._orchestrator is not None and self._orchestrator.online
        return self._is_linked and online

    @property
    def revision(self) -> int:
        """Revision of the policy followed; 0 if the edge decides by itself.

        An edge with a fixed length follows in all else and says so: an orchestrator that has forgotten everything must know which
        number its next policy has to have.
        """
        return self._policy.revision if self._policy is not None and self.is_led else 0

    # --- what happened

    def linked(self, *, is_up: bool) -> None:
        """The link to the broker is up, or not."""
        if self._is_linked and not is_up:
            # The broker tells again when the link is back; the orchestrator may be gone by then.
            self._orchestrator = None
        self._is_linked = is_up
        self._tell()

    def orchestrator(self, presence: Presence | None) -> None:
        """The orchestrator came or went; None: nobody remembers one."""
        known = self._orchestrator
        if presence is not None and known is not None:
            is_other = presence.incarnation != known.incarnation
            if is_other and known.online and not presence.online:
                return  # the will of one that another has followed
        self._orchestrator = presence
        self._tell()

    def told(self, policy: EdgePolicy | None) -> bool:
        """Take a policy, None if it was withdrawn; return whether it counts: no newer one is known."""
        if policy is not None and self._policy is not None:
            if policy.revision < self._policy.revision:
                self.num_outdated += 1
                return False
            if policy == self._policy:
                return True  # the broker's link is new, the policy is not
        self._policy = policy
        if policy is not None and not self._is_pinned and not self.grows:
            self._own = _of(policy)  # from here on, should the orchestrator go
        self._tell()
        return True

    def measured(self, measured: Measured) -> None:
        """Decide anew, if it is for the edge to decide."""
        if self.follows or self._is_pinned or self.grows:
            return
        decision = choose(measured, current=self._own, bounds=self._bounds)
        self._own = decision.drafting
        self._tell(decision.sentence)

    def tree_measured(self, measured: marginal.Measured) -> None:
        """Decide anew how a tree grows."""
        if self._usual is None or self._is_pinned:
            return
        self._decision = decision = marginal.choose(
            measured, usual=self._usual, byte_s=self._byte_s
        )
        if decision.differs_from(self._told_decision):
            self._told_decision = decision
            if self._explain is not None:
                self._explain(decision.sentence)

    def wants_answer(self, measured: Measured) -> bool:
        """Return whether the orchestrator should hear of this at once: the length is not right any more.

        Asks once for each change: who keeps to a length that was fixed by hand need not be asked again and again.
        """
        if not self.is_led or self._is_pinned or self.grows:
            return False
        now, bounds = self.drafting, self._bounds
        if not bounds.shortest <= now.draft_length <= bounds.longest:
            return False  # the orchestrator knows better, and need not be asked again and again
        wanted = choose(measured, current=now, bounds=bounds).drafting.draft_length
        question = (self.revision, wanted)
        if wanted == now.draft_length or question == self._asked:
            return False
        self._asked = question
        return True

    def _bounded(self, told: Drafting) -> Drafting:
        """Return what a policy comes to: for a tree it is a bound."""
        if self._usual is None:
            return told
        return Drafting(
            draft_length=min(told.draft_length, self._own.draft_length),
            window=min(told.window * self._usual.width, self._own.window),
        )

    def _tell(self, sentence: str = "") -> None:
        """Explain a length that is not the one explained last."""
        length = self.drafting.draft_length
        if length == self._told_length:
            return
        before, self._told_length = self._told_length, length
        if self._explain is None:
            return
        if self.follows:
            assert self._policy is not None
            why = self._policy.explanation or f"draft {length} ahead, from {before}"
            sentence = f"policy {self._policy.revision}: {why}"
        self._explain(
            sentence or f"draft {length} ahead, from {before}: the edge's own last choice"
        )


def _of(policy: EdgePolicy) -> Drafting:
    return Drafting(draft_length=policy.draft_length, window=policy.window)
