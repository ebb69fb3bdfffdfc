"""What is known of one session, as plain frozen values; a real edge and a simulated world tell the same.

Times are seconds of whatever clock the teller has. Tokens may be ids or, see `disguised`, ordinals that keep only which of
them are equal.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True, kw_only=True)
class Forward:
    """A call of the drafter."""

    at_s: float
    """When it began."""
    end_s: float
    position: int
    """Length of the text it went on from, guesses included."""
    num_tokens: int
    """Tokens it gave; 0 where it only prepared, or had no guess."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Upward:
    """A message to the verifier."""

    at_s: float
    """When it was handed to the link."""
    message: str
    """Its type in lower case: open, resume, proposal, close."""
    arrives_s: float | None = None
    """When it was there, where that is known."""
    base_position: int = 0
    tokens: tuple[int, ...] = ()
    parents: tuple[int, ...] = ()
    """As on the wire: distances back; missing ones are 1."""
    num_bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Downward:
    """A message to the edge. Fields after `message` and `sent_s` are those of a commit."""

    at_s: float
    """When it was there."""
    message: str
    """Its type in lower case: opened, commit, drain, failure."""
    sent_s: float | None = None
    """When the verifier handed it to the link, where that is known."""
    position: int = 0
    tokens: tuple[int, ...] = ()
    accepted: tuple[bool, ...] = ()
    """One for each token; empty when none was an accepted draft."""
    num_judged: int = 0
    num_accepted: int = 0
    queue_s: float = 0.0
    verify_s: float = 0.0
    num_rows: int = 0
    num_steps: int = 0
    is_end: bool = False
    """It ends the text."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step of the target that served this session; only a simulation tells."""

    at_s: float
    """When it began."""
    end_s: float
    num_rows: int
    num_prefill_rows: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundTrip:
    """A measured round trip."""

    at_s: float
    rtt_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamChange:
    """A stream to a verifier was made, or lost."""

    at_s: float
    is_up: bool


Fact = Forward | Upward | Downward | Step | RoundTrip | StreamChange


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """All that is known of one session."""

    began_s: float
    prompt_length: int
    facts: tuple[Fact, ...]
    """By `at_s`, never falling."""
    has_tokens: bool = True
    """Tokens are ids; else ordinals."""
    num_left_out: int = 0
    """Facts for which there was no room; the first ones are kept."""


def node_positions(base_position: int, parents: Sequence[int], names: list[int]) -> list[int]:
    """Return where the nodes of a proposal stand in the text, and add these positions to `names`.

    Args:
        base_position: where a parent of 0 hangs them.
        parents: one for each node.
        names: position of every node of the stream so far, in order of their numbers.
    """
    begin = len(names)
    for parent in parents:
        names.append(base_position if parent == 0 else names[-parent] + 1)
    return names[begin:]


def whole_parents(fact: Upward) -> tuple[int, ...]:
    """Return the parents of all its nodes."""
    return fact.parents + (1,) * (len(fact.tokens) - len(fact.parents))


def disguised(facts: Facts) -> Facts:
    """Return the facts without what the text says: of tokens only whether they are equal is left.

    A token becomes an ordinal among the different tokens seen at its position: 0 for the first, 1 for the next. That
    suffices to tell which guesses were right.
    """
    if not facts.has_tokens:
        return facts
    return replace(facts, facts=tuple(_disguised(facts.facts)), has_tokens=False)


def _disguised(facts: Sequence[Fact]) -> Iterator[Fact]:
    ordinals: dict[int, dict[int, int]] = {}
    names: list[int] = []

    def hide(tokens: Sequence[int], positions: Sequence[int]) -> tuple[int, ...]:
        hidden = []
        for token, position in zip(tokens, positions, strict=True):
            seen = ordinals.setdefault(position, {})
            hidden.append(seen.setdefault(token, len(seen)))
        return tuple(hidden)

    for fact in facts:
        if isinstance(fact, StreamChange) and fact.is_up:
            names.clear()
        if isinstance(fact, Upward):
            positions = node_positions(fact.base_position, whole_parents(fact), names)
            yield replace(fact, tokens=hide(fact.tokens, positions))
        elif isinstance(fact, Downward):
            positions = list(range(fact.position, fact.position + len(fact.tokens)))
            yield replace(fact, tokens=hide(fact.tokens, positions))
        else:
            yield fact
