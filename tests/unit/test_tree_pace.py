"""When the verifier gets to a guess, and what the edge sends for it: against a verifier that is walked step by step."""

import random
from dataclasses import replace
from math import inf, log

import pytest
from harness.toy_verifier import SMALL_LIMITS, toy_identity, toy_request

from paceline.drafter import Guess
from paceline.errors import ConfigError
from paceline.messages import Commit, Opened, Proposal
from paceline.session import EdgeSession
from paceline.session.events import (
    EdgeEffect,
    FromCloud,
    Grown,
    LinkDown,
    LinkUp,
    Send,
    Steer,
)
from paceline.session.growth import GrownLeaf, Growth
from paceline.session.pace import FIRST_RUN, Pace, Walk
from paceline.session.tree import root_after
from paceline.tokens import Position, SessionId, TokenId

PACE = Pace(rtt_s=0.1, step_s=0.06, forward_s=0.004, slack_s=0.001)
GROWTH = Growth(floor=0.05, pace=PACE)
OPENED = Opened(
    session_id=SessionId(bytes(16)),
    limits=SMALL_LIMITS,
    target=toy_identity(24),
    length=Position(3),
)


@pytest.mark.parametrize(
    ("field", "value"),
    [("rtt_s", -1.0), ("forward_s", inf), ("slack_s", -0.1), ("step_s", 0.0), ("step_s", inf)],
)
def test_times_that_make_no_sense(field: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"pace\.{field}: got"):
        replace(PACE, **{field: value})


def test_a_walk_gets_to_guesses_as_a_verifier_does() -> None:
    """Against a verifier that goes through what is there, draws one token and begins its next step."""
    rng = random.Random(5)
    num_late = num_in_time = 0
    for _ in range(300):
        pace = Pace(rtt_s=rng.choice([0.0, 0.03, 0.1, 0.3]), step_s=rng.uniform(0.02, 0.1))
        root = root_after([TokenId(0)])
        walk, heard_s = Walk(root), rng.uniform(5.0, 6.0)
        walk.advance(root, (), now_s=heard_s)
        sent_s, path, node, now_s = [], [root], root, heard_s
        for token in range(1, 12):
            now_s += rng.choice([0.0, 0.004, 0.05])
            walk_is_late = walk.loss(node, pace, at_s=now_s) < 0.0
            node = node.grow(TokenId(token))
            walk.add(node, pace, now_s=now_s)
            sent_s.append(now_s)
            path.append(node)
            gone_through = _gone_through(sent_s, pace, heard_s=heard_s)
            assert walk_is_late == (len(sent_s) not in gone_through)
            num_late += walk_is_late
            num_in_time += not walk_is_late
        # What was found guess by guess is found again from nothing.
        found = [walk.until_s(one, pace) for one in path]
        walk.advance(root, (), now_s=heard_s)
        for one, at_s in zip(path[1:], sent_s, strict=True):
            walk.add(one, None, now_s=at_s)
        assert [walk.until_s(one, pace) for one in path] == pytest.approx(found)
    assert num_late > 500
    assert num_in_time > 500


def _gone_through(sent_s: list[float], pace: Pace, *, heard_s: float) -> set[int]:
    """Return the depths of the guesses that are rows of a step, of a path that is right throughout."""
    begins_s, length, through = heard_s - pace.rtt_s / 2, 0, set[int]()
    while length < len(sent_s):
        while length < len(sent_s) and sent_s[length] + pace.rtt_s / 2 <= begins_s + 1e-12:
            length += 1
            through.add(length)
        length += 1
        begins_s += pace.step_s
    return through


def test_a_node_that_is_not_sent_is_where_the_verifier_draws_alone() -> None:
    root = root_after([TokenId(0)])
    sent, unsent = root.grow(TokenId(1)), root.grow(TokenId(2))
    pace = Pace(rtt_s=0.1, step_s=0.06)
    walk = Walk(root)
    walk.add(sent, None, now_s=0.95)
    walk.advance(root, (), now_s=1.0)
    walk.add(sent, None, now_s=0.95)
    assert walk.until_s(sent, pace) == pytest.approx(0.96)  # 0.9 is over: late by a step
    assert walk.until_s(unsent, pace) == walk.until_s(root, pace) == pytest.approx(0.9)


def test_being_late_costs_what_the_best_guesses_on_the_way_lose() -> None:
    root = root_after([TokenId(0)])
    walk = Walk(root)
    assert walk.loss(root, PACE, at_s=99.0) == 0.0, "before the first commit nobody knows"
    walk.advance(root, (), now_s=10.0)
    assert walk.until_s(root, PACE) == pytest.approx(9.9)
    assert walk.loss(root, PACE, at_s=9.9) == 0.0
    assert walk.loss(root, PACE, at_s=10.0) == pytest.approx(2 * log(FIRST_RUN))
    for _ in range(1000):
        walk.learn(0.9)
    assert walk.loss(root, PACE, at_s=10.0) == pytest.approx(2 * log(0.9), abs=1e-3)
    walk.restart(now_s=10.0)
    assert walk.until_s(root, PACE) == inf


