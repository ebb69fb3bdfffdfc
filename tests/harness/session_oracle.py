"""What a verifier's session must think of each node, worked out anew from all messages by brute force.

It shares no code and no data structure with the session: every node is the full text up to and including itself,
and what it is by now follows from comparing that text with the log.
"""

from dataclasses import dataclass, field

from paceline.messages import Proposal
from paceline.session import CloudSession
from paceline.session.tree import Node
from paceline.tokens import TokenId

Path = tuple[TokenId, ...]


@dataclass(slots=True, kw_only=True)
class SessionOracle:
    """Watches one session."""

    session: CloudSession
    base: int
    names: list[Path | None] = field(default_factory=list)
    """Text of node 1, 2, 3 ... of the stream; None below a name that was already forgotten."""
    may_be_unnamed: set[Path] = field(default_factory=set)

    def attached(self, length: int) -> None:
        """A new stream starts: names begin again."""
        self.may_be_unnamed |= self.live
        self.names = []
        self.base = length

    def judge(self, proposal: Proposal) -> tuple[int, int]:
        """Take a proposal; return how many of its nodes are late, and how many stale."""
        num_late = num_stale = 0
        self.base = proposal.base_position
        for i, token in enumerate(proposal.tokens):
            distance = proposal.parents[i] if i < len(proposal.parents) else 1
            parent: Path | None
            if distance == 0:
                parent = self.text[: self.base]
            else:
                parent = self.names[len(self.names) - distance]
                if parent is not None and len(parent) <= self.base and self.agrees(parent):
                    parent = None  # committed and acknowledged before: the name is forgotten
            path = None if parent is None else (*parent, token)
            self.names.append(path)
            if path is None or not self.agrees(path):
                num_stale += 1
            elif len(path) <= len(self.text):
                num_late += 1
            elif self.session.finish is not None:
                num_stale += 1  # nothing follows the end
        return num_late, num_stale

    @property
    def text(self) -> Path:
        return tuple(self.session.log)

    def agrees(self, path: Path) -> bool:
        """Neither `path` nor the log contradicts the other."""
        return all(ours == theirs for ours, theirs in zip(path, self.session.log, strict=False))

    @property
    def live(self) -> set[Path]:
        """Named nodes below the committed text."""
        if self.session.finish is not None:
            return set()
        length = self.session.length
        return {path for path in self.names if path and len(path) > length and self.agrees(path)}

    @property
    def num_in_flight(self) -> int:
        """Names that count for the window."""
        length = self.session.length
        return sum(
            path is not None
            and self.agrees(path)
            and len(path) > self.base
            and (len(path) <= length or self.session.finish is None)
            for path in self.names
        )

    def outcome(self, before: set[Path], begin: int) -> tuple[int, int]:
        """Return how many of the nodes live `before` were judged and accepted since the log had `begin` tokens."""
        text = self.text
        judged = sum(
            1
            for path in before
            if begin < len(path) <= len(text) and path[:-1] == text[: len(path) - 1]
        )
        accepted = sum(1 for path in before if begin < len(path) <= len(text) and self.agrees(path))
        return judged, accepted

    def check(self) -> None:
        """Compare the session's tree and window with ours."""
        session = self.session
        if session.state.value == "closed":
            assert session.window_used == session.num_live_nodes == 0
            return
        assert session.window_used == self.num_in_flight <= session.limits.window
        named, unnamed = paths_of(session._root, self.text)
        assert named == self.live
        assert unnamed <= self.may_be_unnamed
        assert session.num_live_nodes <= 2 * session.limits.window
        assert session.has_drafts == bool(named or unnamed)


def paths_of(root: Node, text: Path) -> tuple[set[Path], set[Path]]:
    """Return the texts of the named and of the unnamed nodes below `root`, which ends `text`."""
    named: set[Path] = set()
    unnamed: set[Path] = set()
    pending = [(root, text)]
    while pending:
        node, path = pending.pop()
        for token, child in node.children.items():
            assert child.parent is node
            assert child.token == token
            below = (*path, token)
            (named if child.names else unnamed).add(below)
            pending.append((child, below))
    return named, unnamed
