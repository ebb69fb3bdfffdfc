"""The least shell that obeys the contract of `CloudSession`, and a stream that a test moves by hand."""

from collections import deque
from dataclasses import dataclass, field

from harness.toy import ToyTarget

from paceline.codec import encode_cloud, parse_edge
from paceline.errors import FencedError, PacelineError, RemoteProtocolError, SessionLostError
from paceline.messages import (
    Close,
    CloudMessage,
    Commit,
    Drain,
    EdgeMessage,
    Failure,
    Limits,
    ModelIdentity,
    Open,
    Opened,
    Proposal,
    Resume,
    TokenLogprobs,
)
from paceline.sampling.settings import SamplingSettings
from paceline.session import CloudSession
from paceline.session.events import (
    Abort,
    Attach,
    CloudEffect,
    Detach,
    EndStream,
    FromEdge,
    LeaseExpired,
    Release,
    Stepped,
)
from paceline.tokens import SessionId, TokenId

TOKENIZER = bytes(range(32))
WEIGHTS = bytes(range(32, 64))
SMALL_LIMITS = Limits(window=64, max_lead=12, context_length=512, max_tokens=256, lease_ms=1000)


def toy_request(
    prompt: tuple[int, ...] = (1, 2, 3),
    *,
    max_tokens: int = 40,
    stop_tokens: tuple[int, ...] = (),
    output: tuple[int, ...] = (),
    num_logprobs: int = 0,
) -> Open:
    """Return a request for the toy target."""
    return Open(
        tokenizer_fingerprint=TOKENIZER,
        prompt=tuple(map(TokenId, prompt)),
        sampling=SamplingSettings(temperature=0.0),
        max_tokens=max_tokens,
        stop_tokens=tuple(map(TokenId, stop_tokens)),
        output=tuple(map(TokenId, output)),
        num_logprobs=num_logprobs,
    )


def toy_identity(vocabulary_size: int, *, weights: bytes = WEIGHTS) -> ModelIdentity:
    """Return the toy target's identity."""
    return ModelIdentity(
        name="toy",
        weights_fingerprint=weights,
        dtype="float32",
        quantisation="",
        tokenizer_fingerprint=TOKENIZER,
        vocabulary_size=vocabulary_size,
        context_length=512,
    )


@dataclass(slots=True, kw_only=True, eq=False)
class Stream:
    """One stream: bytes under way in each direction, and which end still believes in it."""

    verifier: int
    number: int = 0
    """The verifier's, given when its first message arrives."""
    up: deque[bytes] = field(default_factory=deque)
    window_used: deque[int] = field(default_factory=deque)
    """What the edge counted in flight when it sent each message of `up`."""
    down: deque[bytes] = field(default_factory=deque)
    edge_open: bool = True
    cloud_open: bool = True
    session: CloudSession | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class UnderWay:
    """A step of the target that was started and has not ended."""

    session: CloudSession
    tokens: tuple[TokenId, ...]


