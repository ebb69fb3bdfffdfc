"""What guesses of a tree are worth: the floor, what it follows from, and what people are told."""

import math
from dataclasses import replace

import pytest

from paceline.client.meter import Meter
from paceline.control.marginal import (
    BYTE_S,
    FLOOR_LEAST,
    FLOOR_MOST,
    NODE_BYTES,
    Measured,
    choose,
    floor,
)
from paceline.control.steps import DOUBT, ROW_SHARE, StepMeter
from paceline.errors import LocalProtocolError
from paceline.messages import Commit
from paceline.session.growth import Growth
from paceline.settings import Address
from paceline.tokens import Position, TokenId

MEASURED = Measured(
    rtt_s=0.1,
    jitter_s=0.002,
    forward_s=0.004,
    step_s=0.07,
    light_s=0.062,
    tokens_per_step=2.0,
    row_s=0.0005,
    row_price_s=0.0,
)
USUAL = Growth(width=3, leaves=5, floor=0.02)


@pytest.mark.parametrize("value", [-0.1, math.nan, math.inf])
def test_measurements_that_cannot_be(value: float) -> None:
    with pytest.raises(LocalProtocolError, match="row_s: got"):
        replace(MEASURED, row_s=value)


def test_no_other_choice_of_guesses_commits_faster() -> None:
    """The floor follows the speed and the speed the floor: where they rest, no beginning of the guesses is better."""
    chances = [0.8 * 0.85**n for n in range(60)]
    rows = [0.0002, 0.001, 0.004, 0.02]
    for row_s in rows:
        bare_s = 0.06

        def speed(count: int, row_s: float = row_s, bare_s: float = bare_s) -> float:
            return (1.0 + sum(chances[:count])) / (bare_s + count * row_s)

        count = 0
        for _ in range(20):
            measured = replace(
                MEASURED,
                step_s=bare_s + count * row_s,
                tokens_per_step=1.0 + sum(chances[:count]),
                row_s=row_s,
            )
            least = floor(measured, byte_s=0.0)
            count = sum(chance >= least for chance in chances)
        assert speed(count) == max(map(speed, range(len(chances) + 1)))


def test_every_price_raises_the_floor_and_neither_end_is_left() -> None:
    usual = floor(MEASURED, byte_s=BYTE_S)
    assert usual == pytest.approx((0.0005 + NODE_BYTES * BYTE_S) * 2.0 / 0.07)
    assert floor(MEASURED, byte_s=0.0) < usual
    assert floor(replace(MEASURED, row_price_s=0.002), byte_s=BYTE_S) > usual
    assert floor(replace(MEASURED, row_s=0.002), byte_s=BYTE_S) > usual
    assert floor(replace(MEASURED, tokens_per_step=3.0), byte_s=BYTE_S) > usual
    assert floor(replace(MEASURED, row_s=0.0), byte_s=0.0) == FLOOR_LEAST
    dear = replace(MEASURED, row_price_s=5.0)
    assert floor(dear, byte_s=BYTE_S) == FLOOR_MOST
    assert "hardly any guess is worth that" in choose(dear, usual=USUAL).sentence


def test_a_decision_says_how_a_tree_grows_and_why() -> None:
    decision = choose(MEASURED, usual=USUAL)
    growth, pace = decision.growth, decision.growth.pace
    assert (growth.width, growth.leaves) == (3, 5)
    assert pace is not None
    assert (pace.rtt_s, pace.step_s, pace.forward_s) == (0.1, 0.062, 0.004)
    assert pace.slack_s == pytest.approx(0.002 + 0.02 * 0.07)
    assert decision.sentence == (
        "send guesses with a chance of 2 % or more: a token takes 35 ms; a row costs 0.5 ms of it and others 0 ms; 4 bytes "
        "count as 0.19 ms; after a rejection the verifier is 2 steps of 62 ms further before a new guess is there, over 100 ms"
    )


