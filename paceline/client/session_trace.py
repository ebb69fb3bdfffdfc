"""What a client notes of one generation for its timeline, if it is asked to."""

from dataclasses import replace

from paceline.client.link import Link
from paceline.clock import Clock
from paceline.messages import CloudMessage, Commit, EdgeMessage, Proposal
from paceline.timeline.facts import (
    Downward,
    Fact,
    Facts,
    Forward,
    RoundTrip,
    StreamChange,
    Upward,
)

MOST_UNITS = 200_000
"""A fact is a unit, and so is each of its tokens: at most some 40 MB, and hours of text."""


class SessionTrace:
    """Give one to `Client.generate`. It never waits and never raises; when it is full it keeps what it has.

    It has no clock: times come from whoever tells.

    Args:
        most: units it has room for.
    """

    def __init__(self, *, most: int = MOST_UNITS) -> None:
        self._room = most
        self._facts: list[Fact] = []
        self._num_left_out = 0
        self._began_s = 0.0
        self._prompt_length = 0

    def facts(self) -> Facts:
        """Return what was noted up to now, tokens included."""
        return Facts(
            began_s=self._began_s,
            prompt_length=self._prompt_length,
            # A message is noted when the link has taken it; one that came back meanwhile stands before it.
            facts=tuple(sorted(self._facts, key=lambda fact: fact.at_s)),
            num_left_out=self._num_left_out,
        )

    # --- told by the client

    def began(self, *, at_s: float, prompt_length: int) -> None:
        """The generation was entered."""
        self._began_s, self._prompt_length = at_s, prompt_length

    def drafted(self, *, at_s: float, end_s: float, position: int, num_tokens: int) -> None:
        """The drafter was called, and gave so many tokens after a text of this length."""
        self._note(Forward(at_s=at_s, end_s=end_s, position=position, num_tokens=num_tokens))

    def sent(self, message: EdgeMessage, *, at_s: float, num_bytes: int) -> None:
        """A message was handed to the link at that time."""
        self._note(upward_fact(message, at_s=at_s, num_bytes=num_bytes))

    def received(self, message: CloudMessage, *, at_s: float) -> None:
        """A message has come."""
        self._note(downward_fact(message, at_s=at_s))

    def stream(self, *, at_s: float, is_up: bool) -> None:
        """A stream was made, or lost."""
        self._note(StreamChange(at_s=at_s, is_up=is_up))

    def round_trip(self, *, at_s: float, rtt_s: float) -> None:
        """A round trip was measured."""
        self._note(RoundTrip(at_s=at_s, rtt_s=rtt_s))

    def _note(self, fact: Fact) -> None:
        num_units = 1
        if isinstance(fact, Upward | Downward):
            num_units += len(fact.tokens)
        if num_units > self._room:
            self._room = 0  # the first ones are kept: a hole in the middle would tell lies
            self._num_left_out += 1
            return
        self._room -= num_units
        self._facts.append(fact)


class TracedLink:
    """A link whose messages are noted; see `Link`.

    Args:
        link: made just now.
        trace: notes them.
        clock: tells when.
    """

    def __init__(self, link: Link, *, trace: SessionTrace, clock: Clock) -> None:
        self._link = link
        self._trace = trace
        self._clock = clock
        self._is_open = True
        trace.stream(at_s=clock.now_s(), is_up=True)

    @property
    def payload_bytes_up(self) -> int:
        """See `Link`."""
        return self._link.payload_bytes_up

    @property
    def payload_bytes_down(self) -> int:
        """See `Link`."""
        return self._link.payload_bytes_down

    async def send(self, message: EdgeMessage) -> None:
        """See `Link`."""
        at_s, before = self._clock.now_s(), self._link.payload_bytes_up
        await self._link.send(message)
        self._trace.sent(message, at_s=at_s, num_bytes=self._link.payload_bytes_up - before)

    async def receive(self) -> CloudMessage:
        """See `Link`."""
        message = await self._link.receive()
        self._trace.received(message, at_s=self._clock.now_s())
        return message

    async def finish(self) -> None:
        """See `Link`."""
        await self._link.finish()

    async def close(self) -> None:
        """See `Link`."""
        if self._is_open:  # closing twice is allowed
            self._is_open = False
            self._trace.stream(at_s=self._clock.now_s(), is_up=False)
        await self._link.close()


def upward_fact(message: EdgeMessage, *, at_s: float, num_bytes: int) -> Upward:
    """Return what a timeline takes from a message to the verifier."""
    fact = Upward(at_s=at_s, message=type(message).__name__.lower(), num_bytes=num_bytes)
    if not isinstance(message, Proposal):
        return fact
    return replace(
        fact,
        base_position=message.base_position,
        tokens=message.tokens,
        parents=message.parents,
    )


def downward_fact(message: CloudMessage, *, at_s: float) -> Downward:
    """Return what a timeline takes from a message to the edge."""
    fact = Downward(at_s=at_s, message=type(message).__name__.lower())
    if not isinstance(message, Commit):
        return fact
    return replace(
        fact,
        position=message.position,
        tokens=message.tokens,
        accepted=message.accepted,
        num_judged=message.num_judged,
        num_accepted=message.num_accepted,
        queue_s=message.queue_ns / 1e9,
        verify_s=message.verify_ns / 1e9,
        num_rows=message.num_rows,
        num_steps=message.num_steps,
        is_end=message.finish is not None,
    )