# --- what a session sends


def streaming(growth: Growth = GROWTH, *, window: int = 40) -> EdgeSession:
    edge = EdgeSession(
        request=toy_request(max_tokens=40), draft_length=12, window=window, growth=growth
    )
    edge.handle(LinkUp(holds_session=False, at_s=9.0))
    edge.handle(FromCloud(message=OPENED, at_s=9.1))
    return edge


def commit(edge: EdgeSession, position: int, *tokens: int, at_s: float) -> list[Proposal]:
    message = Commit(position=Position(position), tokens=tuple(map(TokenId, tokens)))
    return proposals(edge.handle(FromCloud(message=message, at_s=at_s)))


def grow(
    edge: EdgeSession, *path: int, position: int, at_s: float, **chances: float
) -> list[Proposal]:
    guesses = tuple(Guess(token=TokenId(int(k[1:])), chance=c) for k, c in chances.items())
    leaf = GrownLeaf(path=tuple(map(TokenId, path)), guesses=guesses)
    event = Grown(position=Position(position), leaves=(leaf,), at_s=at_s)
    return proposals(edge.handle(event))


def leaves(edge: EdgeSession) -> list[tuple[int, ...]]:
    return [] if edge.growth_request is None else [tuple(p) for p in edge.growth_request.paths]


def proposals(effects: tuple[EdgeEffect, ...]) -> list[Proposal]:
    sent = (effect.message for effect in effects if isinstance(effect, Send))
    return [message for message in sent if isinstance(message, Proposal) and message.tokens]


def test_what_comes_late_goes_with_the_first_below_it_that_does_not() -> None:
    edge = streaming()
    commit(edge, 3, 5, at_s=10.0)
    # 10.004: the verifier goes on from this text since 9.95, so that the next step of ours begins at 10.02 with two tokens more.
    assert grow(edge, position=4, at_s=10.004, t1=0.9, t2=0.09) == []
    assert grow(edge, 1, position=4, at_s=10.008, t1=0.9, t2=0.05) == []
    assert edge.window_used == 0
    (sent,) = grow(edge, 1, 1, position=4, at_s=10.016, t1=0.9)
    assert (sent.tokens, sent.parents) == ((1, 1, 1), (0,))
    # The second best of the first place would be late by two, and so is not worth 9 % any more.
    assert edge._guesses.num_live == 3


def test_what_is_in_time_waits_for_more_and_no_longer_than_it_may() -> None:
    edge = streaming()
    commit(edge, 3, 5, at_s=10.0)
    grow(edge, position=4, at_s=10.004, t1=0.9)
    grow(edge, 1, position=4, at_s=10.005, t1=0.9)
    assert grow(edge, 1, 1, position=4, at_s=10.006, t1=0.9, t2=0.08) == [], "until 10.02"
    assert grow(edge, 1, 1, 1, position=4, at_s=10.010, t1=0.9) == []
    (sent,) = grow(edge, 1, 1, 1, 1, position=4, at_s=10.0155, t1=0.9)
    assert sent.tokens == (1, 1, 1, 2, 1, 1)
    assert edge.counts.drafted == 6


def test_nothing_waits_for_what_nobody_drafts() -> None:
    edge = streaming()
    commit(edge, 3, 5, at_s=10.0)
    grow(edge, position=4, at_s=10.001, t1=0.9)
    grow(edge, 1, position=4, at_s=10.002, t1=0.9)
    assert grow(edge, 1, 1, position=4, at_s=10.003, t1=0.3) == []
    (sent,) = grow(edge, 1, 1, 1, position=4, at_s=10.004, t1=0.1)
    assert sent.tokens == (1, 1, 1), "the last one's guesses are not worth sending"


def test_nothing_waits_once_the_window_is_full() -> None:
    edge = streaming(window=3)
    commit(edge, 3, 5, at_s=10.0)
    assert grow(edge, position=4, at_s=10.001, t1=0.9) == []
    assert grow(edge, 1, position=4, at_s=10.002, t1=0.9) == []
    (sent,) = grow(edge, 1, 1, position=4, at_s=10.003, t1=0.9)
    assert sent.tokens == (1, 1, 1), "in time for more, but nobody drafts it"
    assert edge.growth_request is None