class ToyVerifier:
    """The least shell around cloud sessions: opens, resumes, steps and writes commits."""

    def __init__(self, *, number: int, target: ToyTarget, limits: Limits) -> None:
        self.number = number
        self.target = target
        self.limits = limits
        self.sessions: dict[SessionId, CloudSession] = {}
        self.leases: set[SessionId] = set()
        self.errors: list[PacelineError] = []
        self.effects: list[CloudEffect] = []
        self._streams: dict[int, Stream] = {}

    def receive(self, stream: Stream) -> EdgeMessage | None:
        """Take the oldest message under way on `stream`; return it, or None where nobody listens any more."""
        payload = stream.up.popleft()
        stream.window_used.popleft()
        if not stream.cloud_open:
            return None
        message = parse_edge(payload)
        try:
            self._take(stream, message)
        except (RemoteProtocolError, SessionLostError, FencedError) as error:
            self.errors.append(error)
            self.fail(stream, error)
            if stream.session is not None and isinstance(error, RemoteProtocolError):
                self._apply(stream.session, stream.session.handle(Abort()))
        return message

    def fail(self, stream: Stream, error: PacelineError) -> None:
        """End `stream` with `error`."""
        length = stream.session.length if stream.session else 0
        self._send(
            stream,
            Failure(
                reason=error.reason, message=str(error), retryable=error.retryable, length=length
            ),
        )
        stream.cloud_open = False

    def _take(self, stream: Stream, message: EdgeMessage) -> None:
        if stream.number == 0:
            stream.number = len(self._streams) + 1
            self._streams[stream.number] = stream
        match message:
            case Open():
                session = CloudSession(
                    request=message,
                    limits=self.limits,
                    vocabulary_size=self.target.vocabulary_size,
                    stream=stream.number,
                )
                self.sessions[SessionId(bytes([self.number]) + stream.number.to_bytes(15))] = (
                    session
                )
                self._welcome(stream, session)
            case Resume():
                found = self.sessions.get(message.session_id)
                if found is None:
                    raise SessionLostError(
                        "resume.session_id: not held here; open it again in full"
                    )
                attach = Attach(
                    stream=stream.number, length=message.length, attempt=message.attempt
                )
                self._apply(found, found.handle(attach))
                self._welcome(stream, found)
            case Proposal() | Close():
                if stream.session is None:
                    raise RemoteProtocolError("message: expected open or resume first")
                event = FromEdge(stream=stream.number, message=message)
                self._apply(stream.session, stream.session.handle(event))

    def _welcome(self, stream: Stream, session: CloudSession) -> None:
        stream.session = session
        opened = Opened(
            session_id=self.id_of(session),
            limits=self.limits,
            target=toy_identity(self.target.vocabulary_size),
            length=session.length,
        )
        self._send(stream, opened)

    def id_of(self, session: CloudSession) -> SessionId:
        """Return the id `session` was issued with."""
        return next(known for known, held in self.sessions.items() if held is session)

    def _apply(self, session: CloudSession, effects: tuple[CloudEffect, ...]) -> None:
        self.effects.extend(effects)
        for effect in effects:
            if isinstance(effect, EndStream):
                self._streams[effect.stream].cloud_open = False
            elif isinstance(effect, Release):
                released = self.id_of(session)
                del self.sessions[released]
                self.leases.discard(released)
            else:
                name = type(effect).__name__
                if name == "StartLease":
                    self.leases.add(self.id_of(session))
                elif name == "StopLease":
                    self.leases.remove(self.id_of(session))

    def begin_step(self, session: CloudSession, *, max_rows: int) -> UnderWay:
        """Start a step over at most `max_rows` of what `session` has now."""
        assert session.may_step
        return UnderWay(
            session=session, tokens=self.target.walk(session.log, session.offer(max_rows))
        )

    def end_step(self, step: UnderWay) -> None:
        """Commit what a step drew, whatever has happened to the session meanwhile."""
        num_top = step.session.request.num_logprobs
        logprobs = tuple(TokenLogprobs(logprob=-float(t)) for t in step.tokens) if num_top else ()
        event = Stepped(tokens=step.tokens, num_rows=len(step.tokens), logprobs=logprobs)
        self._apply(step.session, step.session.handle(event))

    def write(self, stream: Stream) -> Commit | None:
        """Send the next commit on `stream`, if there is any for it."""
        if not stream.cloud_open or stream.session is None:
            return None
        commit = stream.session.next_commit(stream=stream.number)
        if commit is not None:
            self._send(stream, commit)
        return commit

    def notice(self, stream: Stream) -> None:
        """Notice that the edge's end of `stream` is gone."""
        if stream.cloud_open and stream.session is not None:
            detach = Detach(stream=stream.number)
            self._apply(stream.session, stream.session.handle(detach))
        stream.cloud_open = False

    def expire(self, session_id: SessionId) -> None:
        """End the lease of a session."""
        session = self.sessions[session_id]
        self._apply(session, session.handle(LeaseExpired()))

    def drain(self, stream: Stream) -> None:
        """Ask the edge to move."""
        if stream.cloud_open and stream.session is not None:
            self._send(stream, Drain(deadline_ms=500))

    def _send(self, stream: Stream, message: CloudMessage) -> None:
        stream.down.append(encode_cloud(message).SerializeToString())
