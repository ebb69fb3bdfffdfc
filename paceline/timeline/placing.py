"""When messages arrived and were sent at the verifier, and what became of what they carried. Pure.

A simulation knows both ends of the way. An edge knows its own: it takes half of the last measured round trip for each way,
and moves what the verifier did back in time where that would overlap, since whatever delays a commit comes after its step.
"""

from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import inf

from paceline.timeline.facts import (
    Downward,
    Facts,
    RoundTrip,
    StreamChange,
    Upward,
    node_positions,
    whole_parents,
)

COMMIT = "commit"


@dataclass(slots=True, kw_only=True, eq=False)
class Node:
    """A drafted token that was sent. `judge` says what became of it."""

    position: int
    token: int
    parent: "Node | None"
    """None: it hangs off committed text."""
    is_compared: bool = False
    """All above it became text, so that it was compared if it was there in time."""
    is_right: bool = False
    """It and all above it became text."""
    is_accepted: bool = False
    """It became text as a draft."""


@dataclass(slots=True, kw_only=True)
class Up:
    """A message on its way to the verifier."""

    fact: Upward
    arrives_s: float | None
    """None: it never did."""
    stream: int = 0
    """Number of the stream it went over."""
    nodes: list[Node] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Down:
    """A message on its way to the edge, cut to the tokens that are new there."""

    fact: Downward
    sent_s: float
    position: int
    stream: int = 0
    """Number of the stream it came over."""
    is_text: bool = True
    """The edge had not closed the session yet, after a stop string for example."""
    tokens: tuple[int, ...] = ()
    accepted: tuple[bool, ...] = ()

    @property
    def is_repeat(self) -> bool:
        """It tells again what a lost stream did not bring."""
        return not self.fact.num_steps

    @property
    def verify(self) -> tuple[float, float] | None:
        """When its step began and ended; None where it tells of none, as a commit that is sent again."""
        fact = self.fact
        if fact.message != COMMIT or self.is_repeat or not fact.verify_s:
            return None
        return self.sent_s - fact.verify_s, self.sent_s


def is_one_way_known(facts: Facts) -> bool:
    """Whether the facts tell when messages were at the verifier."""
    return any(
        (isinstance(fact, Upward) and fact.arrives_s is not None)
        or (isinstance(fact, Downward) and fact.sent_s is not None)
        for fact in facts.facts
    )


def ups(facts: Facts) -> list[Up]:
    """Return all messages to the verifier, in order."""
    is_known, halves = is_one_way_known(facts), _Halves(facts)
    found: list[Up] = []
    names: list[int] = []
    nodes: list[Node] = []
    last_s, stream = -inf, 0
    for fact in facts.facts:
        if isinstance(fact, StreamChange) and fact.is_up:
            stream += 1
            names.clear()
            nodes.clear()
        if not isinstance(fact, Upward):
            continue
        arrives_s = fact.arrives_s
        if not is_known:
            arrives_s = last_s = max(last_s, fact.at_s + halves.at(fact.at_s))
        up = Up(fact=fact, arrives_s=arrives_s, stream=stream)
        parents = whole_parents(fact)
        positions = node_positions(fact.base_position, parents, names)
        for token, parent, position in zip(fact.tokens, parents, positions, strict=True):
            above = nodes[-parent] if parent else None
            node = Node(position=position, token=token, parent=above)
            nodes.append(node)
            up.nodes.append(node)
        found.append(up)
    return found


def downs(facts: Facts) -> list[Down]:
    """Return all messages to the edge, in order; each committed token is in one of them."""
    is_known, halves = is_one_way_known(facts), _Halves(facts)
    received = [fact for fact in facts.facts if isinstance(fact, Downward)]
    found: list[Down] = []
    limit_s = inf
    for fact in reversed(received):
        sent_s = fact.sent_s
        if sent_s is None:
            half_s = 0.0 if is_known else halves.at(fact.at_s)
            sent_s = max(facts.began_s, min(fact.at_s - half_s, limit_s))
        down = Down(fact=fact, sent_s=sent_s, position=fact.position)
        found.append(down)
        limit_s = down.verify[0] if down.verify else sent_s
    found.reverse()
    length = facts.prompt_length
    for down, (stream, is_text) in zip(found, _streams(facts), strict=True):
        down.stream, down.is_text = stream, is_text
        _cut(down, length)
        length = max(length, down.position + len(down.tokens))
    return found


