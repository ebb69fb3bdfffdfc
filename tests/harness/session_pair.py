"""Both halves of a session joined by a fake link, pure and synchronous: nothing happens unless a test moves it.

Every message is really encoded and decoded. A `Stream` keeps what is under way in each direction, in order; a test
delivers it one by one, cuts the stream at either end at different times, or lets it linger beside the one that
replaced it, as a dead TCP connection does. `ToyVerifier` and `SessionPair` are the least shells that obey the
contract of `CloudSession` and `EdgeSession`.
"""

from dataclasses import replace

from harness.toy import ToyDrafter, ToyTarget
from harness.toy_verifier import SMALL_LIMITS, Stream, ToyVerifier

from paceline.codec import encode_edge, parse_cloud
from paceline.messages import (
    CloudMessage,
    EdgeMessage,
    Failure,
    Limits,
    Open,
    Opened,
)
from paceline.session import CloudSession, EdgeSession
from paceline.session.events import (
    Deliver,
    Drafted,
    EdgeEffect,
    EdgeEvent,
    Failed,
    Finished,
    FromCloud,
    Grown,
    LinkDown,
    LinkUp,
    NothingToDraft,
    Send,
)
from paceline.session.growth import Growth
from paceline.session.pipeline import PipelineSettings
from paceline.session.table import CloudState
from paceline.tokens import TokenId


