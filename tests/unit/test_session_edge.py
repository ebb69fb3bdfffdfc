"""What the transcripts and walks of the edge's half do not reach."""

import random
from dataclasses import replace

import pytest
from harness.session_pair import SessionPair
from harness.toy_verifier import SMALL_LIMITS, TOKENIZER, WEIGHTS, toy_identity, toy_request

from paceline.errors import (
    DrainingError,
    FencedError,
    LinkClosed,
    LocalProtocolError,
    OverloadedError,
    PacelineError,
    RemoteProtocolError,
)
from paceline.messages import Commit, Drain, Failure, FinishReason, Opened, Proposal
from paceline.session import EdgeSession
from paceline.session.edge import STORY_LENGTH
from paceline.session.events import (
    Drafted,
    EdgeEvent,
    Failed,
    FromCloud,
    GiveUp,
    LinkDown,
    LinkUp,
    NothingToDraft,
    Reconnect,
    Send,
    Steer,
    Stop,
)
from paceline.session.failure import error_of
from paceline.session.table import EdgeState
from paceline.tokens import Position, SessionId, TokenId

OPENED = Opened(
    session_id=SessionId(bytes(16)),
    limits=SMALL_LIMITS,
    target=toy_identity(24),
    length=Position(3),
)


def ids(*tokens: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, tokens))


def commit(position: int, *tokens: int, finish: FinishReason | None = None) -> FromCloud:
    return FromCloud(
        message=Commit(position=Position(position), tokens=ids(*tokens), finish=finish)
    )


def streaming(**options: int) -> EdgeSession:
    edge = EdgeSession(request=toy_request(), draft_length=options.pop("draft_length", 8))
    edge.handle(LinkUp(holds_session=False))
    edge.handle(FromCloud(message=OPENED))
    return edge


@pytest.mark.parametrize(("draft_length", "window"), [(-1, 1), (1, 0)])
def test_settings_that_make_no_sense(draft_length: int, window: int) -> None:
    with pytest.raises(LocalProtocolError, match="draft_length, window"):
        EdgeSession(request=toy_request(), draft_length=draft_length, window=window)


@pytest.mark.parametrize(
    ("opened", "field"),
    [
        (replace(OPENED, length=Position(2)), "opened.length"),
        (replace(OPENED, limits=replace(SMALL_LIMITS, window=63)), "opened.limits.window"),
        (
            replace(OPENED, target=replace(OPENED.target, tokenizer_fingerprint=WEIGHTS)),
            "opened.target.tokenizer_fingerprint",
        ),
        (
            replace(OPENED, target=toy_identity(24, weights=TOKENIZER)),
            "opened.target.weights_fingerprint",
        ),
    ],
)
def test_an_opened_that_can_not_be_true(opened: Opened, field: str) -> None:
    edge = EdgeSession(request=replace(toy_request(), weights_fingerprint=WEIGHTS), draft_length=4)
    edge.handle(LinkUp(holds_session=False))
    (failed,) = edge.handle(FromCloud(message=opened))
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, RemoteProtocolError)
    assert str(failed.error).startswith(field)
    assert edge.state is EdgeState.FAILED


def test_another_target_can_not_go_on_with_the_text_even_after_a_lost_session() -> None:
    edge = streaming()
    lost = Failure(reason="SESSION_LOST", message="", retryable=True)
    assert edge.handle(FromCloud(message=lost)) == (Reconnect(elsewhere=False),)
    edge.handle(LinkUp(holds_session=True))
    other = replace(OPENED, target=toy_identity(24, weights=TOKENIZER))
    (failed,) = edge.handle(FromCloud(message=other))
    assert isinstance(failed, Failed)
    assert "weights_fingerprint" in str(failed.error)


EVENTS_AFTER_THE_END = [
    commit(3, 4, 5),
    commit(3, 4, finish=FinishReason.STOP),
    commit(90, 4),
    FromCloud(message=OPENED),
    FromCloud(message=Drain(deadline_ms=1)),
    FromCloud(message=Failure(reason="OVERLOADED", message="", retryable=True)),
    FromCloud(message=Failure(reason="INTERNAL", message="", retryable=False)),
    FromCloud(message=Failure(reason="SESSION_LOST", message="", retryable=True)),
    LinkUp(holds_session=True),
    LinkDown(),
    Drafted(position=Position(3), tokens=ids(4)),
    NothingToDraft(),
    Steer(draft_length=3, window=9),
    Stop(cancelled=True),
    GiveUp(error=LinkClosed("gone")),
]


@pytest.mark.parametrize("event", EVENTS_AFTER_THE_END, ids=repr)
@pytest.mark.parametrize("is_failed", [False, True])
def test_nothing_happens_after_the_end(event: FromCloud, is_failed: bool) -> None:
    edge = streaming()
    edge.handle(GiveUp(error=LinkClosed("gone")) if is_failed else Stop(cancelled=False))
    was = edge.state
    assert edge.handle(event) == ()
    assert (edge.state, edge.output, edge.draft_request) == (was, [], None)
    assert edge.opened == OPENED


def test_a_bug_of_ours_tells_the_last_events() -> None:
    edge = streaming()
    for _ in range(2 * STORY_LENGTH):
        edge.handle(NothingToDraft())
    with pytest.raises(LocalProtocolError, match="the last events were: NothingToDraft; ") as told:
        edge.handle(LinkUp(holds_session=False))
    assert str(told.value).endswith("; LinkUp")
    with pytest.raises(LocalProtocolError, match=r"drafted.position: got 9"):
        edge.handle(Drafted(position=Position(9), tokens=()))


