"""What each pipeline drafts when, and what it sends when."""

from typing import Any

import pytest
from harness.toy_verifier import SMALL_LIMITS, toy_identity, toy_request

from paceline.drafter import Guess
from paceline.errors import ConfigError
from paceline.messages import Commit, Opened, Proposal
from paceline.session import EdgeSession
from paceline.session.events import (
    Drafted,
    EdgeEffect,
    FromCloud,
    Grown,
    LinkDown,
    LinkUp,
    NothingToDraft,
    Send,
    Steer,
)
from paceline.session.fan_out import MOST_AT_ONE, even, geometric
from paceline.session.growth import GrownLeaf
from paceline.session.pipeline import FanOut, PipelineName, PipelineSettings
from paceline.tokens import Position, SessionId, TokenId

STOP = 9
OPENED = Opened(
    session_id=SessionId(bytes(16)),
    limits=SMALL_LIMITS,
    target=toy_identity(24),
    length=Position(3),
)
HELD_BACK = [name for name in PipelineName if not name.sends_trees]


def streaming(
    name: str, *, draft_length: int = 3, max_tokens: int = 30, window: int = 64, **figures: Any
) -> EdgeSession:
    edge = EdgeSession(
        request=toy_request(max_tokens=max_tokens, stop_tokens=(STOP,)),
        draft_length=draft_length,
        window=window,
        pipeline=PipelineSettings(name=PipelineName(name), **figures),
    )
    edge.handle(LinkUp(holds_session=False))
    edge.handle(FromCloud(message=OPENED))
    return edge


def proposed(effects: tuple[EdgeEffect, ...]) -> list[tuple[int, ...]]:
    messages = [effect.message for effect in effects if isinstance(effect, Send)]
    return [tuple(one.tokens) for one in messages if isinstance(one, Proposal) and one.tokens]


def drafts(edge: EdgeSession, *tokens: int) -> list[tuple[int, ...]]:
    """The drafter goes on with `tokens` where it was asked to; return what is sent."""
    asked = edge.draft_request
    assert asked is not None
    assert len(tokens) <= asked.limit
    path = (*asked.path, *map(TokenId, tokens))
    return proposed(edge.handle(Drafted(position=asked.position, tokens=path)))


def commits(edge: EdgeSession, *tokens: int) -> list[tuple[int, ...]]:
    message = Commit(position=edge.length, tokens=tuple(map(TokenId, tokens)))
    return proposed(edge.handle(FromCloud(message=message)))


def limit(edge: EdgeSession) -> int:
    return 0 if edge.draft_request is None else edge.draft_request.limit


def test_stop_and_wait_sends_whole_proposals_and_drafts_nothing_meanwhile() -> None:
    edge = streaming("stop-and-wait")
    assert limit(edge) == 3
    assert drafts(edge, 1, 2) == []
    assert drafts(edge, 3) == [(1, 2, 3)]
    assert limit(edge) == 0
    assert commits(edge, 1) == []  # a verifier that cannot take all of it at once
    assert limit(edge) == 0
    assert commits(edge, 2, 7) == []
    assert limit(edge) == 3
    assert drafts(edge, 4, STOP) == [(4, STOP)]  # the text would end there
    assert (edge.counts.answers, edge.counts.prepared) == (1, 0)


def test_a_proposal_is_no_longer_than_the_window_or_the_text() -> None:
    edge = streaming("stop-and-wait", window=2, max_tokens=4)
    assert drafts(edge, 1, 2) == [(1, 2)]
    assert commits(edge, 1, 2) == []
    assert limit(edge) == 1
    assert drafts(edge, 3) == [(3,)]
    assert commits(edge, 3) == []
    assert limit(edge) == 0


def test_what_the_drafter_has_is_sent_when_it_has_no_more() -> None:
    edge = streaming("stop-and-wait")
    assert drafts(edge, 1) == []
    effects = edge.handle(NothingToDraft(position=edge.length))
    assert proposed(effects) == [(1,)]
    (sent,) = effects
    assert isinstance(sent, Send)
    assert isinstance(sent.message, Proposal)
    assert sent.message.idle


