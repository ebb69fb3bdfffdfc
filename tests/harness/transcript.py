"""A tiny language for transcripts of a session: lines that start with `>` happen, what follows is what came of them.

    > open prompt=1,2,3 max_tokens=9 draft_length=4 window=64 stop=7 logprobs=1 max_lead=12 verifiers=2 output=4
           pipeline=run-ahead
    > connect [verifier]        the edge gets a stream                      > cut       it loses it
    > draft 4 5 6 [at=N]        the drafter guesses                         > no guess  it has none
    > steer draft_length=8 window=64      the edge drafts so far ahead from now on
    > up [stream]               the oldest message reaches the verifier     > down      ... the edge
    > offer [max rows]          what the verifier would compute             > step 4 5  the target drew these
    > write [stream]            the verifier sends its next commit          > state     where everything stands
    > notice [stream]           the verifier sees that a stream is gone     > expire    the lease ends
    > drain, fail REASON [retryable], stop, cancel, give up
    > lie up base=3 tokens=4,5 parents=0,1 [idle]      a proposal that the edge did not send; `lie up close`
    > lie down position=3 tokens=4,5 [finish=stop]     a commit that the verifier did not send

Streams are numbered by when the edge made them. Nothing else happens: messages wait until they are told to arrive.
"""

from collections.abc import Callable
from dataclasses import replace

from harness.session_pair import SessionPair
from harness.toy_verifier import SMALL_LIMITS, Stream, toy_request

from paceline.codec import encode_cloud, encode_edge, parse_edge
from paceline.errors import LinkClosed, PacelineError, ProtocolError
from paceline.messages import (
    Close,
    CloseReason,
    CloudMessage,
    Commit,
    EdgeMessage,
    Failure,
    FinishReason,
    Limits,
    Open,
    Opened,
    Proposal,
    Resume,
    TokenLogprobs,
)
from paceline.session import CloudSession
from paceline.session.events import (
    Drafted,
    Failed,
    GiveUp,
    NothingToDraft,
    Send,
    Steer,
    Stepped,
    Stop,
)
from paceline.session.pipeline import PipelineName, PipelineSettings
from paceline.tokens import Position, TokenId

ALPHABET = 1000
"""Vocabulary of the transcripts."""


def replay(script: str) -> str:
    """Return `script` with what comes of each of its lines written below it."""
    player = _Player()
    lines: list[str] = []
    for line in script.splitlines():
        if line.startswith(">"):
            lines.append(line)
            lines.extend(f"  {outcome}" for outcome in player.play(line.removeprefix(">").split()))
        elif line.startswith("#") or not line.strip():
            lines.append(line)
    return "\n".join(lines) + "\n"


