"""When the verifier gets to a guess, as the edge can know it: whether what is sent now will be there in time.

The verifier never waits. With every step it goes through all guesses that are there and hold, and then one token further, which it
draws by itself. So it walks down the right path like this, in steps that begin `step_s` apart:

 - A commit arrives half a round trip after the step that made it has ended, and the next step has begun there at once, from
   the text that this commit tells.
 - A guess that is there before the step begins that goes through its parent is gone through in the same step.
 - One that comes later is late: that step draws its token, and the next step goes on from there.

Times are the edge's own: a time at the verifier counts as the moment at which the edge would have to send something for it to
be there then. Pure: whoever asks brings the time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil, inf, log

from paceline.errors import ConfigError
from paceline.session.tree import Node

FIRST_RUN = 0.7
"""Taken for the chance of a best guess before any was seen."""

RUN_KEEP = 0.98
"""What a best guess counts less with each newer one."""

LEAST_RUN = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """How far the verifier is, and how fast both sides are.

    Raises:
        ConfigError: a field is out of its range.
    """

    rtt_s: float
    """Round trip."""
    step_s: float
    """Time from one step of the verifier for this session to the next; above 0."""
    forward_s: float = 0.0
    """Time of a forward pass of the draft: what is not sent now is sent after the next one at the earliest."""
    slack_s: float = 0.0
    """By how much all this may be wrong."""

    def __post_init__(self) -> None:
        """Check every field."""
        for name in ("rtt_s", "forward_s", "slack_s"):
            if not 0.0 <= getattr(self, name) < inf:
                raise ConfigError(
                    f"pace.{name}: got {getattr(self, name)}, expected a finite number of at least 0"
                )
        if not 0.0 < self.step_s < inf:
            raise ConfigError(f"pace.step_s: got {self.step_s}, expected a finite number above 0")

    @property
    def margin_s(self) -> float:
        """How long before it is too late something must be sent, if it could only be sent with the next forward pass."""
        return self.forward_s + self.slack_s


class Walk:
    """Until when something must be sent to be there before the verifier has passed a node of the tree.

    Args:
        root: the end of the committed text.
    """

    def __init__(self, root: Node) -> None:
        self._root = root
        self._known_s = inf
        """When the edge heard of the root; infinite before a commit of this stream: the verifier may still have to begin."""
        self._until_s: dict[Node, float] = {}
        """When the step begins that goes through a node and looks for one below it."""
        self._sent_s: dict[Node, float] = {}
        self._run = FIRST_RUN

    def learn(self, chance: float) -> None:
        """A best guess of some place has this chance."""
        self._run += (1.0 - RUN_KEEP) * (chance - self._run)

    def until_s(self, parent: Node, pace: Pace) -> float:
        """Return until when what hangs below `parent` must be sent to be there in time; infinite if that is not known."""
        if self._root not in self._until_s:
            self._place_all(pace)
        return self._until_s.get(parent, self._until_s[self._root])

    def loss(self, parent: Node, pace: Pace, *, at_s: float) -> float:
        """Return what being late costs a guess below `parent` that is sent then: a logarithm to be added to that of its chance.

        0 in time. Late by n steps the verifier has gone n tokens further by then, so that of use is what hangs n tokens below it:
        as much as the chance is that the best guesses there are right.
        """
        over_s = at_s - self.until_s(parent, pace)
        if over_s <= 0.0:
            return 0.0
        return ceil(over_s / pace.step_s) * log(max(LEAST_RUN, min(1.0, self._run)))

    def add(self, node: Node, pace: Pace | None, *, now_s: float) -> None:
        """A new node, which will be sent about now; that of its parent was added before."""
        self._sent_s[node] = now_s
        if pace is not None:
            self._place(node, pace)

    def restart(self, *, now_s: float) -> None:
        """All nodes are sent again, now."""
        self._sent_s = dict.fromkeys(self._sent_s, now_s)
        self._known_s = inf
        self._until_s.clear()

    def advance(self, root: Node, dropped: Iterable[Node], *, now_s: float) -> None:
        """The text went on to `root`, as is known now; these nodes are contradicted."""
        for node in (root, *dropped):
            self._sent_s.pop(node, None)
        self._root, self._known_s = root, now_s
        self._until_s.clear()

    def _place(self, node: Node, pace: Pace) -> None:
        """Say when the verifier gets to a node: with its parent, or if it comes late a step after it."""
        assert node.parent is not None
        until_s = self.until_s(node.parent, pace)
        late = self._sent_s[node] > until_s
        self._until_s[node] = until_s + pace.step_s if late else until_s

    def _place_all(self, pace: Pace) -> None:
        self._until_s[self._root] = self._known_s - pace.rtt_s
        for node in self._root.below():
            if node in self._sent_s:
                self._place(node, pace)