def test_a_shorter_draft_length_sends_less_of_what_is_drafted() -> None:
    edge = streaming("stop-and-wait", draft_length=5)
    assert drafts(edge, 1, 2, 3) == []
    assert proposed(edge.handle(Steer(draft_length=2, window=64))) == [(1, 2)]


def test_run_ahead_sends_the_first_token_alone_and_segments_then() -> None:
    edge = streaming("run-ahead", draft_length=7, segment=3)
    assert limit(edge) == 1
    assert drafts(edge, 1) == [(1,)]
    assert drafts(edge, 2, 3) == []
    assert drafts(edge, 4) == [(2, 3, 4)]
    assert limit(edge) == 3
    assert drafts(edge, 5, 6) == []
    assert commits(edge, 1, 2) == []
    assert drafts(edge, 7, 8) == [(5, 6, 7, 8)]
    assert commits(edge, 3, 4, 5, 6, 9) == []  # 9 is not 7: the rest is of no use
    assert limit(edge) == 1
    assert edge.window_used == 0


def test_run_ahead_cuts_a_segment_where_the_answer_overtakes_the_drafter() -> None:
    edge = streaming("run-ahead", draft_length=8, segment=3, pre_verify=False)
    assert drafts(edge, 1, 2) == []
    assert drafts(edge, 3) == [(1, 2, 3)]
    assert drafts(edge, 4, 5) == []
    assert commits(edge, 1, 2, 3, 4) == [(5,)]
    assert (edge.counts.answers, edge.counts.prepared) == (1, 1)


def test_run_ahead_ends_a_segment_at_its_length() -> None:
    edge = streaming("run-ahead", draft_length=4, segment=3)
    assert drafts(edge, 1) == [(1,)]
    assert drafts(edge, 2, 3, 4) == [(2, 3, 4)]
    assert limit(edge) == 0
    assert commits(edge, 1) == []
    assert drafts(edge, 5) == [(5,)]  # as deep as it may: nothing to wait for


def test_a_drafter_of_chains_caches_the_answer_that_accepts_all() -> None:
    edge = streaming("outcome-cache")
    assert drafts(edge, 1, 2, 3) == [(1, 2, 3)]
    assert limit(edge) == 4
    assert drafts(edge, 4, 5, 6, 7) == []
    assert limit(edge) == 0
    assert commits(edge, 1, 2, 3, 4) == [(5, 6, 7)]
    assert drafts(edge, 8, 1, 2, 3) == []
    assert commits(edge, 5, 6, 6) == []  # a miss: it begins anew
    assert limit(edge) == 3
    assert edge.counts.unsent == 4
    assert (edge.counts.answers, edge.counts.prepared) == (2, 1)


def test_a_chain_that_is_not_whole_is_made_whole_first() -> None:
    edge = streaming("outcome-cache")
    drafts(edge, 1, 2, 3)
    drafts(edge, 4, 5)
    assert commits(edge, 1, 2, 3, 4) == []
    assert drafts(edge, 6, 7) == [(5, 6, 7)]


def grows(edge: EdgeSession, *chains: tuple[int, ...]) -> list[tuple[int, ...]]:
    """The drafter answers with guesses for each leaf it was asked for, the first token with chance 0.7, others 0.1."""
    asked = edge.growth_request
    assert asked is not None
    assert len(asked.paths) == len(chains), asked.paths
    leaves = tuple(
        GrownLeaf(
            path=path,
            guesses=tuple(
                Guess(token=TokenId(token), chance=0.1 if k else 0.7)
                for k, token in enumerate(tokens)
            ),
        )
        for path, tokens in zip(asked.paths, chains, strict=True)
    )
    return proposed(edge.handle(Grown(position=asked.position, leaves=leaves)))


def asked_for(edge: EdgeSession) -> list[tuple[int, ...]]:
    return [] if edge.growth_request is None else [tuple(p) for p in edge.growth_request.paths]


