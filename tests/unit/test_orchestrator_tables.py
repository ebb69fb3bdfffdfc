"""The fleet on a terminal: columns, unknown values, and names that try to move the cursor."""

from typing import Any

import pytest

from orchestrator.options import GateSettings
from orchestrator.tables import show_fleet
from paceline.errors import ConfigError
from paceline.settings import parse_address

EDGE: dict[str, Any] = {
    "id": "laptop-01",
    "state": "online",
    "verifier": "gpu-a:50051",
    "rtt_s": 0.0213,
    "jitter_s": 0.0011,
    "acceptance_probability": 0.815,
    "draft_length": 7,
    "tokens_per_s": 1234.5,
    "waste": None,
    "pinned": None,
}
VERIFIER: dict[str, Any] = {
    "id": "gpu-a",
    "state": "draining",
    "address": "gpu-a:50051",
    "model": "Qwen3-32B",
    "num_sessions": 3,
    "max_sessions": 64,
    "step_s": 0.042,
    "queue_s": 0.0,
    "busy": 0.5,
    "tokens_per_s": None,
}
TOTALS: dict[str, Any] = {
    "num_edges": 2,
    "num_online": 1,
    "num_verifiers": 1,
    "num_verifiers_online": 1,
    "tokens_per_s": 1234.5,
    "acceptance_probability": 0.8,
    "waste": None,
}


def shown(capsys: pytest.CaptureFixture[str], *edges: dict[str, Any], connected: bool) -> list[str]:
    show_fleet(
        {
            "edges": list(edges),
            "verifiers": [VERIFIER],
            "totals": TOTALS,
            "orchestrator": {"is_connected": connected},
        }
    )
    return [line.rstrip() for line in capsys.readouterr().out.splitlines()]


def test_a_pipe_gets_plain_columns(capsys: pytest.CaptureFixture[str]) -> None:
    gone = EDGE | {"id": "a-gone", "state": "offline", "pinned": 3, "rtt_s": 0.0}
    lines = shown(capsys, gone, EDGE, connected=True)
    there = "gpu-a draining gpu-a:50051 Qwen3-32B 3/64 42.0 ms 0.0 ms 50 % -"
    assert " ".join(lines[1].split()) == there
    here = "laptop-01 online gpu-a:50051 21.3 ms 1.1 ms 82 % 7 1,234.5 -"
    assert " ".join(lines[3].split()) == here, "whoever is online comes first"
    assert " ".join(lines[4].split()).startswith("a-gone offline gpu-a:50051 - ")
    assert "pinned 7" in lines[4]
    assert lines[5].startswith("1 of 2 edges online, 1 of 1 verifiers, 1,234.5 tokens/s")
    assert "broker lost" not in lines[5]
    assert "broker lost" in shown(capsys, connected=False)[-1]


def test_names_neither_colour_nor_move_anything(capsys: pytest.CaptureFixture[str]) -> None:
    evil = EDGE | {"verifier": "[red]x[/red]\x1b[2J\r\n:1"}
    text = "\n".join(shown(capsys, evil, connected=True))
    assert "[red]x[/red]?[2J??:1" in text
    assert "\x1b" not in text


@pytest.mark.parametrize(
    ("address", "key", "insecure", "sentence"),
    [
        ("0.0.0.0:8090", None, False, "without a key"),
        ("fleet.example:8090", None, False, "without a key"),
        ("127.0.0.1:8090", "1234567", False, "too short"),
        ("0.0.0.0:8090", "12345678", False, None),
        ("0.0.0.0:8090", None, True, None),
        ("[::1]:8090", None, False, None),
    ],
)
def test_beyond_this_machine_a_key_is_needed(
    address: str, key: str | None, insecure: bool, sentence: str | None
) -> None:
    def settings() -> GateSettings:
        return GateSettings(
            listen=parse_address(address), api_key=key, is_insecure_allowed=insecure
        )

    if sentence is None:
        assert key is None or key not in repr(settings())
        return
    with pytest.raises(ConfigError, match=sentence):
        settings()