def test_a_window_full_of_what_is_held_is_idle() -> None:
    """A verifier that waits must not wait for guesses of which none will be sent before its next commit."""
    edge = streaming(replace(GROWTH, pace=replace(PACE, rtt_s=0.4)), window=2)
    commit(edge, 3, 5, at_s=10.0)
    assert grow(edge, position=4, at_s=10.004, t1=0.95) == []
    guess = GrownLeaf(path=(TokenId(1),), guesses=(Guess(token=TokenId(1), chance=0.95),))
    (told,) = edge.handle(Grown(position=Position(4), leaves=(guess,), at_s=10.008))
    assert isinstance(told, Send)
    assert isinstance(told.message, Proposal)
    assert (told.message.tokens, told.message.idle) == ((), True)
    assert edge.growth_request is None


def test_what_would_be_late_now_is_looked_at_again_after_a_commit() -> None:
    edge = streaming(replace(GROWTH, pace=replace(PACE, rtt_s=0.05)))
    commit(edge, 3, 5, at_s=10.0)
    assert grow(edge, position=4, at_s=10.004, t1=0.6) == []
    # A step late the second one counts as 0.6 * 0.1 * 0.7, below the floor of 0.05; as 0.1 * 0.7 once the first is committed.
    assert grow(edge, 1, position=4, at_s=10.016, t1=0.9, t2=0.1) == []
    assert leaves(edge) == [(1, 1)]
    assert commit(edge, 4, 1, at_s=10.06) == []
    assert leaves(edge) == [(1,), (2,)]


def test_what_is_known_of_nodes_goes_with_them() -> None:
    edge = streaming()
    for number in range(20):
        commit(edge, 3 + number, 5 if number % 3 == 0 else 1, at_s=10.0 + 0.06 * number)
        grow(edge, position=4 + number, at_s=10.01 + 0.06 * number, t1=0.7, t2=0.2)
        grow(edge, 1, position=4 + number, at_s=10.02 + 0.06 * number, t1=0.7, t2=0.2)
    frontier = edge._guesses._frontier
    assert frontier is not None
    live = {frontier._root, *frontier._root.below()}
    assert len(live) > 2
    for known in (frontier._walk._sent_s, frontier._walk._until_s, frontier._logs, frontier._held):
        assert set(known) <= live


def test_a_new_stream_gets_all_that_was_sent_and_nothing_that_was_held() -> None:
    edge = streaming()
    commit(edge, 3, 5, at_s=10.0)
    grow(edge, position=4, at_s=10.004, t1=0.6, t2=0.3)
    grow(edge, 1, position=4, at_s=10.008, t1=0.9)
    (sent,) = grow(edge, 1, 1, position=4, at_s=10.016, t1=0.9)
    assert len(sent.tokens) == 3
    edge.handle(LinkDown())
    (again,) = proposals(edge.handle(LinkUp(holds_session=False, at_s=11.0)))
    assert again.tokens == sent.tokens
    assert edge._guesses.num_live == 4, "one is held"


def test_growth_may_change_on_the_way_and_a_chain_stays_one() -> None:
    edge = streaming()
    commit(edge, 3, 5, at_s=10.0)
    grow(edge, position=4, at_s=10.004, t1=0.9, t2=0.09)
    told = Steer(draft_length=12, window=40, growth=Growth(floor=0.05))
    assert proposals(edge.handle(told)) == [], "it was held, and has none below it"
    (sent,) = grow(edge, 1, position=4, at_s=10.008, t1=0.9)
    assert sent.tokens == (1, 1)
    chain = EdgeSession(request=toy_request(), draft_length=4)
    chain.handle(told)
    assert not chain.has_growth


def test_the_fan_bounds_what_hangs_where() -> None:
    edge = streaming(Growth(width=4, floor=0.001, fan=(3, 2)))
    assert len(grow(edge, position=3, at_s=9.2, t1=0.5, t2=0.2, t3=0.1, t4=0.1)[0].tokens) == 3
    assert len(grow(edge, 1, position=3, at_s=9.2, t1=0.5, t2=0.2, t3=0.1)[0].tokens) == 2
    assert len(grow(edge, 1, 1, position=3, at_s=9.2, t1=0.5, t2=0.2, t3=0.1)[0].tokens) == 2
    assert grow(edge, 2, position=3, at_s=9.2, t1=0.5, t2=0.2)[0].tokens == (1,)


def test_a_branch_lives_on_across_commits_and_grows_on_both_sides() -> None:
    """Its names stay, what is sent hangs below them, and what contradicts the text is gone."""
    edge = streaming(Growth(floor=0.01))
    grow(edge, position=3, at_s=9.2, t1=0.5, t2=0.4)
    grow(edge, 1, position=3, at_s=9.2, t1=0.9)
    grow(edge, 2, position=3, at_s=9.2, t1=0.8)
    assert edge.window_used == 4
    assert commit(edge, 3, 2, at_s=9.3) == []
    assert edge.window_used == 1
    (sent,) = grow(edge, 1, position=4, at_s=9.3, t7=0.9)
    assert (sent.base_position, sent.tokens, sent.parents) == (4, (7,), ())
    assert edge.counts.unsent == 0
