"""Trees that grow best first: what is asked for, what is sent, and what becomes of it when the text goes on."""

import random

import pytest
from harness.toy_verifier import SMALL_LIMITS, toy_identity, toy_request

from paceline.drafter import Guess
from paceline.errors import ConfigError, LocalProtocolError
from paceline.messages import FLOOR_WINDOW, Commit, Opened, Proposal
from paceline.session import EdgeSession
from paceline.session.events import Drafted, EdgeEffect, FromCloud, Grown, LinkUp, Send, Stop
from paceline.session.growth import Frontier, GrownLeaf, Growth, GrowthRequest, path_to
from paceline.session.tree import Node, root_after
from paceline.tokens import Position, SessionId, TokenId

OPENED = Opened(
    session_id=SessionId(bytes(16)),
    limits=SMALL_LIMITS,
    target=toy_identity(24),
    length=Position(3),
)


def guesses(**chances: float) -> tuple[Guess, ...]:
    """`guesses(t5=0.6)`: token 5 with chance 0.6."""
    return tuple(Guess(token=TokenId(int(k[1:])), chance=chance) for k, chance in chances.items())


def streaming(growth: Growth, **options: int) -> EdgeSession:
    request = toy_request(max_tokens=options.pop("max_tokens", 16), stop_tokens=(9,))
    edge = EdgeSession(
        request=request,
        draft_length=options.pop("draft_length", 8),
        window=options.pop("window", FLOOR_WINDOW),
        growth=growth,
    )
    assert not options
    edge.handle(LinkUp(holds_session=False))
    edge.handle(FromCloud(message=OPENED))
    return edge


def grow(
    edge: EdgeSession, *path: int, position: int = 3, **chances: float
) -> tuple[EdgeEffect, ...]:
    leaf = GrownLeaf(path=tuple(map(TokenId, path)), guesses=guesses(**chances))
    return edge.handle(Grown(position=Position(position), leaves=(leaf,)))


def commit(edge: EdgeSession, position: int, *tokens: int) -> tuple[EdgeEffect, ...]:
    message = Commit(position=Position(position), tokens=tuple(map(TokenId, tokens)))
    return edge.handle(FromCloud(message=message))


def proposals(effects: tuple[EdgeEffect, ...]) -> list[Proposal]:
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, Proposal)
    ]


def asked(edge: EdgeSession) -> list[tuple[int, ...]]:
    wanted = edge.growth_request
    return [] if wanted is None else [tuple(path) for path in wanted.paths]


@pytest.mark.parametrize("fields", [{"width": 0}, {"leaves": 0}, {"floor": 0.0}, {"floor": 1.1}])
def test_settings_that_make_no_sense(fields: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(fields))}: got"):
        Growth(**fields)  # type: ignore[arg-type]


def test_a_chain_session_is_never_asked_for_a_tree() -> None:
    edge = EdgeSession(request=toy_request(), draft_length=8)
    assert not edge.has_growth
    assert edge.growth_request is None
    assert proposals(grow(edge, t5=0.6)) == []
    assert edge.counts.unsent == 1


def test_the_likeliest_leaves_are_grown_first_and_sent_as_a_tree() -> None:
    edge = streaming(Growth(width=3, leaves=2, floor=0.1))
    assert edge.has_growth
    assert edge.growth_request == GrowthRequest(position=Position(3), paths=((),), width=3)
    (sent,) = proposals(grow(edge, t5=0.6, t6=0.3, t7=0.05))
    assert (sent.tokens, sent.parents) == ((5, 6), (0, 0))
    assert asked(edge) == [(5,), (6,)]
    (sent,) = proposals(grow(edge, 5, t1=0.9, t2=0.1))  # 0.54 and 0.06
    assert (sent.tokens, sent.parents) == ((1,), (2,))
    assert asked(edge) == [(5, 1), (6,)]


def test_what_is_unlikely_waits_until_it_is_likely_enough() -> None:
    edge = streaming(Growth(floor=0.2))
    grow(edge, t5=0.5, t6=0.4)
    assert proposals(grow(edge, 5, t1=0.3, t2=0.1)) == []  # 0.15 and 0.05
    (sent,) = proposals(commit(edge, 3, 5))
    assert (sent.base_position, sent.tokens) == (4, (1,))  # 0.3 by now, the other 0.1
    assert asked(edge) == [(1,)]
    assert edge.window_used == 1


def test_a_text_that_went_another_way_begins_a_new_tree() -> None:
    edge = streaming(Growth(floor=0.2))
    grow(edge, t5=0.5, t6=0.4)
    commit(edge, 3, 7)
    assert asked(edge) == [()]
    assert edge.window_used == 0
    # What waits below nodes that are gone does not come back, nor does what is answered late.
    assert proposals(grow(edge, 5, t1=0.9)) == []
    (sent,) = proposals(grow(edge, position=4, t1=0.9))
    assert sent.tokens == (1,)
    assert edge.counts.unsent == 1