@pytest.mark.parametrize(
    ("unknown", "words"),
    [
        ({"rtt_s": 0.0}, "the round trip is not"),
        ({"step_s": 0.0}, "the time of a step is not"),
        ({"rtt_s": 0.0, "step_s": 0.0}, "the round trip and the time of a step is not"),
    ],
)
def test_what_is_not_known_decides_nothing(unknown: dict[str, float], words: str) -> None:
    decision = choose(replace(MEASURED, **unknown), usual=USUAL)
    assert decision.growth == USUAL
    assert decision.sentence.startswith("send guesses with a chance of 2 % or more: as usual")
    assert words in decision.sentence


def test_people_hear_of_what_is_new() -> None:
    decision = choose(MEASURED, usual=USUAL)
    assert decision.differs_from(None)
    assert decision.differs_from(choose(replace(MEASURED, rtt_s=0.0), usual=USUAL))
    assert not choose(replace(MEASURED, step_s=0.072), usual=USUAL).differs_from(decision)
    assert choose(replace(MEASURED, row_price_s=0.001), usual=USUAL).differs_from(decision)


# --- what is learned of steps


def told(
    step_ms: float, *, rows: int = 1, tokens: int = 1, queue_ms: float = 0.0, price_ns: int = 0
) -> Commit:
    return Commit(
        position=Position(3),
        tokens=tuple(TokenId(1) for _ in range(tokens)),
        verify_ns=round(step_ms * 1e6),
        queue_ns=round(queue_ms * 1e6),
        num_rows=rows,
        num_steps=1,
        row_price_ns=price_ns,
    )


def test_nothing_is_known_before_the_first_step() -> None:
    meter = StepMeter()
    meter.add(replace(told(60.0), verify_ns=0))
    meter.add(replace(told(900.0), num_steps=0))  # the prompt's
    found = (meter.step_s, meter.light_s, meter.row_s, meter.row_price_s, meter.tokens_per_step)
    assert found == (0.0, 0.0, 0.0, 0.0, 0.0)


def test_the_cost_of_a_row_is_learned_from_steps_that_differ() -> None:
    meter = StepMeter()
    meter.add(told(60.0))
    assert meter.row_s == pytest.approx(ROW_SHARE * 0.06), "as usual"
    for number in range(200):
        rows = number * 7 % 40
        meter.add(told(50.0 + 0.4 * rows, rows=rows, tokens=2, price_ns=300_000))
    assert meter.row_s == pytest.approx(0.0004, rel=0.1)
    assert meter.row_price_s == pytest.approx(0.0003, rel=0.05)
    assert meter.tokens_per_step == pytest.approx(2.0, rel=0.05)
    assert meter.step_s == pytest.approx(0.058, rel=0.05)
    assert 0.5 * meter.step_s < meter.light_s < meter.step_s - 0.003
    for number in range(600):
        meter.add(told(20.0 + number % 2, rows=3))
    assert meter.row_s == pytest.approx(0.02 * ROW_SHARE, rel=0.2), f"{DOUBT} rules again"
    assert meter.light_s == pytest.approx(0.02, rel=0.05)


def test_waiting_for_others_counts_as_time_between_steps() -> None:
    meter = StepMeter()
    for _ in range(10):
        meter.add(told(20.0, queue_ms=40.0))
    assert meter.step_s == pytest.approx(0.06)


def test_a_client_tells_what_it_learned_of_its_verifier_and_its_drafter() -> None:
    meter, here, there = Meter(), Address(host="a", port=1), Address(host="b", port=1)
    meter.add_rtt(here, 0.1)
    for _ in range(3):
        # Three guesses were compared for each of two tokens, and one was right.
        commit = replace(told(60.0, rows=7, tokens=2), num_judged=6, num_accepted=1)
        meter.committed(commit, address=here)
        meter.drafted(0.004, 8)
    found = meter.tree(here)
    assert (found.rtt_s, found.tokens_per_step) == (0.1, 2.0)
    assert found.forward_s == pytest.approx(0.004)
    assert found.step_s == pytest.approx(0.06)
    assert meter.draft_s == pytest.approx(0.0005)
    assert meter.acceptance_probability == pytest.approx(0.5)
    assert meter.num_judged == 6
    unknown = meter.tree(there)
    assert (unknown.rtt_s, unknown.step_s, unknown.tokens_per_step) == (0.0, 0.0, 0.0)
    assert choose(unknown, usual=USUAL).growth == USUAL
