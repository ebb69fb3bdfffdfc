"""What a verifier guesses by itself: unknown to the session, no deeper than allowed, and only as long as it pays."""

import random
from collections.abc import Sequence

import pytest
from harness.cloud_house import House
from hypothesis import given
from hypothesis import strategies as st

from cloud.entry import Entry
from cloud.race_drafts import LEAST_REACH, MOST_GUESSES, RaceDraft, mixed
from cloud.scheduler import RaceDrafting
from paceline.control.node_scores import NodeScores
from paceline.errors import ModelError
from paceline.messages import Proposal
from paceline.ngram.recurrence import Rule
from paceline.ngram.rules import counted, looked_up
from paceline.session.offer import Offer
from paceline.tokens import Position, TokenId

ROUND = tuple(map(TokenId, range(10, 20)))
"""A text that goes round and round repeats these."""


def _read(draft: RaceDraft, text: Sequence[TokenId]) -> None:
    while draft.read(text, most=1000):
        pass


def _rows(draft: RaceDraft, text: list[TokenId], following: Sequence[TokenId]) -> int:
    """Decode on along what follows, as a verifier does; return how many rows were spent."""
    rows = 0
    target = [*text, *following]
    while len(text) < len(target):
        _read(draft, text)
        offer = draft.offer(text, most=MOST_GUESSES)
        rows += len(offer.tokens)
        right = 0
        ahead = target[len(text) :]
        while right < min(len(offer.tokens), len(ahead)) and offer.tokens[right] == ahead[right]:
            right += 1
        text += ahead[: right + 1]
    return rows


@pytest.mark.parametrize("rule", [looked_up, counted])
def test_a_chain_goes_on_as_the_text_did(rule: Rule) -> None:
    draft = RaceDraft(rule, NodeScores())
    text = [*ROUND, *ROUND[:6]]
    _read(draft, text)
    offer = draft.offer(text, most=3)
    assert offer.tokens == ROUND[6:9]
    assert offer.parents == (-1, 0, 1)
    assert list(offer.chances) == sorted(offer.chances, reverse=True)
    assert min(offer.chances) >= LEAST_REACH
    assert draft.offer(text, most=0).tokens == ()
    # Nothing is guessed about a text that is not read to its end.
    assert draft.offer([*text, ROUND[6]], most=3).tokens == ()


def test_a_text_that_repeats_itself_takes_few_steps_and_another_one_few_rows() -> None:
    scores = NodeScores()
    draft, text = RaceDraft(counted, scores), list(ROUND)
    _read(draft, text)
    assert _rows(draft, text, ROUND * 20) > 150
    _read(draft, text)
    assert draft.offer(text, most=MOST_GUESSES).tokens == (ROUND * 2)[:MOST_GUESSES]
    # Another session: each token was there before, none is followed by what followed it then.
    rng = random.Random(5)
    strange = [TokenId(rng.randrange(40)) for _ in range(800)]
    other, begun = RaceDraft(counted, scores), strange[:20]
    _rows(other, begun, strange[20:400])
    assert _rows(other, begun, strange[400:]) < 380 / 20
    # It begins to quote: believed again within some tokens, though no row was spent on finding out.
    _rows(other, begun, ROUND * 8)
    _read(other, begun)
    assert len(other.offer(begun, most=MOST_GUESSES).tokens) > 3


def test_a_session_is_believed_less_than_others_if_less_came_true_in_it() -> None:
    scores = NodeScores()
    trusted = RaceDraft(counted, scores)
    text = list(ROUND)
    _read(trusted, text)
    _rows(trusted, text, ROUND * 40)
    # What it said before tells nothing of what follows; and then it quotes.
    rng = random.Random(3)
    strange = [TokenId(rng.randrange(6)) for _ in range(120)]
    doubted, fresh, begun = RaceDraft(counted, scores), RaceDraft(counted, scores), strange[:9]
    _rows(doubted, begun, strange[9:])
    begun += ROUND * 2
    for draft in (doubted, fresh):
        _read(draft, begun)
    believed, offered = fresh.offer(begun, most=1), doubted.offer(begun, most=1)
    assert offered.tokens == believed.tokens == ROUND[:1]
    assert offered.chances < believed.chances


