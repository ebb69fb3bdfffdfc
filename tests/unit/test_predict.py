"""Predicted answers against what can be worked out by hand."""

from dataclasses import replace
from pathlib import Path

import pytest

from edge.steering import LengthPolicy
from paceline.errors import ConfigError
from simulator.acceptance.guess_trace import Confidence, GuessedText, GuessTrace
from simulator.calibration.cost_file import Calibration, read_costs, write_costs
from simulator.calibration.service_steps import Answered
from simulator.cost import FittedCost, StepCost
from simulator.notation import parse_network
from simulator.predict import PredictionSettings, predict

STEP_S, DRAFT_S, RTT_S, NUM_TOKENS = 0.02, 0.001, 0.04, 32
TARGET = FittedCost(
    name="target", dtype="", threads=1, cost=StepCost(fixed_s=STEP_S, per_row_s=0.0)
)
DRAFT = FittedCost(name="draft", dtype="", threads=1, cost=StepCost(fixed_s=DRAFT_S, per_row_s=0.0))


def text(rank: int, *, prompt: str = "1", count: int = NUM_TOKENS) -> GuessedText:
    """Return an answer all of whose tokens have this rank in the draft's guesses."""
    return GuessedText(
        prompt=prompt,
        category="",
        temperature=0.0,
        seed=0,
        prompt_tokens=20,
        ended=False,
        ranks=bytes([rank] * count),
        confidence=bytes([8] * count),
    )


def settings(*texts: GuessedText, network: str = "rtt=40ms") -> PredictionSettings:
    """Return two simple machines, 40 ms apart."""
    trace = GuessTrace(
        draft="draft",
        target="target",
        confidence=Confidence(unit="logits", step=0.0625),
        texts=texts or (text(0),),
    )
    return PredictionSettings(
        calibration=Calibration(machine={}, target=TARGET, drafts=(DRAFT,)),
        trace=trace,
        network=parse_network(network),
    )


def duration_s(settings: PredictionSettings, *, at_s: float = 5.0) -> float:
    """Return how long the first answer takes."""
    (first, *_) = predict(settings, at_s=at_s)
    return first.statistics.duration_s


def test_without_drafts_an_answer_is_a_round_trip_and_a_step_for_each_token() -> None:
    (answer,) = predict(replace(settings(), drafts=False), at_s=5.0)
    assert answer.statistics.duration_s == pytest.approx(RTT_S + NUM_TOKENS * STEP_S, rel=1e-6)
    assert answer.statistics.time_to_first_token_s == pytest.approx(RTT_S + STEP_S, rel=1e-6)
    assert answer.tokens_per_s == pytest.approx(NUM_TOKENS / (RTT_S + NUM_TOKENS * STEP_S))
    assert answer.statistics.drafted == 0


def test_drafts_that_are_never_right_cost_nothing_where_rows_do_not() -> None:
    wrong = settings(text(0))
    assert duration_s(wrong) == pytest.approx(RTT_S + NUM_TOKENS * STEP_S, rel=1e-6)


def test_drafts_that_are_always_right_save_steps() -> None:
    (answer,) = predict(settings(text(1), network="rtt=4ms"), at_s=5.0)
    told = answer.statistics
    assert told.accepted == told.judged > 0
    # A step is twenty tokens of the draft long: every step after the first finds all that the draft length allows.
    assert told.steps <= NUM_TOKENS // 4
    assert told.duration_s < 0.5 * NUM_TOKENS * STEP_S


@pytest.mark.parametrize(("pad_s", "between_s"), [(0.05, 0.0), (0.0, 0.003), (0.05, 0.003)])
def test_padding_and_the_program_itself_take_time(pad_s: float, between_s: float) -> None:
    plain = replace(settings(), drafts=False, min_step_s=pad_s)
    target = replace(TARGET, between_s=between_s)
    slow = replace(plain, calibration=replace(plain.calibration, target=target))
    period_s = max(STEP_S, pad_s) + between_s
    assert duration_s(slow) == pytest.approx(RTT_S + NUM_TOKENS * period_s, rel=1e-6)
    (answer,) = predict(slow, at_s=5.0)
    # What a step told of itself does not hold what comes between two.
    assert answer.statistics.verifier_step_s == pytest.approx(max(STEP_S, pad_s), rel=1e-6)


def test_an_answer_meets_the_weather_of_its_time() -> None:
    # A packet each millisecond for 10 s, then nothing for 2 s.
    times = "\n".join(map(str, [*range(1, 10_001), 12_000]))
    network = parse_network("rtt=40ms,trace=recorded", read=lambda _: times)
    recorded = replace(settings(), drafts=False, network=network)
    # It waits for the last of its opportunities, one each way and for each message; a millisecond at most.
    assert duration_s(recorded, at_s=5.0) == pytest.approx(RTT_S + NUM_TOKENS * STEP_S, abs=0.004)
    assert duration_s(recorded, at_s=9.9) > 2.0


def test_each_recorded_answer_is_predicted_alone() -> None:
    both = predict(settings(text(1, prompt="easy"), text(0, prompt="hard", count=16)), at_s=5.0)
    assert [one.prompt for one in both] == ["easy", "hard"]
    assert [one.statistics.committed for one in both] == [NUM_TOKENS, 16]
    assert both[1].statistics.accepted == 0
    assert predict(settings(text(0, prompt="hard", count=16)), at_s=5.0)[0] == both[1]


def test_the_draft_length_may_follow_the_link() -> None:
    steered = replace(settings(text(1)), length_policy=LengthPolicy.CLOSED_FORM)
    assert duration_s(steered) < RTT_S + NUM_TOKENS * STEP_S


def test_a_draft_that_was_not_measured_is_told() -> None:
    unknown = settings()
    other = replace(unknown, trace=replace(unknown.trace, draft="other"))
    with pytest.raises(ConfigError, match="got 'other', expected one that was measured: draft"):
        predict(other)
    predict(replace(other, drafts=False))  # nothing is drafted, so nothing need be known


def test_what_comes_between_steps_is_what_they_leave_of_the_time_from_step_to_step() -> None:
    answered = Answered(first_s=1.0, last_s=1.1, num_steps=3, step_s=0.04)
    assert answered.between_s == pytest.approx(0.01)
    # Clocks of two processes: never below 0.
    assert replace(answered, num_steps=2, step_s=0.11).between_s == 0.0


def test_a_cost_file_keeps_what_comes_between_steps(tmp_path: Path) -> None:
    path = tmp_path / "costs.toml"
    measured = Calibration(machine={}, target=replace(TARGET, between_s=0.0015))
    write_costs(path, measured)
    assert read_costs(path) == measured
    path.write_text(path.read_text().replace("between_s = 0.0015", "between_s = -1.0"))
    with pytest.raises(ConfigError, match=r"between_s: got -1\.0"):
        read_costs(path)