def test_an_answer_about_an_older_text_counts_where_the_text_went_there() -> None:
    edge = streaming(Growth(floor=0.1))
    grow(edge, t5=0.9)
    commit(edge, 3, 5, 6)
    assert proposals(grow(edge, 5, t1=0.9)) == []  # its place is committed
    assert edge.counts.unsent == 1
    (sent,) = proposals(grow(edge, 5, 6, t1=0.9))  # the end of the text by now
    assert sent.tokens == (1,)
    with pytest.raises(LocalProtocolError, match=r"drafted\.position: got 6"):
        grow(edge, position=6, t1=0.9)


def test_nothing_is_guessed_after_a_stop_token_or_too_deep() -> None:
    edge = streaming(Growth(floor=0.1), draft_length=2)
    grow(edge, t9=0.5, t5=0.4)
    assert asked(edge) == [(5,)]
    grow(edge, 5, t6=1.0)
    assert asked(edge) == []
    commit(edge, 3, 5)
    assert asked(edge) == [(6,)]


def test_the_window_holds_back_and_lets_go() -> None:
    edge = streaming(Growth(floor=0.01), window=3)
    (sent,) = proposals(grow(edge, t5=0.4, t6=0.3, t7=0.2, t8=0.1))
    assert sent.tokens == (5, 6, 7)
    assert asked(edge) == []
    # The text went on with the one that waited.
    commit(edge, 3, 8)
    assert edge.window_used == 0
    assert asked(edge) == [()]


def test_an_edge_that_has_grown_everywhere_says_that_it_is_idle() -> None:
    edge = streaming(Growth(floor=0.3))
    (sent,) = proposals(grow(edge, t5=0.2, t6=0.2))
    assert sent.idle
    assert not sent.tokens
    assert asked(edge) == []
    commit(edge, 3, 5)
    assert asked(edge) == [()]


def test_an_answer_after_the_end_changes_nothing() -> None:
    edge = streaming(Growth())
    edge.handle(Stop(cancelled=True))
    assert grow(edge, t5=0.9) == ()
    assert asked(edge) == []


def test_guesses_that_others_hung_there_are_left_alone() -> None:
    edge = streaming(Growth(floor=0.1))
    edge.handle(Drafted(position=Position(3), tokens=(TokenId(5), TokenId(6))))
    assert proposals(grow(edge, t5=0.9)) == []  # it is there
    assert proposals(grow(edge, 5, t1=0.9)) == []  # not by the tree's doing
    commit(edge, 3, 5)
    assert asked(edge) == [()]
    (sent,) = proposals(grow(edge, position=4, t1=0.9))
    assert (sent.tokens, sent.parents) == ((1,), (0,))


def test_a_tree_grows_like_a_brute_force_one() -> None:
    """Against a list of all guesses with their chances, by many random trees and commits."""
    rng = random.Random(3)
    for _ in range(60):
        root = root_after([TokenId(0)])
        frontier, floor = Frontier(root), rng.choice([0.02, 0.2])
        growth = Growth(leaves=3, floor=floor)
        chances: dict[Node, float] = {root: 1.0}
        waiting: list[tuple[float, Node, TokenId]] = []
        is_open = {root}
        for _ in range(30):
            best = frontier.best(growth, deepest=6, stops=frozenset())
            ends = [node for node in is_open if len(path_to(node)) < 6]
            assert best == sorted(ends, key=lambda node: -chances[node])[:3]
            for leaf in best[: rng.randrange(4)]:
                found = [
                    Guess(token=TokenId(token), chance=rng.random() * 0.9)
                    for token in rng.sample(range(1, 9), rng.randrange(3))
                ]
                assert frontier.grown(leaf, found)
                is_open.discard(leaf)
                waiting += [(chances[leaf] * one.chance, leaf, one.token) for one in found]
            most = rng.randrange(6)
            likely = sorted(
                (one for one in waiting if one[0] >= floor * chances[root]), key=lambda one: -one[0]
            )
            for node in frontier.promoted(most, growth):
                chance, parent, token = likely.pop(0)
                assert (node.parent, node.token) == (parent, token)
                chances[node] = chance
                is_open.add(node)
                waiting = [one for one in waiting if one[1:] != (parent, token)]
                most -= 1
            assert not likely or not most
            if rng.random() < 0.3:
                token = rng.choice([*root.children, TokenId(9)])
                survivor, dropped = root.advance(token)
                frontier.advance(survivor, dropped)
                if survivor not in chances:
                    chances[survivor] = 1.0
                    is_open.add(survivor)
                gone = {root, *dropped}
                is_open -= gone
                waiting = [one for one in waiting if one[1] not in gone]
                root = survivor


def test_guesses_of_nodes_long_gone_are_forgotten() -> None:
    root = root_after([TokenId(0)])
    frontier = Frontier(root)
    for _ in range(3000):
        frontier.grown(root, guesses(t1=1e-6, t2=1e-6))
        root, dropped = root.advance(TokenId(5))
        frontier.advance(root, dropped)
    assert len(frontier._waiting) < 1100
