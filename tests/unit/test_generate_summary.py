"""The line and the object that end an answer."""

import json

from edge.summary import answer_object, summary_line
from paceline.client.outcome import EndReason, GenerationResult, Statistics
from paceline.tokens import TokenId

STATISTICS = Statistics(
    duration_s=2.0,
    committed=50,
    drafted=60,
    judged=40,
    accepted=30,
    steps=20,
    payload_bytes_up=200,
    payload_bytes_down=300,
    rtt_s=0.0612,
)


def test_the_line_has_all_figures() -> None:
    assert summary_line(STATISTICS) == (
        "25.0 tokens/s | acceptance 75% (30 of 40 judged drafts) | 30 of 50 steps saved | "
        "10.0 bytes/token | RTT 61.2 ms"
    )


def test_the_line_says_when_nothing_was_drafted_and_when_the_link_broke() -> None:
    line = summary_line(Statistics(duration_s=1.0, committed=3, steps=3, reconnects=2))
    assert "no drafts" in line
    assert "0 of 3 steps saved" in line
    assert line.endswith("| 2 reconnects")


def test_the_object_is_json_with_what_was_promised() -> None:
    result = GenerationResult(
        text="Hi",
        token_ids=(TokenId(5), TokenId(6)),
        finish_reason=EndReason.STOP,
        prompt_tokens=7,
        seed=2**63,
        statistics=STATISTICS,
    )
    data = json.loads(json.dumps(answer_object(result, name="x")))
    assert data["id"] == "x"
    assert data["text"] == "Hi"
    assert data["token_ids"] == [5, 6]
    assert data["finish_reason"] == "stop"
    assert data["seed"] == 2**63
    assert data["usage"] == {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}
    assert data["statistics"]["steps_saved"] == 30
    assert data["statistics"]["acceptance_probability"] == 0.75
