"""Who decides how far ahead an edge drafts."""

from dataclasses import replace

import pytest

from edge.steering import LengthPolicy, Steering
from paceline.control import marginal
from paceline.control.drafting import Bounds, Drafting, Measured
from paceline.control.messages import EdgePolicy, Presence
from paceline.session.growth import Growth

START = Drafting(draft_length=8, window=64)
NEAR = Measured(
    rtt_s=0.02,
    jitter_s=0.001,
    draft_s=0.01,
    step_s=0.01,
    acceptance_probability=1.0,
    num_judged=200,
)
FAR = replace(NEAR, rtt_s=0.3)
ONLINE = Presence(online=True, incarnation=7)


def _steering(**options: object) -> tuple[Steering, list[str]]:
    sentences: list[str] = []
    defaults = {"length_policy": LengthPolicy.CLOSED_FORM, "bounds": Bounds(), "start": START}
    steering = Steering(**(defaults | options), explain=sentences.append)  # type: ignore[arg-type]
    return steering, sentences


def _led(policy: EdgePolicy | None = None, **options: object) -> tuple[Steering, list[str]]:
    steering, sentences = _steering(**options)
    steering.linked(is_up=True)
    steering.orchestrator(ONLINE)
    if policy is not None:
        steering.told(policy)
    return steering, sentences


def _policy(revision: int = 1, draft_length: int = 20, **fields: object) -> EdgePolicy:
    return EdgePolicy(revision=revision, draft_length=draft_length, window=40, **fields)  # type: ignore[arg-type]


def test_alone_the_edge_goes_where_the_function_says_and_explains_every_move() -> None:
    steering, sentences = _steering()
    lengths = []
    for measured in [FAR] * 20 + [NEAR] * 20:
        steering.measured(measured)
        lengths.append(steering.drafting.draft_length)
    assert max(lengths) >= 30
    assert lengths[-1] <= 6
    moves = sum(a != b for a, b in zip([8, *lengths], lengths, strict=False))
    assert len(sentences) == moves > 20
    assert all(sentence.startswith("draft ") and "\n" not in sentence for sentence in sentences)
    assert steering.revision == 0


def test_a_policy_is_followed_while_its_orchestrator_is_there() -> None:
    steering, sentences = _led(_policy(3, explanation="because of the tests"))
    assert steering.drafting == Drafting(draft_length=20, window=40)
    assert steering.revision == 3
    steering.measured(NEAR)
    assert steering.drafting.draft_length == 20
    assert sentences == ["policy 3: because of the tests"]


@pytest.mark.parametrize("loss", ["link", "will", "cleared"])
def test_without_its_orchestrator_the_edge_goes_on_from_the_last_policy(loss: str) -> None:
    steering, _ = _led(_policy(3))
    if loss == "link":
        steering.linked(is_up=False)
    else:
        steering.orchestrator(replace(ONLINE, online=False) if loss == "will" else None)
    assert steering.drafting.draft_length == 20
    assert steering.revision == 0
    steering.measured(NEAR)
    assert steering.drafting.draft_length == 18
    # Back again, with what is retained: the policy counts, not what the edge chose meanwhile.
    steering.linked(is_up=True)
    steering.orchestrator(ONLINE)
    steering.told(_policy(3))
    assert steering.drafting.draft_length == 20
    assert steering.revision == 3


def test_an_orchestrator_that_went_while_the_link_was_down_is_not_believed_in() -> None:
    steering, _ = _led(_policy())
    steering.linked(is_up=False)
    steering.linked(is_up=True)
    assert not steering.follows


def test_a_policy_that_is_known_does_not_undo_what_the_edge_chose_by_itself() -> None:
    steering, _ = _led(_policy(3))
    steering.orchestrator(None)
    steering.measured(NEAR)
    steering.told(_policy(3))  # the broker's link is new
    assert steering.drafting.draft_length == 18


def test_a_retained_policy_is_where_the_edge_begins_even_without_an_orchestrator() -> None:
    steering, sentences = _steering()
    steering.told(_policy(2))
    assert steering.drafting.draft_length == 20
    assert steering.revision == 0
    assert sentences == ["draft 20 ahead, from 8: the edge's own last choice"]


def test_an_older_policy_is_ignored_and_counted() -> None:
    steering, _ = _led(_policy(5))
    assert not steering.told(_policy(4, 1))
    assert steering.drafting.draft_length == 20
    assert steering.num_outdated == 1
    assert steering.told(_policy(5, 21))
    assert steering.told(_policy(6, 22))
    assert (steering.drafting.draft_length, steering.num_outdated) == (22, 1)


def test_a_withdrawn_policy_leaves_the_edge_to_itself() -> None:
    steering, _ = _led(_policy(5))
    assert steering.told(None)
    assert steering.policy is None
    assert steering.drafting.draft_length == 20
    assert steering.told(_policy(1, 3))  # numbers start again
    assert steering.drafting.draft_length == 3