class _Player:
    pair: SessionPair

    def play(self, words: list[str]) -> list[str]:
        """Do what one line says and tell what came of it."""
        verb, *rest = words
        said = [word for word in rest if "=" not in word]
        named = dict(word.split("=", 1) for word in rest if "=" in word)
        action: Callable[[list[str], dict[str, str]], list[str] | None]
        action = getattr(self, f"_{verb}")
        if verb == "open":
            return action(said, named) or []
        self.pair.effects.clear()
        for verifier in self.pair.verifiers:
            verifier.effects.clear()
        outcome: list[str] = []
        try:
            outcome += action(said, named) or []
        except ProtocolError as error:
            outcome.append(f"raises {type(error).__name__}: {error}")
        outcome += [_tell_effect("edge", effect) for effect in self.pair.effects]
        outcome += [_tell_effect("cloud", e) for v in self.pair.verifiers for e in v.effects]
        return outcome

    def _open(self, said: list[str], named: dict[str, str]) -> None:
        del said
        request = toy_request(
            _ints(named["prompt"]),
            max_tokens=int(named.get("max_tokens", 20)),
            stop_tokens=_ints(named.get("stop", "")),
            output=_ints(named.get("output", "")),
            num_logprobs=int(named.get("logprobs", 0)),
        )
        pipeline = PipelineSettings(name=PipelineName(named.get("pipeline", "tree-stream")))
        request = replace(request, patience_ms=pipeline.patience_ms)
        self.pair = SessionPair(
            request=request,
            limits=Limits(
                window=64,
                max_lead=int(named.get("max_lead", 12)),
                context_length=SMALL_LIMITS.context_length,
                max_tokens=SMALL_LIMITS.max_tokens,
                lease_ms=1000,
            ),
            draft_length=int(named.get("draft_length", 8)),
            window=int(named.get("window", 64)),
            num_verifiers=int(named.get("verifiers", 1)),
            pipeline=pipeline,
        )
        for verifier in self.pair.verifiers:
            verifier.target = type(verifier.target)(vocabulary_size=ALPHABET)

    # --- the edge

    def _connect(self, said: list[str], named: dict[str, str]) -> None:
        del named
        self.pair.connect(verifier=int(said[0]) if said else 0)

    def _cut(self, said: list[str], named: dict[str, str]) -> None:
        self.pair.cut()

    def _draft(self, said: list[str], named: dict[str, str]) -> None:
        position = Position(int(named.get("at", self.pair.edge.length)))
        self.pair.happens(Drafted(position=position, tokens=tuple(TokenId(int(t)) for t in said)))

    def _no(self, said: list[str], named: dict[str, str]) -> None:
        self.pair.happens(NothingToDraft())

    def _steer(self, said: list[str], named: dict[str, str]) -> None:
        edge = self.pair.edge
        draft_length = int(named.get("draft_length", edge.draft_length))
        window = int(named.get("window", edge.window))
        self.pair.happens(Steer(draft_length=draft_length, window=window))

    def _stop(self, said: list[str], named: dict[str, str]) -> None:
        self.pair.happens(Stop(cancelled=False))

    def _cancel(self, said: list[str], named: dict[str, str]) -> None:
        self.pair.happens(Stop(cancelled=True))

    def _give(self, said: list[str], named: dict[str, str]) -> None:
        self.pair.happens(GiveUp(error=LinkClosed("no verifier answers")))

    def _down(self, said: list[str], named: dict[str, str]) -> list[str]:
        return [f"arrives {tell(self.pair.deliver_down())}"]

    # --- the verifier

    def _stream(self, said: list[str]) -> Stream:
        stream = self.pair.streams[int(said[0]) - 1] if said else self.pair.stream
        assert stream is not None
        return stream

    def _session(self) -> CloudSession:
        session = next(s.session for s in reversed(self.pair.streams) if s.session is not None)
        assert session is not None
        return session

    def _up(self, said: list[str], named: dict[str, str]) -> list[str]:
        stream = self._stream(said)
        arriving = tell(parse_edge(stream.up[0]))
        verifier = self.pair.verifiers[stream.verifier]
        num_errors, listens = len(verifier.errors), stream.cloud_open
        self.pair.deliver_up(stream)
        errors = [f"{type(e).__name__}: {e}" for e in verifier.errors[num_errors:]]
        return [f"arrives {arriving}" + ("" if listens else ", and nobody listens"), *errors]

    def _offer(self, said: list[str], named: dict[str, str]) -> list[str]:
        offer = self._session().offer(int(said[0]) if said else 100)
        return [f"rows {_ids(offer.tokens)} parents {list(offer.parents)}"]

    def _step(self, said: list[str], named: dict[str, str]) -> None:
        session = self._session()
        tokens = tuple(TokenId(int(token)) for token in said)
        count = len(tokens) if session.request.num_logprobs else 0
        logprobs = tuple(TokenLogprobs(logprob=-0.5 * (i + 1)) for i in range(count))
        effects = session.handle(Stepped(tokens=tokens, num_rows=len(tokens), logprobs=logprobs))
        self.pair.verifiers[0].effects.extend(effects)

    def _write(self, said: list[str], named: dict[str, str]) -> list[str]:
        stream = self._stream(said)
        commit = self.pair.verifiers[stream.verifier].write(stream)
        return [tell(commit) if commit else "nothing to send"]

    def _notice(self, said: list[str], named: dict[str, str]) -> None:
        stream = self._stream(said)
        self.pair.verifiers[stream.verifier].notice(stream)

    def _expire(self, said: list[str], named: dict[str, str]) -> None:
        verifier = next(v for v in self.pair.verifiers if v.leases)
        verifier.expire(min(verifier.leases))

    def _drain(self, said: list[str], named: dict[str, str]) -> None:
        stream = self._stream([])
        self.pair.verifiers[stream.verifier].drain(stream)

    def _fail(self, said: list[str], named: dict[str, str]) -> None:
        failure = Failure(
            reason=said[0],
            message="so it is",
            retryable="retryable" in said,
            retry_after_ms=int(named.get("after_ms", 0)),
        )
        self._say_down(failure)

    def _state(self, said: list[str], named: dict[str, str]) -> list[str]:
        edge = self.pair.edge
        wants = _tell_request(edge.draft_request)
        sessions = dict.fromkeys(s.session for s in self.pair.streams if s.session)
        return [
            f"edge {edge.state.value}: {_ids(edge.log)}, {edge.window_used} names in flight, wants {wants}",
            *(_tell_session(session) for session in sessions),
        ]

    # --- lies

    def _lie(self, said: list[str], named: dict[str, str]) -> None:
        if said[0] == "up":
            message: EdgeMessage = Proposal(
                base_position=Position(int(named.get("base", 0))),
                tokens=tuple(map(TokenId, _ints(named.get("tokens", "")))),
                parents=_ints(named.get("parents", "")),
                idle="idle" in said,
            )
            if "close" in said:
                message = Close(reason=CloseReason.CANCELLED)
            stream = self._stream([])
            stream.up.append(encode_edge(message).SerializeToString())
            stream.window_used.append(0)
        else:
            finish = FinishReason(named["finish"]) if "finish" in named else None
            tokens = tuple(map(TokenId, _ints(named["tokens"])))
            position = Position(int(named["position"]))
            self._say_down(Commit(position=position, tokens=tokens, finish=finish))

    def _say_down(self, message: CloudMessage) -> None:
        self._stream([]).down.append(encode_cloud(message).SerializeToString())