def _streams(facts: Facts) -> Iterator[tuple[int, bool]]:
    """Give for each message to the edge the number of its stream, and whether the edge had not closed that yet."""
    stream, is_open = 0, True
    for fact in facts.facts:
        if isinstance(fact, StreamChange) and fact.is_up:
            stream, is_open = stream + 1, True
        elif isinstance(fact, Upward) and fact.message == "close":
            is_open = False
        elif isinstance(fact, Downward):
            yield stream, is_open


def _cut(down: Down, length: int) -> None:
    """Leave out what the edge knew already, or did not want to know any more."""
    fact = down.fact
    known = length - fact.position if down.is_text else len(fact.tokens)
    skip = max(0, min(len(fact.tokens), known))
    down.position = fact.position + skip
    down.tokens = fact.tokens[skip:]
    flags = fact.accepted or (False,) * len(fact.tokens)
    down.accepted = flags[skip:]


Refused = Mapping[int, Sequence[tuple[float, int]]]
"""By position: when guesses that differ from the text were sent, and their tokens."""


def judge(sent: Sequence[Up], found: Sequence[Down]) -> Refused:
    """Note on every node what became of it, and return those that the target may have compared and refused.

    Args:
        sent: what was offered, in order: parents come before children.
        found: the messages that brought the text.
    """
    text: dict[int, tuple[int, bool, Down]] = {}
    for down in found:
        for index, token in enumerate(down.tokens):
            text[down.position + index] = (token, down.accepted[index], down)
    refused: dict[int, list[tuple[float, int]]] = {}
    for up in sent:
        for node in up.nodes:
            known = text.get(node.position)
            is_equal = known is not None and known[0] == node.token
            node.is_compared = node.parent is None or node.parent.is_right
            node.is_right = node.is_compared and is_equal
            is_draft = node.is_right and known is not None and known[1]
            node.is_accepted = is_draft and known is not None and _is_of(known[2], up)
            differs = known is not None and not is_equal
            if differs and node.is_compared and up.arrives_s is not None:
                refused.setdefault(node.position, []).append((up.fact.at_s, node.token))
    return refused


def _is_of(down: Down, up: Up) -> bool:
    """Whether a commit can be about drafts of a message: they are sent again over every stream."""
    return up.stream < down.stream if down.is_repeat else up.stream == down.stream


def rejected(down: Down, refused: Refused) -> tuple[int, ...]:
    """Return the positions at which a commit refused drafts: as many as the verifier counted.

    It does not tell which; the refused guesses that were sent first are taken.
    """
    count = down.fact.num_judged - down.fact.num_accepted
    if count < 1 or not down.tokens:
        return ()
    candidates = sorted(
        (at_s, down.position + index, token)
        for index, was_draft in enumerate(down.accepted)
        if not was_draft
        for at_s, token in refused.get(down.position + index, ())
        if at_s < down.fact.at_s
    )
    guesses = dict.fromkeys((position, token) for _, position, token in candidates)
    places = [position for position, _ in guesses][:count]
    last = down.position + len(down.tokens) - 1
    return tuple(sorted(places + [last] * (count - len(places))))


class _Halves:
    """Half of the round trip as it was last measured; of the first measurement before that, 0 without any."""

    def __init__(self, facts: Facts) -> None:
        trips = [fact for fact in facts.facts if isinstance(fact, RoundTrip)]
        self._times = [trip.at_s for trip in trips]
        self._halves = [trip.rtt_s / 2 for trip in trips]

    def at(self, at_s: float) -> float:
        if not self._halves:
            return 0.0
        return self._halves[max(0, bisect_right(self._times, at_s) - 1)]