def test_the_will_of_an_orchestrator_that_was_followed_by_another_is_ignored() -> None:
    steering, _ = _led(_policy())
    steering.orchestrator(Presence(online=False, incarnation=6))
    assert steering.follows
    steering.orchestrator(Presence(online=False, incarnation=7))
    assert not steering.follows


def test_a_policy_of_nothing_is_followed_and_recovered_from() -> None:
    steering, sentences = _led(_policy(1, 0))
    assert steering.drafting.draft_length == 0
    assert sentences == ["policy 1: draft 0 ahead, from 8"]
    assert not steering.wants_answer(FAR)
    steering.linked(is_up=False)
    for _ in range(20):
        steering.measured(FAR)
    assert steering.drafting.draft_length >= 30


def test_fixed_is_fixed_whatever_is_measured_or_told() -> None:
    steering, sentences = _led(_policy(1), length_policy=LengthPolicy.FIXED)
    for _ in range(5):
        steering.measured(FAR)
    assert steering.drafting == START
    assert (steering.revision, sentences) == (1, [])
    assert not steering.wants_answer(FAR)
    assert steering.policy is not None  # its verifiers count all the same


def test_the_orchestrator_is_told_at_once_when_the_length_is_not_right_any_more() -> None:
    steering, _ = _led(_policy(1, 20))
    assert steering.wants_answer(FAR)
    assert steering.wants_answer(NEAR)
    fits = replace(NEAR, rtt_s=0.175)
    assert not steering.wants_answer(fits)
    steering.linked(is_up=False)
    assert not steering.wants_answer(FAR)


def test_an_orchestrator_that_keeps_to_its_length_is_not_asked_again_and_again() -> None:
    steering, _ = _led(_policy(1, 20))
    assert [steering.wants_answer(FAR) for _ in range(5)] == [True, *[False] * 4]
    steering.told(_policy(2, 20, verifiers=("a:1",)))
    assert [steering.wants_answer(FAR) for _ in range(5)] == [True, *[False] * 4]
    assert steering.wants_answer(NEAR)


def test_a_policy_beyond_the_edges_bounds_is_not_asked_about_for_ever() -> None:
    steering, _ = _led(_policy(1, 1000))
    assert steering.drafting.draft_length == 1000
    assert not steering.wants_answer(replace(FAR, rtt_s=3.0))


TREE = {
    "growth": Growth(width=4),
    "start": Drafting(draft_length=32, window=256),
    "length_policy": LengthPolicy.MARGINAL,
}
STEPS = marginal.Measured(
    rtt_s=0.1,
    jitter_s=0.0,
    forward_s=0.004,
    step_s=0.06,
    light_s=0.06,
    tokens_per_step=2.0,
    row_s=0.0005,
    row_price_s=0.0,
)


def test_a_tree_grows_by_what_was_measured_and_every_change_worth_a_word_is_explained() -> None:
    steering, sentences = _steering(**TREE)
    assert steering.grows
    assert steering.growth == Growth(width=4)
    steering.measured(FAR)
    assert steering.drafting == Drafting(draft_length=32, window=256), "no chain's length"
    for price_s in (0.0, 0.0, 0.00001, 0.002, 0.002):
        steering.tree_measured(replace(STEPS, row_price_s=price_s))
    assert (
        steering.growth
        == marginal.choose(replace(STEPS, row_price_s=0.002), usual=Growth(width=4)).growth
    )
    assert len(sentences) == 2
    assert all(sentence.startswith("send guesses with a chance of ") for sentence in sentences)


def test_a_policy_bounds_a_tree_and_does_not_shape_it() -> None:
    steering, _ = _led(_policy(draft_length=20), **TREE)  # its window of 40 is a chain's
    assert steering.follows
    assert steering.drafting == Drafting(draft_length=20, window=160)
    steering.tree_measured(STEPS)
    assert steering.growth is not None
    assert steering.growth.pace is not None
    assert not steering.wants_answer(NEAR)
    steering.told(_policy(2, draft_length=200))
    assert steering.drafting == Drafting(draft_length=32, window=160)
    steering.told(_policy(3, draft_length=0))
    assert steering.drafting.draft_length == 0
    steering.linked(is_up=False)
    assert steering.drafting == Drafting(draft_length=32, window=256), "on its own as before"


def test_a_tree_with_a_fixed_floor_keeps_it() -> None:
    steering, sentences = _steering(**TREE | {"length_policy": LengthPolicy.FIXED})
    assert not steering.grows
    steering.tree_measured(STEPS)
    assert steering.growth == Growth(width=4)
    assert sentences == []
    assert _steering()[0].growth is None