def test_a_commit_gives_the_drafter_another_chance() -> None:
    edge = streaming()
    (idle,) = edge.handle(NothingToDraft())
    assert isinstance(idle, Send)
    assert idle.message == Proposal(base_position=Position(3), idle=True)
    assert edge.draft_request is None
    edge.handle(commit(3, 4))
    assert edge.draft_request is not None
    assert edge.handle(NothingToDraft(position=Position(3))) == (), "asked about older text"
    assert edge.draft_request is not None


def test_a_new_stream_is_told_again_that_the_edge_is_idle() -> None:
    edge = streaming()
    edge.handle(NothingToDraft())
    edge.handle(LinkDown())
    effects = edge.handle(LinkUp(holds_session=True))
    assert [effect.message for effect in effects if isinstance(effect, Send)][1:] == [
        Proposal(base_position=Position(3), idle=True)
    ]


def test_what_was_known_before_is_not_delivered_twice() -> None:
    edge = streaming()
    edge.handle(commit(3, 4, 5))
    edge.handle(commit(3, 4, 5, 6))
    assert edge.handle(commit(4, 5)) == ()
    assert edge.output == [4, 5, 6]


def test_finish_alone_ends_the_text() -> None:
    edge = streaming()
    edge.handle(commit(3, 4))
    names = [type(e).__name__ for e in edge.handle(commit(4, finish=FinishReason.LENGTH))]
    assert names == ["Send", "Finished"]


def test_a_branch_that_ends_the_text_is_not_drafted_on() -> None:
    edge = EdgeSession(request=toy_request(stop_tokens=(7,)), draft_length=8)
    edge.handle(Drafted(position=Position(3), tokens=ids(4, 7, 9)))
    assert edge.draft_request is None
    edge.handle(Drafted(position=Position(3), tokens=ids(5)))
    assert edge.draft_request is not None
    assert edge.draft_request.path == (5,)


def test_limits_of_the_verifier_bound_what_is_worth_drafting() -> None:
    pair = SessionPair(
        request=toy_request(), limits=replace(SMALL_LIMITS, max_tokens=4), draft_length=8
    )
    pair.connect()
    pair.settle()
    assert pair.edge.draft_request is not None
    assert pair.edge.draft_request.limit == 3, "the fourth token is the target's own"


def test_guesses_that_never_left_are_counted() -> None:
    edge = EdgeSession(request=toy_request(), draft_length=8, window=1)
    edge.handle(LinkUp(holds_session=False))
    edge.handle(FromCloud(message=OPENED))
    edge.handle(Drafted(position=Position(3), tokens=ids(4, 5, 6)))
    edge.handle(commit(3, 9))
    assert (edge.counts.drafted, edge.counts.unsent, edge.window_used) == (1, 2, 0)
    edge.handle(Drafted(position=Position(3), tokens=ids(4, 5, 6, 7)))
    assert edge.counts.unsent == 6


def test_more_guesses_than_a_message_holds_are_several() -> None:
    limits = replace(SMALL_LIMITS, window=10_000, context_length=20_000, max_tokens=20_000)
    edge = EdgeSession(request=toy_request(max_tokens=9000), draft_length=9000, window=9000)
    edge.handle(LinkUp(holds_session=False))
    edge.handle(FromCloud(message=replace(OPENED, limits=limits)))
    effects = edge.handle(Drafted(position=Position(3), tokens=ids(*range(5000))))
    sent = [e.message for e in effects if isinstance(e, Send)]
    assert [len(m.tokens) for m in sent if isinstance(m, Proposal)] == [4096, 904]


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("FENCED", FencedError), ("DRAINING", DrainingError), ("NEVER_HEARD_OF", PacelineError)],
)
def test_failures_become_errors(reason: str, kind: type[PacelineError]) -> None:
    error = error_of(Failure(reason=reason, message="why", retryable=False))
    assert type(error) is kind
    assert "why" in str(error)


def test_overload_keeps_its_delay() -> None:
    error = error_of(Failure(reason="OVERLOADED", message="", retryable=True, retry_after_ms=2500))
    assert isinstance(error, OverloadedError)
    assert error.retry_after_s == 2.5


@pytest.mark.slow
def test_a_verifier_that_lies_fails_the_session_and_nothing_else() -> None:
    """Random messages: nothing is raised, nothing known is taken back, nothing happens after the end."""
    rng = random.Random(3)
    endings = set[str]()
    for _ in range(400):
        edge = streaming()
        known: list[TokenId] = []
        for _ in range(25):
            position = edge.length + rng.choice([0] * 20 + [-1, -2, 1])
            tokens = ids(*(rng.randrange(2) for _ in range(rng.randrange(4))))
            finish = FinishReason.STOP if rng.random() < 0.02 else None
            was_over = edge.is_over
            events: list[EdgeEvent] = [commit(position, *tokens, finish=finish)] * 6
            events += [Drafted(position=edge.length, tokens=tokens), NothingToDraft()]
            events += [FromCloud(message=OPENED)] * (rng.random() < 0.02)
            event = rng.choice(events)
            effects = edge.handle(event)
            assert not was_over or effects == ()
            assert edge.output[: len(known)] == known
            assert edge.window_used <= 64
            known = edge.output
        assert len(known) <= edge.request.max_tokens
        endings.add(edge.state.value)
    assert endings == {"streaming", "done", "failed"}
