"""What a session may ask for."""

from dataclasses import replace
from typing import Any

import pytest

from cloud.admission import SessionSettings, check_open, session_limits
from paceline.errors import ConfigError, IncompatibleError, InvalidRequestError
from paceline.messages import ModelIdentity, Open
from paceline.sampling.settings import SamplingSettings
from paceline.tokens import TokenId

TARGET = ModelIdentity(
    name="tiny",
    weights_fingerprint=bytes([1]) * 32,
    dtype="float32",
    quantisation="",
    tokenizer_fingerprint=bytes([2]) * 32,
    vocabulary_size=100,
    context_length=32,
)
REQUEST = Open(
    tokenizer_fingerprint=TARGET.tokenizer_fingerprint,
    prompt=(TokenId(1),) * 8,
    sampling=SamplingSettings(),
    max_tokens=10,
)


def tokens(count: int, token: int = 1) -> tuple[TokenId, ...]:
    return (TokenId(token),) * count


def check(**changes: Any) -> None:
    check_open(replace(REQUEST, **changes), TARGET, session_limits(SessionSettings(), TARGET))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weights_fingerprint": TARGET.weights_fingerprint},
        {"prompt": tokens(31), "max_tokens": 1000},
        {"output": tokens(10)},
        {"prompt": tokens(30), "output": tokens(2), "max_tokens": 1000},
        {"prompt": (TokenId(99),), "stop_tokens": (TokenId(99),)},
    ],
)
def test_fine(changes: dict[str, Any]) -> None:
    check(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"protocol_version": 2}, IncompatibleError, ["open.protocol_version", "2", "1"]),
        (
            {"tokenizer_fingerprint": bytes(32)},
            IncompatibleError,
            ["open.tokenizer_fingerprint", "00" * 32, "02" * 32, "give the edge"],
        ),
        (
            {"weights_fingerprint": bytes(32)},
            IncompatibleError,
            ["open.weights_fingerprint", "00" * 32, "01" * 32],
        ),
        ({"prompt": tokens(32)}, InvalidRequestError, ["open.prompt", "32", "31", "shorten"]),
        ({"prompt": tokens(1, 100)}, InvalidRequestError, ["open.prompt", "100"]),
        ({"output": tokens(1, 100)}, InvalidRequestError, ["open.output", "100"]),
        ({"stop_tokens": tokens(1, 100)}, InvalidRequestError, ["open.stop_tokens", "100"]),
        ({"output": tokens(11)}, InvalidRequestError, ["open.output", "11", "10"]),
        (
            {"prompt": tokens(30), "output": tokens(3), "max_tokens": 1000},
            InvalidRequestError,
            ["open.output", "3", "2"],
        ),
    ],
)
def test_refused(changes: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    with pytest.raises(error) as caught:
        check(**changes)
    for word in words:
        assert word in str(caught.value)


def test_limits_are_bounded_by_the_context() -> None:
    assert session_limits(SessionSettings(), TARGET).max_tokens == 32
    assert session_limits(SessionSettings(max_tokens=5, lease_s=1.5), TARGET).max_tokens == 5
    assert session_limits(SessionSettings(lease_s=1.5), TARGET).lease_ms == 1500


@pytest.mark.parametrize(
    "wrong",
    [
        {"window": 63},
        {"max_lead": 7},
        {"lease_s": -1.0},
        {"silence_s": 0.0},
        {"max_sessions": 0},
        {"max_sessions_per_tenant": 0},
        {"max_tokens": 0},
        {"retry_after_s": float("nan")},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SessionSettings(**wrong)
