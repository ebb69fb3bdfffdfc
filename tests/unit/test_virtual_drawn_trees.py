"""Trees in fault schedules: who grows one, what its drafter guesses, and that a smaller schedule does without."""

from collections import Counter
from dataclasses import replace

import pytest

from edge.steering import LengthPolicy
from paceline.drafter import TreeDraft, tokens_of
from paceline.errors import ConfigError
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId
from simulator.virtual import faults
from simulator.virtual.draft import DraftSettings
from simulator.virtual.drawn_trees import DEEPEST
from simulator.virtual.faults import Schedule, drawn
from simulator.virtual.machine import Occupation
from simulator.virtual.ranked_draft import RankedDraft, RankedTree
from simulator.virtual.shrink import shrunk
from simulator.virtual.target import ToyTarget

TEXT = [TokenId(5), TokenId(6)]


def tree_of(settings: RankedDraft, target: ToyTarget) -> RankedTree:
    """The draft of a generation after TEXT."""
    drafter = settings(target, Occupation())
    return drafter.open(prompt_length=len(TEXT), max_tokens=64, sampling=SamplingSettings(seed=3))


def has_growth(schedule: Schedule) -> bool:
    """Some edge grows a tree."""
    return any(edge.drafting.growth is not None for edge in schedule.world.edges)


# --- who grows one


def test_a_third_of_the_edges_drafts_trees_and_most_of_them_send_these() -> None:
    edges = [edge for seed in range(100) for edge in drawn(seed).world.edges]
    growing = [edge for edge in edges if edge.make_drafter is not None]
    assert 0.25 < len(growing) / len(edges) < 0.42
    names = Counter(edge.drafting.pipeline.name for edge in growing)
    assert all(name.sends_trees or name.caches_outcomes for name in names)
    assert {name.sends_trees for name in names} == {True, False}
    assert sum(n for name, n in names.items() if name.sends_trees) > 0.8 * len(growing)
    for edge in growing:
        assert edge.drafting.growth is not None
        assert edge.draft is None
        is_steered = edge.length_policy is LengthPolicy.MARGINAL
        assert is_steered == (edge.drafting.draft_length == DEEPEST)
    assert len({edge.drafting.growth for edge in growing}) > 20


def test_trees_change_nothing_else_of_a_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    def plain(schedule: Schedule) -> Schedule:
        """Without what decides how an edge drafts."""
        usual = DraftSettings()
        edges = tuple(
            replace(
                edge,
                draft=usual,
                make_drafter=None,
                drafting=other.drafting,
                length_policy=LengthPolicy.FIXED,
                byte_s=other.byte_s,
            )
            for edge, other in zip(schedule.world.edges, drawn(0).world.edges, strict=True)
        )
        return replace(schedule, world=replace(schedule.world, edges=edges))

    seeds = range(1, 20)
    with_trees = [drawn(seed) for seed in seeds]
    monkeypatch.setattr(faults, "with_trees", lambda _, edges: edges)
    without = [drawn(seed) for seed in seeds]
    assert [plain(one) for one in with_trees] == [plain(one) for one in without]
    pairs = [
        (edge, before)
        for one, other in zip(with_trees, without, strict=True)
        for edge, before in zip(one.world.edges, other.world.edges, strict=True)
    ]
    assert all(edge == before for edge, before in pairs if edge.make_drafter is None)
    assert any(edge != before for edge, before in pairs)


# --- what its drafter guesses


def test_the_right_token_is_at_each_rank_as_often_as_was_said() -> None:
    target, rates = ToyTarget(), (0.4, 0.3, 0.2, 0.0)
    draft, text, ranks = tree_of(RankedDraft(rates=rates), target), list(TEXT), Counter[int]()
    assert isinstance(draft, TreeDraft)
    for _ in range(400):
        right = target.draw(text)
        wrong = TokenId((right + 7) % target.vocabulary_size)
        here, lost = draft.branch(text, [(), (wrong,)], width=4)
        tokens = tokens_of(here)
        assert len(set(tokens)) == len(tokens) == len(lost) == 4
        assert tuple(guess.chance for guess in here) == rates
        assert here == draft.branch(text[:-1], [(text[-1],)], width=4)[0]
        ranks[tokens.index(right) if right in tokens else -1] += 1
        text.append(right)
    assert all(abs(ranks[rank] / 400 - rate) < 0.06 for rank, rate in enumerate(rates))
    assert abs(ranks[-1] / 400 - 0.1) < 0.06


def test_it_may_say_other_chances_than_the_true_ones_or_nothing() -> None:
    told, target = (0.5, 0.25), ToyTarget(vocabulary_size=5)
    draft = tree_of(RankedDraft(rates=(1.0, 0.0), told=told, silence=0.3), target)
    right, silent = target.run(TEXT, 200), []
    for length in range(200):
        (guesses,) = draft.branch(TEXT, [right[:length]], width=4)
        assert tuple(guess.chance for guess in guesses) in {told, ()}
        assert not guesses or guesses[0].token == right[length]
        silent += [] if guesses else [length]
    assert 40 < len(silent) < 80
    assert draft.extend(TEXT, 200) == right[: silent[0]]
    draft.close()
    with pytest.raises(AssertionError, match="closed"):
        draft.branch(TEXT, [()], width=1)


@pytest.mark.parametrize(
    ("field", "value"), [("rates", (0.9, 0.2)), ("told", (0.5,)), ("silence", 1.5)]
)
def test_what_is_no_chance_is_refused(field: str, value: object) -> None:
    with pytest.raises(ConfigError, match=field):
        RankedDraft(**{field: value})  # type: ignore[arg-type]


def test_it_knows_nothing_of_a_real_model() -> None:
    with pytest.raises(ConfigError, match="expected a ToyTarget"):
        RankedDraft()(object(), Occupation())  # type: ignore[arg-type]


# --- a smaller schedule


def test_a_smaller_schedule_has_a_tree_only_where_it_takes_one() -> None:
    schedule = next(one for one in map(drawn, range(50)) if has_growth(one))
    grown = shrunk(schedule, fails=has_growth)
    assert has_growth(grown)
    assert not grown.faults
    assert {edge.make_drafter for edge in grown.world.edges} <= {None, RankedDraft()}
    chained = shrunk(schedule, fails=lambda one: any(edge.draft for edge in one.world.edges))
    assert not has_growth(chained)
    assert all(edge.make_drafter is None for edge in chained.world.edges)
    assert not any(
        edge.draft or edge.make_drafter
        for edge in shrunk(schedule, fails=lambda _: True).world.edges
    )