def _house(**settings: int) -> House:
    return House(race_drafts=RaceDrafting.SUFFIX, **settings)


def _offer(house: House, entry: Entry) -> Offer:
    """What the scheduler is told of a session."""
    views, trees = house.workload.scheduler_views()
    (view,) = (view for view in views if view.key == entry.key)
    tree = trees[entry.key]
    assert view.num_offered == len(view.chances) == len(tree.tokens)
    return Offer(tokens=tree.tokens, parents=tree.parents, chances=view.chances)


def test_guesses_ride_along_with_the_drafts_of_the_edge_and_its_session_knows_nothing_of_them() -> (
    None
):
    house = _house()
    entry, stream = house.open(prompt=(*ROUND, *ROUND[:4]))
    house.arrange()
    assert _offer(house, entry).tokens[:2] == ROUND[4:6]
    # To the session it is as if nothing had been guessed.
    assert not entry.session.has_drafts
    assert entry.session.num_live_nodes == entry.session.window_used == 0
    base = entry.session.length
    mine = (TokenId(77), TokenId(78))
    house.registry.deliver(entry, stream, Proposal(base_position=base, tokens=mine, parents=(0,)))
    assert entry.session.offer(99).tokens == mine
    offer = _offer(house, entry)
    assert {mine[0], ROUND[4]} <= set(offer.tokens)
    assert list(offer.chances) == sorted(offer.chances, reverse=True)
    assert entry.session.num_live_nodes == entry.session.window_used == 2


NODES = st.lists(st.tuples(st.integers(0, 3), st.floats(0.1, 1.0)), max_size=6)


@given(edge=NODES, own=NODES, most=st.integers(0, 12), num_rows=st.integers(0, 12))
def test_a_mixture_is_a_tree_of_both(
    edge: list[tuple[int, float]], own: list[tuple[int, float]], most: int, num_rows: int
) -> None:
    def chain(nodes: list[tuple[int, float]]) -> Offer:
        reach, reaches = 1.0, []
        for _, chance in nodes:
            reach *= chance
            reaches.append(reach)
        return Offer(
            tokens=tuple(TokenId(token) for token, _ in nodes),
            parents=tuple(range(-1, len(nodes) - 1)),
            chances=tuple(reaches),
        )

    def paths(offer: Offer) -> list[tuple[TokenId, ...]]:
        found: list[tuple[TokenId, ...]] = []
        for token, parent in zip(offer.tokens, offer.parents, strict=True):
            assert parent < len(found), "parents come first"
            found.append((*found[parent], token) if parent >= 0 else (token,))
        return found

    whole = mixed(chain(edge), chain(own), most=99)
    assert sorted(paths(whole.offer)) == sorted({*paths(chain(edge)), *paths(chain(own))})
    assert list(whole.offer.chances) == sorted(whole.offer.chances, reverse=True)
    for path, is_own in zip(paths(whole.offer), whole.is_own, strict=True):
        assert is_own == (path not in paths(chain(edge)))
    part = mixed(chain(edge), chain(own), most=most)
    assert part.offer.tokens == whole.offer.tokens[:most]
    assert part.offer.parents == whole.offer.parents[:most]
    # The target draws along our own chain as far as there are rows, and then something else.
    rows = paths(part.offer)[:num_rows]
    drawn: tuple[TokenId, ...] = ()
    for token, _ in own:
        if (*drawn, TokenId(token)) not in rows:
            break
        drawn = (*drawn, TokenId(token))
    num_own, accepted = part.outcome(len(rows), (*drawn, TokenId(9)))
    own_paths = [path for path in rows if path not in paths(chain(edge))]
    assert num_own == len(own_paths)
    assert accepted == sum(drawn[: len(path)] == path for path in own_paths)


