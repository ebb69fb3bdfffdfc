"""What the transcripts and walks of the verifier's half do not reach, and what a message costs."""

import random
from collections.abc import Iterator
from dataclasses import replace

import pytest
from harness.toy_verifier import SMALL_LIMITS, toy_request

from paceline.errors import FencedError, LocalProtocolError, RemoteProtocolError
from paceline.messages import (
    MAX_COMMIT_TOKENS,
    Close,
    CloseReason,
    FinishReason,
    Limits,
    Proposal,
    TokenLogprobs,
)
from paceline.session import CloudSession
from paceline.session.events import (
    Abort,
    Attach,
    CloudEvent,
    Detach,
    EndStream,
    FromEdge,
    LeaseExpired,
    Release,
    Stepped,
)
from paceline.session.table import CloudState
from paceline.session.tree import Node
from paceline.tokens import Position, TokenId

WIDE = Limits(window=4096, max_lead=100_000, context_length=200_000, max_tokens=100_000, lease_ms=1)


def ids(*tokens: int) -> tuple[TokenId, ...]:
    return tuple(map(TokenId, tokens))


def live(*, limits: Limits = SMALL_LIMITS, **options: object) -> CloudSession:
    request = toy_request(**options)  # type: ignore[arg-type]
    return CloudSession(request=request, limits=limits, vocabulary_size=50, stream=1)


def propose(
    session: CloudSession, base: int, *tokens: int, parents: tuple[int, ...] = (0,), stream: int = 1
) -> None:
    message = Proposal(
        base_position=Position(base), tokens=ids(*tokens), parents=parents if tokens else ()
    )
    session.handle(FromEdge(stream=stream, message=message))


@pytest.mark.parametrize(
    "limits",
    [
        replace(SMALL_LIMITS, window=63),
        replace(SMALL_LIMITS, max_lead=0),
        replace(SMALL_LIMITS, context_length=3),
    ],
)
def test_what_the_shell_has_to_see_to(limits: Limits) -> None:
    with pytest.raises(LocalProtocolError, match=r"limits|open\.prompt"):
        live(limits=limits)


def test_a_commit_is_bounded_and_a_long_replay_is_several() -> None:
    session = live(limits=WIDE, max_tokens=3000)
    session.handle(Stepped(tokens=ids(*(7 for _ in range(2500)))))
    sizes = []
    while (commit := session.next_commit()) is not None:
        sizes.append(len(commit.tokens))
    assert sizes == [MAX_COMMIT_TOKENS, MAX_COMMIT_TOKENS, 2500 - 2 * MAX_COMMIT_TOKENS]


def test_finish_is_said_again_to_an_edge_that_has_all_tokens() -> None:
    session = live(stop_tokens=(5,))
    session.handle(Stepped(tokens=ids(4, 5)))
    assert session.next_commit() is not None
    session.handle(Attach(stream=2, length=Position(5)))
    again = session.next_commit()
    assert again is not None
    assert (again.tokens, again.finish) == ((), FinishReason.STOP)
    assert session.next_commit() is None


def test_nothing_is_sent_while_no_stream_is_attached() -> None:
    session = live()
    session.handle(Stepped(tokens=ids(4)))
    session.handle(Detach(stream=1))
    assert session.next_commit() is None
    assert not session.may_step
    session.handle(Attach(stream=2, length=Position(3)))
    assert session.next_commit(stream=1) is None, "a writer that was fenced while it waited"
    assert session.next_commit(stream=2) is not None


def test_streams_only_grow() -> None:
    session = live()
    with pytest.raises(LocalProtocolError, match="stream: got 1, expected above 1"):
        session.handle(Attach(stream=1, length=Position(3)))


@pytest.mark.parametrize("length", [2, 4])
def test_nobody_resumes_before_the_prompt_or_beyond_the_log(length: int) -> None:
    session = live()
    with pytest.raises(RemoteProtocolError, match=rf"resume\.length: got {length}, expected 3"):
        session.handle(Attach(stream=2, length=Position(length)))
    assert session.stream == 1, "the stream that was there goes on"