def test_a_drafter_of_trees_caches_answers_at_every_position() -> None:
    edge = streaming("outcome-cache", draft_length=2, fan_out=4)
    assert asked_for(edge) == [()]
    assert grows(edge, (1, 11)) == []
    assert grows(edge, (2, 12)) == [(1, 2)]
    # What may come after both, and after the rejection of the first and of the second: the likelier first.
    assert asked_for(edge) == [(1, 2), (11,), (1, 12)]
    grows(edge, (3, 13), (4, 14), (5, 15))
    # Two for the end, one for each other position: four in all. Likelihoods 0.49 * 0.7, 0.1, 0.07, 0.049.
    assert asked_for(edge) == [(1, 2, 3), (11, 4), (1, 12, 5), (1, 2, 13)]
    grows(edge, (6, 16), (7, 17), (8, 18), (9, 19))
    assert asked_for(edge) == [(1, 2, 3, 6)]  # 9 would end the text
    assert commits(edge, 1, 12) == [(5, 8)]
    assert edge.window_used == 2
    assert (edge.counts.answers, edge.counts.prepared) == (1, 1)
    # What was guessed beside the chain of the answer is of use again.
    assert asked_for(edge) == [(5, 8), (15,), (5, 18)]


@pytest.mark.parametrize(
    ("fan_by", "prepared"),
    [
        # One each, and the odd one at the first position: the likeliest there.
        (FanOut.EVEN, [(1, 2, 3), (11,), (21,), (1, 12)]),
        # Chances of 0.49 * 0.7, 0.1 twice, 0.07 twice, 0.049 twice.
        (FanOut.CHANCE, [(1, 2, 3), (11,), (21,), (1, 12)]),
        (FanOut.GEOMETRIC, [(1, 2, 3), (11,), (1, 12), (1, 2, 13)]),
    ],
)
def test_answers_are_prepared_for_as_told(fan_by: FanOut, prepared: list[tuple[int, ...]]) -> None:
    edge = streaming("outcome-cache", draft_length=2, fan_out=4, fan_by=fan_by)
    grows(edge, (1, 11, 21))
    assert grows(edge, (2, 12, 22)) == [(1, 2)]
    end, *_ = asked_for(edge)
    assert end == (1, 2)
    leaf = GrownLeaf(
        path=(TokenId(1), TokenId(2)),
        guesses=tuple(
            Guess(token=TokenId(token), chance=chance)
            for token, chance in ((3, 0.7), (13, 0.1), (23, 0.1))
        ),
    )
    edge.handle(Grown(position=edge.length, leaves=(leaf,)))
    assert asked_for(edge) == prepared


@pytest.mark.parametrize("name", HELD_BACK)
def test_nothing_is_asked_of_a_drafter_that_has_nothing(name: str) -> None:
    edge = streaming(name, draft_length=2)
    edge.handle(NothingToDraft(position=edge.length))
    assert (limit(edge), asked_for(edge)) == (0, [])
    assert commits(edge, 1) == []
    assert limit(edge) > 0


@pytest.mark.parametrize("name", ["stop-and-wait", "run-ahead"])
def test_a_chain_asks_for_no_tree(name: str) -> None:
    assert asked_for(streaming(name)) == []


@pytest.mark.parametrize("name", ["outcome-cache", "outcome-cache-ahead"])
def test_guesses_after_what_is_gone_and_none_at_all_do_no_harm(name: str) -> None:
    edge = streaming(name, draft_length=2, pre_verify=False)
    position = edge.length
    assert grows(edge, (1, 11)) == []
    assert commits(edge, 7) == []  # neither
    gone = GrownLeaf(path=(TokenId(1),), guesses=(Guess(token=TokenId(2), chance=0.7),))
    for at in (position, edge.length):
        assert proposed(edge.handle(Grown(position=at, leaves=(gone,)))) == []
    assert asked_for(edge) == [()]
    assert grows(edge, ()) == []
    assert edge.window_used == 0