class SessionPair:
    """One edge, some verifiers of the same target, and the streams between them."""

    def __init__(
        self,
        *,
        request: Open,
        target: ToyTarget | None = None,
        limits: Limits = SMALL_LIMITS,
        draft_length: int = 8,
        window: int = 64,
        num_verifiers: int = 1,
        growth: Growth | None = None,
        pipeline: PipelineSettings | None = None,
    ) -> None:
        self.target = target or ToyTarget()
        self.edge = EdgeSession(
            request=request,
            draft_length=draft_length,
            window=window,
            growth=growth,
            pipeline=pipeline,
        )
        self.verifiers = [
            ToyVerifier(number=number, target=self.target, limits=limits)
            for number in range(num_verifiers)
        ]
        self.streams: list[Stream] = []
        self.stream: Stream | None = None
        self.delivered: list[TokenId] = []
        self.ending: Finished | Failed | None = None
        self.effects: list[EdgeEffect] = []
        self._issued_by: int | None = None
        self.now_s = 0.0

    @property
    def session(self) -> CloudSession | None:
        """The verifier's half at the other end of the edge's newest stream."""
        return self.stream.session if self.stream else None

    # --- the link

    def connect(self, *, verifier: int = 0) -> Stream:
        """Make a new stream from the edge to a verifier; the one before must be down for the edge."""
        assert self.stream is None
        stream = Stream(verifier=verifier)
        self.streams.append(stream)
        self.stream = stream
        self.happens(LinkUp(holds_session=verifier == self._issued_by))
        return stream

    def cut(self) -> None:
        """The edge loses its stream. What it had sent may still arrive; what was sent to it is lost."""
        assert self.stream is not None
        self._hang_up()
        self.happens(LinkDown())

    def _hang_up(self) -> None:
        assert self.stream is not None
        self.stream.edge_open = False
        self.stream.down.clear()
        self.stream = None

    def deliver_up(self, stream: Stream) -> EdgeMessage | None:
        """Let the oldest message of `stream` reach its verifier."""
        return self.verifiers[stream.verifier].receive(stream)

    def deliver_down(self) -> CloudMessage:
        """Let the oldest message of the newest stream reach the edge."""
        assert self.stream is not None
        message = parse_cloud(self.stream.down.popleft())
        if isinstance(message, Opened):
            self._issued_by = self.stream.verifier
        self.happens(FromCloud(message=message))
        if isinstance(message, Failure) and self.stream is not None:
            self._hang_up()
        return message

    # --- the edge

    def happens(self, event: EdgeEvent) -> tuple[EdgeEffect, ...]:
        """Hand `event` to the edge and carry out what it asks for. Its clock goes on by 7 ms."""
        self.now_s += 0.007
        if isinstance(event, FromCloud | Grown | LinkUp):
            event = replace(event, at_s=self.now_s)
        effects = self.edge.handle(event)
        self.effects.extend(effects)
        for effect in effects:
            match effect:
                case Send():
                    assert self.stream is not None
                    self.stream.up.append(encode_edge(effect.message).SerializeToString())
                    self.stream.window_used.append(self.edge.window_used)
                case Deliver():
                    assert effect.commit.position == self.prompt_length + len(self.delivered)
                    self.delivered.extend(effect.commit.tokens)
                case Finished() | Failed():
                    assert self.ending is None, "a session ends once"
                    self.ending = effect
                case _:
                    pass
        return effects

    def draft(self, tokens: tuple[TokenId, ...]) -> tuple[EdgeEffect, ...]:
        """Guess that the text the edge knows goes on with `tokens`."""
        return self.happens(Drafted(position=self.edge.length, tokens=tokens))

    @property
    def prompt_length(self) -> int:
        """Tokens before the first delivered one."""
        return len(self.edge.request.prompt) + len(self.edge.request.output)

    @property
    def expected(self) -> tuple[TokenId, ...]:
        """The whole output as the target alone would write it."""
        request = self.edge.request
        given = (*request.prompt, *request.output)
        count = request.max_tokens - len(request.output)
        limit = self.verifiers[0].limits
        count = min(
            count, limit.max_tokens - len(request.output), limit.context_length - len(given)
        )
        tokens = self.target.run(given, max(count, 0))
        ends = [i for i, token in enumerate(tokens) if token in request.stop_tokens]
        return (*request.output, *(tokens[: ends[0] + 1] if ends else tokens))

    def settle(self, *, max_moves: int = 10_000) -> None:
        """Deliver everything under way and write every commit, until nothing moves."""
        for _ in range(max_moves):
            stream = self.stream
            if stream is None:
                return
            verifier = self.verifiers[stream.verifier]
            if stream.up:
                self.deliver_up(stream)
            elif stream.down:
                self.deliver_down()
            elif verifier.write(stream) is None:
                return
        raise AssertionError(f"not settled after {max_moves} moves")

    def finish(self, drafter: ToyDrafter | None, *, race: bool, max_rounds: int = 1000) -> int:
        """Run to the end over a healthy link, as the real shells do; return how many steps the target took.

        Args:
            drafter: what the edge asks for guesses; None if it never has any.
            race: the verifier steps whenever it may; else only when it has drafts or the edge is idle.
            max_rounds: of drafting, delivering everything and at most one step.

        Raises:
            AssertionError: the session is stuck.
        """
        num_steps = 0
        for _ in range(max_rounds):
            self.settle()
            if self.edge.is_over:
                return num_steps
            if self.stream is None:
                self.connect()
                continue
            wanted = self.edge.draft_request
            if wanted is not None:
                text = (*self.edge.log, *wanted.path)
                tokens = drafter.chain(text, wanted.limit) if drafter else ()
                if tokens:
                    self.draft((*wanted.path, *tokens))
                else:
                    self.happens(NothingToDraft(position=wanted.position))
                self.settle()
            session = self.session
            assert session is not None, "the verifier knows the session"
            assert session.may_step, (
                "everything is acknowledged, so nothing holds the verifier back"
            )
            assert race or session.has_drafts or session.edge_is_idle, "each waits for the other"
            verifier = self.verifiers[self.stream.verifier]
            verifier.end_step(verifier.begin_step(session, max_rows=1000))
            num_steps += 1
        raise AssertionError(f"not finished after {max_rounds} rounds")

    def is_live(self) -> bool:
        """A stream is attached and the text goes on."""
        return self.session is not None and self.session.state is CloudState.LIVE