def test_an_abandoned_try_does_not_fence_a_newer_one() -> None:
    session = live()
    session.handle(Attach(stream=2, length=Position(3), attempt=5))
    with pytest.raises(FencedError, match=r"resume\.attempt: got 4 after 5"):
        session.handle(Attach(stream=3, length=Position(3), attempt=4))
    assert session.stream == 2
    effects = session.handle(Attach(stream=4, length=Position(3)))
    assert effects[0] == EndStream(stream=2), "an edge that does not count its tries"


def test_what_a_fenced_stream_says_late_changes_nothing() -> None:
    session = live()
    session.handle(Attach(stream=2, length=Position(3)))
    propose(session, 99, 4)
    closing = FromEdge(stream=1, message=Close(reason=CloseReason.DONE))
    assert session.handle(closing) == ()
    assert session.handle(Detach(stream=1)) == ()
    assert (session.state, session.has_drafts) == (CloudState.LIVE, False)


AFTER_THE_END: list[CloudEvent] = [
    Attach(stream=2, length=Position(99)),
    Detach(stream=1),
    FromEdge(stream=1, message=Close(reason=CloseReason.DONE)),
    FromEdge(stream=1, message=Proposal(base_position=Position(99))),
    Stepped(tokens=ids(4)),
    LeaseExpired(),
    Abort(),
]


@pytest.mark.parametrize("event", AFTER_THE_END, ids=repr)
def test_nothing_happens_after_the_end(event: CloudEvent) -> None:
    session = live()
    propose(session, 3, 4)
    assert session.handle(Abort()) == (Release(),)
    assert session.handle(event) == ()
    assert session.state is CloudState.CLOSED
    assert (session.window_used, session.num_live_nodes, session.length) == (0, 0, 3)


def test_no_more_nodes_are_kept_than_one_stream_may_have() -> None:
    session = live()
    for stream in range(2, 8):
        for first in range(64):
            propose(session, 3, (first + stream) % 50, parents=(0,), stream=stream - 1)
        assert session.num_live_nodes <= 2 * 64
        session.handle(Attach(stream=stream, length=Position(3)))
        assert session.num_live_nodes <= 64
    # More nodes than names: the kept ones of a stream before and all of this one's are too many to keep again.
    chain = tuple(range(50)) + tuple(range(14))
    propose(session, 3, *chain, stream=7)
    assert session.num_live_nodes > 64
    session.handle(Attach(stream=8, length=Position(3)))
    assert session.num_live_nodes == 0


def test_given_output_is_replayed_without_log_probabilities() -> None:
    session = live(num_logprobs=1, output=(4, 5))
    entry = TokenLogprobs(logprob=-1.0)
    session.handle(Stepped(tokens=ids(6), logprobs=(entry,)))
    session.handle(Attach(stream=2, length=Position(4)))
    first, second = session.next_commit(), session.next_commit()
    assert first is not None
    assert second is not None
    assert (first.tokens, first.logprobs) == ((5,), ())
    assert (second.tokens, second.logprobs) == ((6,), (entry,))


def test_log_probabilities_are_let_go_once_acknowledged() -> None:
    session = live(num_logprobs=1)
    entries = tuple(TokenLogprobs(logprob=-float(i)) for i in range(5))
    session.handle(Stepped(tokens=ids(4, 5, 6, 7, 8), logprobs=entries))
    propose(session, 6)
    # Back before what it has acknowledged: the text is the same, in one commit without and one with.
    session.handle(Attach(stream=2, length=Position(4)))
    first, second = session.next_commit(), session.next_commit()
    assert first is not None
    assert second is not None
    assert (first.tokens, first.logprobs) == ((5, 6), ())
    assert (second.tokens, second.logprobs) == ((7, 8), entries[3:])
    propose(session, 8, stream=2)
    assert not session._logprobs


def test_what_would_follow_the_end_is_stale() -> None:
    session = live(stop_tokens=(5,))
    session.handle(Stepped(tokens=ids(4, 5)))
    propose(session, 3, 4, 5, 6)
    commit = session.next_commit()
    assert commit is not None
    assert (commit.num_late, commit.num_stale) == (2, 1)
    assert not session.has_drafts