def _ints(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _ids(tokens: object) -> str:
    assert isinstance(tokens, list | tuple)
    return "[" + " ".join(map(str, tokens)) + "]"


def _tell_request(request: object) -> str:
    if request is None:
        return "no draft"
    return f"{request.limit} after {_ids(request.path)}"  # type: ignore[attr-defined]


def _tell_session(session: CloudSession) -> str:
    may = "may" if session.may_step else "may not"
    return (
        f"cloud {session.state.value}: {_ids(session.log)}, {session.window_used} names in flight, "
        f"{session.num_live_nodes} nodes, {may} step"
    )


def _tell_effect(side: str, effect: object) -> str:
    if isinstance(effect, Send):
        return f"{side} sends {tell(effect.message)}"
    if isinstance(effect, Failed):
        return f"{side} failed, {type(effect.error).__name__}: {_short(effect.error)}"
    name = type(effect).__name__
    fields = {field: getattr(effect, field) for field in effect.__slots__}  # type: ignore[attr-defined]
    told = [
        f"{field}={tell(value) if isinstance(value, Commit) else value}"
        for field, value in fields.items()
    ]
    return " ".join([side, name, *told])


def _short(error: PacelineError) -> str:
    return str(error)[:160]


def tell(message: EdgeMessage | CloudMessage) -> str:
    match message:
        case Open():
            output = f" output {_ids(message.output)}" if message.output else ""
            weights = ", the same weights only" if message.weights_fingerprint else ""
            patience = f", patience {message.patience_ms} ms" if message.patience_ms else ""
            return f"Open prompt {_ids(message.prompt)}{output} max_tokens {message.max_tokens}{weights}{patience}"
        case Resume():
            return f"Resume length {message.length} attempt {message.attempt}"
        case Proposal():
            parents = f" parents {list(message.parents)}" if message.parents else ""
            idle = " idle" if message.idle else ""
            return f"Proposal base {message.base_position} {_ids(message.tokens)}{parents}{idle}"
        case Close():
            return f"Close {message.reason.value}"
        case Opened():
            return f"Opened window {message.limits.window} max_lead {message.limits.max_lead} length {message.length}"
        case Commit():
            return _tell_commit(message)
        case Failure():
            retry = f" retryable after {message.retry_after_ms} ms" if message.retryable else ""
            return f"Failure {message.reason} length {message.length}{retry}"
        case _:
            return f"Drain within {message.deadline_ms} ms"


def _tell_commit(commit: Commit) -> str:
    mask = "".join("+" if flag else "-" for flag in commit.accepted)
    counts = {
        "judged": commit.num_judged,
        "accepted": commit.num_accepted,
        "late": commit.num_late,
        "stale": commit.num_stale,
        "steps": commit.num_steps,
    }
    parts = [f"Commit at {commit.position} {_ids(commit.tokens)}", mask]
    parts += [f"{name} {count}" for name, count in counts.items() if count]
    if commit.logprobs:
        parts.append("logprobs " + " ".join(f"{entry.logprob:g}" for entry in commit.logprobs))
    if commit.finish:
        parts.append(f"finish {commit.finish.value}")
    return " ".join(part for part in parts if part)