def test_settings_out_of_range_are_named() -> None:
    with pytest.raises(ConfigError, match=r"pipeline\.segment: got 0"):
        PipelineSettings(segment=0)
    with pytest.raises(ConfigError, match=r"pipeline\.patience_s: got -1"):
        PipelineSettings(patience_s=-1)
    assert PipelineSettings(patience_s=0.25).patience_ms == 250
    ahead = {name for name in PipelineName if name.runs_ahead}
    caches = {name for name in PipelineName if name.caches_outcomes}
    assert ahead & caches == {PipelineName.OUTCOME_CACHE_AHEAD}


@pytest.mark.parametrize("name", ["outcome-cache", "outcome-cache-ahead"])
def test_nobody_waits_for_a_drafter_that_sees_the_end_of_the_text(name: str) -> None:
    edge = streaming(name)
    asked = edge.growth_request
    assert asked is not None
    leaf = GrownLeaf(path=(), guesses=())
    (told,) = edge.handle(Grown(position=asked.position, leaves=(leaf,)))
    assert isinstance(told, Send)
    assert isinstance(told.message, Proposal)
    assert (told.message.tokens, told.message.idle) == ((), True)
    assert commits(edge, 1) == []
    assert asked_for(edge) == [()], "what comes after another text is another question"


def test_run_ahead_with_a_cache_does_both() -> None:
    edge = streaming("outcome-cache-ahead", draft_length=4, fan_out=3, segment=1)
    assert grows(edge, (1, 11)) == [(1,)]
    assert asked_for(edge) == [(1,), (11,)]
    assert grows(edge, (2, 12), (4, 14)) == [(2,)]
    assert asked_for(edge) == [(1, 2), (1, 12)]
    assert grows(edge, (3, 13), (5, 15)) == [(3,)]
    assert commits(edge, 1, 12) == [(5,)]


def test_an_answer_after_the_end_of_the_text_is_not_prepared_for() -> None:
    edge = streaming("outcome-cache", draft_length=2, max_tokens=3, fan_out=8)
    grows(edge, (1, 11))
    assert grows(edge, (2, 12)) == [(1, 2)]
    assert asked_for(edge) == [(1, 2), (11,)]
    grows(edge, (3, 13), (4, 14))
    assert (
        asked_for(edge) == []
    )  # after 11 and one more there is only the last token, which is the target's


def test_the_chain_ahead_and_the_answer_that_accepts_it_are_one_leaf() -> None:
    edge = streaming("outcome-cache-ahead", draft_length=4, fan_out=3, segment=3)
    assert grows(edge, (1, 11)) == [(1,)]
    assert grows(edge, (2, 12), (4, 14)) == []
    assert asked_for(edge) == [(1, 2), (11, 4), (1, 12)]


@pytest.mark.parametrize("name", HELD_BACK)
def test_what_was_sent_is_sent_again_on_a_new_stream(name: str) -> None:
    edge = streaming(name, draft_length=2)
    while limit(edge) and edge.window_used < 2:
        drafts(edge, 5)
    assert edge.window_used == 2
    edge.handle(LinkDown())
    assert proposed(edge.handle(LinkUp(holds_session=False))) == [(5, 5)]


def test_the_fan_out_is_the_published_formula() -> None:
    """Rounded, F_k goes like a^(k / 2), and like a^(K / 2) / (1 - a)^(1 / 2) at the end."""
    acceptance = 0.64
    counts = geometric(1_000, length=6, acceptance=acceptance)
    assert counts == (MOST_AT_ONE,) * 7, "as much as a drafter can tell"
    for budget in (3, 9, 24):
        counts = geometric(budget, length=6, acceptance=acceptance)
        assert sum(counts) == budget
        weights = [0.8**k for k in range(6)] + [0.8**6 / 0.6]
        scale = min((count + 1) / weight for count, weight in zip(counts, weights, strict=True))
        for count, weight in zip(counts, weights, strict=True):
            assert count - 1 <= scale * weight <= count + 1.001
    assert even(7, length=2) == (3, 2, 2)
    assert geometric(0, length=3, acceptance=0.5) == (0, 0, 0, 0)
    assert sum(geometric(5, length=0, acceptance=1.0)) == 5
