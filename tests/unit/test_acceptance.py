"""Recorded guesses: the file, the replay, the statistics that tell bursts from independent draws."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from paceline.errors import ConfigError
from simulator.acceptance.bursts import LAGS, burstiness
from simulator.acceptance.guess_trace import (
    Confidence,
    GuessedText,
    GuessTrace,
    read_trace,
    write_trace,
)
from simulator.acceptance.replay import (
    ENDLESS,
    Acceptance,
    IndependentAcceptance,
    ReplayedAcceptance,
)


def text(
    name: str, ranks: list[int], *, category: str = "qa", temperature: float = 0.0
) -> GuessedText:
    return GuessedText(
        prompt=name,
        category=category,
        temperature=temperature,
        seed=3,
        prompt_tokens=10 + len(ranks),
        ended=True,
        ranks=bytes(ranks),
        confidence=bytes((17 * rank + 1) % 256 for rank in ranks),
    )


TRACE = GuessTrace(
    draft="small",
    target="large",
    confidence=Confidence(unit="logits", step=0.0625),
    made={"dtype": "float32"},
    texts=(
        text("1", [1, 1, 0, 16]),
        text("2", [2, 1, 1]),
        text("3", [0, 5], category="code"),
        text("4", [1] * 5, temperature=1.0),
    ),
)


def test_trace_gives_back_what_was_written(tmp_path: Path) -> None:
    write_trace(tmp_path / "t.json", TRACE)
    assert read_trace(tmp_path / "t.json") == TRACE


def test_damaged_trace_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.json"
    write_trace(path, TRACE)
    damaged = path.read_text().replace('"110g"', '"111g"')
    assert damaged != path.read_text()
    path.write_text(damaged)
    with pytest.raises(ConfigError, match="sha256: not that of its content"):
        read_trace(path)
    path.write_text(json.dumps({"format": "other"}))
    with pytest.raises(ConfigError, match="format: got 'other'"):
        read_trace(path)
    path.write_text("no")
    with pytest.raises(ConfigError, match="not JSON"):
        read_trace(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ranks": bytes([17]), "confidence": b"1"}, "ranks: expected"),
        ({"ranks": b"", "confidence": b""}, "ranks: expected at least one"),
        ({"confidence": b"1"}, "confidence: got 1 values, expected 4"),
        ({"temperature": -1.0}, "temperature: got -1"),
        ({"prompt_tokens": 0}, "prompt_tokens: got 0"),
    ],
)
def test_text_names_the_wrong_field(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"text '1': {message}"):
        replace(TRACE.texts[0], **change)


def test_trace_names_the_wrong_field() -> None:
    with pytest.raises(ConfigError, match="ranks: got 16, expected at most 1, the width"):
        replace(TRACE, width=1)
    with pytest.raises(ConfigError, match="texts: got none"):
        replace(TRACE, texts=())
    with pytest.raises(ConfigError, match="no text of category 'law'"):
        TRACE.chosen(category="law")


def test_confidence_is_counted_in_steps() -> None:
    confidence = Confidence(unit="logits", step=0.0625)
    values = [confidence.byte(value) for value in (-1.0, 0.0, 0.1, 1.0, 99.0, float("inf"))]
    assert values == [0, 0, 2, 16, 255, 255]


def ranks(acceptance: Acceptance, count: int) -> list[int]:
    return [acceptance.at(position).rank for position in range(count)]


def test_replay_is_a_recorded_answer() -> None:
    replayed = ReplayedAcceptance(TRACE, seed=5, category="code")
    assert ranks(replayed, 4) == [0, 5, 0, 5]  # the only one there is, again and again
    assert replayed.category == "code"
    assert replayed.prompt_tokens == 12
    guess = replayed.at(1)
    assert guess.matches(5)
    assert not guess.matches(1)
    assert guess.num_candidates == 16
    assert guess.confidence == (17 * 5 + 1) * 0.0625


def test_replay_goes_on_in_the_same_category_and_temperature() -> None:
    found = {
        tuple(ranks(ReplayedAcceptance(TRACE, seed=seed, category="qa", temperature=0.0), 7))
        for seed in range(20)
    }
    assert found == {(1, 1, 0, 16, 2, 1, 1), (2, 1, 1, 1, 1, 0, 16)}


def test_replay_depends_on_the_seed_alone() -> None:
    first, again = (ReplayedAcceptance(TRACE, seed=9) for _ in range(2))
    forward = [first.at(position) for position in range(30)]
    assert [again.at(position) for position in reversed(range(30))] == forward[::-1]
    # Known values: another process, machine or version must not replay something else.
    chosen = [ReplayedAcceptance(TRACE, seed=seed).category for seed in range(6)]
    assert chosen == ["qa", "code", "code", "qa", "qa", "code"]
    shifted = ReplayedAcceptance(TRACE, seed=9, offset=4)
    assert [shifted.at(position) for position in range(20)] == forward[4:24]
    with pytest.raises(ConfigError, match="offset: got -1"):
        ReplayedAcceptance(TRACE, seed=9, offset=-1)


def test_a_draft_that_abstains_has_no_candidate() -> None:
    silent = replace(TRACE.texts[0], ranks=bytes([0, 0, 1]), confidence=bytes([0, 4, 4]))
    with pytest.raises(ConfigError, match="expected 'tokens' of a draft that abstains"):
        replace(TRACE, width=1, abstains=True, texts=(silent,))
    tokens = Confidence(unit="tokens", step=1.0)
    trace = replace(TRACE, width=1, abstains=True, confidence=tokens, texts=(silent,))
    replayed = ReplayedAcceptance(trace, seed=0)
    assert [replayed.at(position).num_candidates for position in range(3)] == [0, 1, 1]
    assert [replayed.at(position).reach for position in range(3)] == [0, 4, 4]
    assert ReplayedAcceptance(TRACE, seed=0).at(0).reach == ENDLESS


def test_independent_draws_have_their_rates() -> None:
    drawn = IndependentAcceptance((0.6, 0.2), seed=1)
    found = [drawn.at(position) for position in range(20_000)]
    assert [drawn.at(position) for position in range(100)] == found[:100]
    # Five standard deviations: a false alarm once in a million runs, and the seed is fixed.
    for rank, rate in ((1, 0.6), (2, 0.2), (0, 0.2)):
        share = sum(guess.rank == rank for guess in found) / len(found)
        assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / len(found))
    assert found[0].num_candidates == 2
    wrongs: list[tuple[float, ...]] = [(), (-0.1,), (0.9, 0.2)]
    for wrong in wrongs:
        with pytest.raises(ConfigError, match="rates: got"):
            IndependentAcceptance(wrong, seed=1)


def test_statistics_of_independent_draws() -> None:
    rng = np.random.default_rng(7)
    texts = [text(str(i), (rng.random(500) < 0.7).astype(int).tolist()) for i in range(40)]
    found = burstiness(texts)
    assert found.acceptance == pytest.approx(0.7, abs=0.02)
    assert found.num_positions == 20_000
    assert all(abs(value) < 0.04 for value in found.autocorrelation)
    for length in (1, 2, 4, 8):
        assert found.run_at_least(length) == pytest.approx(0.7**length, abs=0.03)
    assert found.tokens_per_round(8) == pytest.approx(
        found.independent_tokens_per_round(8), abs=0.1
    )


def test_statistics_tell_bursts() -> None:
    # Blocks of eight: the chance to go on is high within a block, and rounds of eight yield less than the rate says.
    rng = np.random.default_rng(7)
    texts = [
        text(str(i), np.repeat(rng.random(50) < 0.5, 8).astype(int).tolist()) for i in range(40)
    ]
    found = burstiness(texts)
    assert found.autocorrelation[LAGS.index(1)] == pytest.approx(7 / 8, abs=0.03)
    assert abs(found.autocorrelation[LAGS.index(8)]) < 0.1
    assert found.tokens_per_round(8) < found.independent_tokens_per_round(8) - 0.3
    assert found.run_at_least(8) > 10 * found.acceptance**8


def test_a_run_that_the_end_cuts_off_counts_as_far_as_it_was_seen() -> None:
    found = burstiness([text("1", [1, 1, 1, 1]), text("2", [1, 0, 0])])
    # From a start: right in 2 of 3; after one: in 1 of 2; after two or three: always.
    assert found.run_at_least(1) == pytest.approx(2 / 3)
    assert found.run_at_least(2) == pytest.approx(1 / 3)
    assert found.run_at_least(4) == pytest.approx(1 / 3)
    assert math.isnan(burstiness([text("1", [1, 1])]).autocorrelation[0])
    assert burstiness([text("1", [2, 1, 5])]).within(4) == pytest.approx(2 / 3)