def test_only_drafts_of_the_edge_are_counted_as_its_drafts() -> None:
    house = _house()
    entry, stream = house.open(prompt=(*ROUND, *ROUND[:4]))
    house.arrange()
    base = entry.session.length
    assert _offer(house, entry).tokens[:3] == ROUND[4:7]
    # While the step runs, the edge proposes the first two of the same.
    two = Proposal(base_position=base, tokens=ROUND[4:6], parents=(0,))
    house.registry.deliver(entry, stream, two)
    house.step(entry, *ROUND[4:7], num_drafts=2)
    commit = entry.session.next_commit()
    assert commit is not None
    assert commit.tokens == ROUND[4:7]
    assert commit.accepted == (True, True, False)
    assert (commit.num_judged, commit.num_accepted, commit.num_steps) == (2, 2, 1)
    # And one that the text has already: late, and what hangs below it is a draft as ever.
    more = Proposal(base_position=Position(base + 2), tokens=ROUND[6:8], parents=(0,))
    house.registry.deliver(entry, stream, more)
    assert entry.session.counts.late == 1
    assert entry.session.offer(99).tokens == ROUND[7:8]
    account = house.registry.account
    assert (account.race_drafted, account.race_accepted) == (2, 2)


def test_guesses_go_no_deeper_than_the_text_and_the_lead_allow() -> None:
    house = _house()
    entry, _ = house.open(prompt=ROUND * 4, max_tokens=4)
    house.arrange()
    assert len(_offer(house, entry).tokens) == 3  # the last token is the target's own
    house = _house(max_lead=8)
    entry, _ = house.open(prompt=ROUND * 4)
    house.arrange()
    assert len(_offer(house, entry).tokens) == 7
    house.step(entry, *ROUND[:6], num_drafts=5)
    assert len(_offer(house, entry).tokens) == 1
    house.step(entry, *ROUND[6:8], num_drafts=1)
    assert not entry.session.may_step
    assert _offer(house, entry).tokens == ()


def test_long_prompts_are_read_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud.race_drafts.READ_PER_STEP", 10)
    house = _house()
    first, _ = house.open(prompt=ROUND * 3)
    second, _ = house.open(prompt=ROUND * 2)
    house.arrange()
    told = [(bool(_offer(house, first).tokens), _offer(house, second).tokens) for _ in range(3)]
    assert told == [(False, ()), (True, ()), (True, ROUND[:7])]


def test_many_sessions_share_the_guesses_of_a_step_from_the_first_one_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cloud.race_drafts.GUESSES_PER_STEP", 12)
    house = _house(max_lead=60)
    entries = [house.open(prompt=ROUND * 2)[0] for _ in range(3)]
    house.arrange()
    for _ in range(2):
        assert [len(_offer(house, entry).tokens) for entry in entries] == [4, 4, 4]
    house.registry.fail(entries[0], ModelError("gone"))
    assert len(_offer(house, entries[1]).tokens) == 6


def test_what_the_model_fails_on_with_guesses_is_tried_without() -> None:
    house = _house()
    entry, _ = house.open(prompt=(*ROUND, *ROUND[:4]))
    house.arrange()
    assert _offer(house, entry).tokens
    house.step(entry, num_drafts=2, failed=ModelError("the model fails on these rows"))
    assert house.registry.get(entry.key) is entry
    assert _offer(house, entry).tokens == ()
    house.step(entry, failed=ModelError("and on the root"))
    assert house.registry.get(entry.key) is None


def test_the_index_is_freed_with_the_end_of_the_text() -> None:
    house = _house()
    entry, _ = house.open(prompt=ROUND * 2, max_tokens=2)
    house.arrange()
    assert _offer(house, entry).tokens
    assert entry.race_draft is not None
    house.step(entry, *ROUND[:2], num_drafts=1)
    assert entry.session.finish is not None
    assert entry.race_draft is None