def test_log_probabilities_that_do_not_match_are_our_bug() -> None:
    session = live(num_logprobs=1)
    with pytest.raises(LocalProtocolError, match=r"stepped\.logprobs: got 1, expected 2"):
        session.handle(Stepped(tokens=ids(4, 5), logprobs=(TokenLogprobs(logprob=-1.0),)))


def test_a_step_that_drew_nothing_commits_nothing() -> None:
    session = live()
    names = [type(effect).__name__ for effect in session.handle(Stepped(tokens=()))]
    assert names == ["WorkReady"]


def test_the_lead_ends_what_is_offered() -> None:
    session = live(limits=replace(SMALL_LIMITS, max_lead=3))
    propose(session, 3, 4, 5, 6, 7)
    assert session.offer(100).tokens == (4, 5), "with the target's own token that makes three"
    session.handle(Stepped(tokens=ids(4, 5, 6)))
    assert not session.may_step
    assert session.offer(100).tokens == ()
    propose(session, 4)
    assert session.may_step
    assert session.offer(100).tokens == ()


def test_what_the_shell_reads() -> None:
    session = live(output=(4,))
    propose(session, 4, 5)
    session.handle(Stepped(tokens=ids(5, 6)))
    assert (session.output, session.length, session.stream) == ([4, 5, 6], 6, 1)
    assert not session.has_drafts
    assert not session.edge_is_idle
    idle = Proposal(base_position=Position(6), idle=True)
    session.handle(FromEdge(stream=1, message=idle))
    assert session.edge_is_idle


def test_what_was_counted_is_kept_whether_the_edge_was_told_of_it_or_not() -> None:
    session = live()
    propose(session, 3, 4, 5, 6)
    session.handle(Stepped(tokens=ids(4, 5, 7)))
    before = session.counts
    assert (before.drafted, before.judged, before.accepted, before.steps) == (3, 3, 2, 1)
    assert session.next_commit() is not None
    assert session.counts == before
    session.handle(Stepped(tokens=ids(8)))
    assert (session.counts.judged, session.counts.steps) == (3, 2)


def test_committed_nodes_are_let_go() -> None:
    session = live()
    propose(session, 3, 4, 5, 6)
    session.handle(Stepped(tokens=ids(4, 5)))
    assert session._root.token == 5
    assert session._root.parent is None


def test_a_message_costs_what_it_changes_not_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a full window of 4096, a proposal and a commit touch a handful of nodes, not all of them."""
    session = live(limits=WIDE, max_tokens=50_000)
    propose(session, 3, *(i % 50 for i in range(4000)))
    touched = 0
    below = Node.below

    def counted(self: Node) -> Iterator[Node]:
        nonlocal touched
        for node in below(self):
            touched += 1
            yield node

    monkeypatch.setattr(Node, "below", counted)
    position = 3
    for i in range(50):
        propose(session, position, (4000 + i) % 50, parents=(1,))
        session.offer(8)
        session.handle(Stepped(tokens=ids(i % 50)))
        position += 1
    assert session.window_used == 4001
    assert touched <= 50 * 9


@pytest.mark.slow
def test_an_edge_that_lies_gets_errors_and_nothing_else() -> None:
    """Random messages: only RemoteProtocolError is raised, and the books balance whatever arrived before it."""
    refused, fields = 0, set[str]()
    for seed in range(300):
        rng = random.Random(seed)
        session = live(max_tokens=100)
        try:
            for _ in range(40):
                base = max(0, session._base + rng.choice([0] * 150 + [1, 2, -1]))
                tokens = tuple(rng.choice([0, 1, 2, 49]) for _ in range(rng.randrange(5)))
                highest = min(4, session._names.next + (rng.random() < 0.2))
                parents = tuple(rng.randrange(highest) for _ in tokens)
                propose(session, base, *tokens, parents=parents)
                if session.may_step and rng.random() < 0.2:
                    session.handle(Stepped(tokens=ids(*(rng.randrange(3) for _ in range(2)))))
        except RemoteProtocolError as error:
            fields.add(str(error).split(":")[0])
            refused += 1
        named = sum(len(node.names) for node in session._root.below())
        committed = sum(len(names) for names in session._names._committed.values())
        assert session.window_used == named + committed <= 64
    assert 100 < refused < 300
    assert fields == {"proposal.base_position", "proposal.parents", "proposal.tokens"}
