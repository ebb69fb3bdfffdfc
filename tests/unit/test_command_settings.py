"""Units, addresses, prompt files and logs."""

import io
import json
import logging
import sys
from pathlib import Path

import pytest

from paceline.errors import ConfigError
from paceline.logs import LineFormatter, configure_logging, mask_secrets
from paceline.prompts import Message, read_prompts
from paceline.settings import (
    Address,
    child_environment,
    parse_address,
    parse_bandwidth,
    parse_duration,
    read_configuration,
)


@pytest.mark.parametrize(
    ("text", "expected_s"),
    [
        ("60ms", 0.06),
        ("1.5s", 1.5),
        ("2m", 120),
        ("250us", 0.00025),
        ("0", 0),
        (" 3 S ", 3),
        (".5h", 1800),
    ],
)
def test_durations(text: str, expected_s: float) -> None:
    assert parse_duration(text) == pytest.approx(expected_s)


@pytest.mark.parametrize("text", ["", "60", "ms", "-1s", "1e3s", "5 years", "nan", "1..5s"])
def test_what_is_no_duration_is_quoted(text: str) -> None:
    with pytest.raises(ConfigError, match="duration: got"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "expected_bps"),
    [("20mbit", 20e6), ("512kbit", 512e3), ("1.5Gbit", 1.5e9), ("9bit", 9)],
)
def test_bandwidths(text: str, expected_bps: float) -> None:
    assert parse_bandwidth(text) == expected_bps


@pytest.mark.parametrize("text", ["0mbit", "0", "20", "20mb", "-3mbit"])
def test_what_is_no_bandwidth_is_quoted(text: str) -> None:
    with pytest.raises(ConfigError, match=f"bandwidth: got .*{text}"):
        parse_bandwidth(text)


@pytest.mark.parametrize(
    ("text", "host", "port", "loopback"),
    [
        ("127.0.0.1:80", "127.0.0.1", 80, True),
        ("localhost:0", "localhost", 0, True),
        ("[::1]:65535", "::1", 65535, True),
        ("cloud.example.org:7700", "cloud.example.org", 7700, False),
        ("0.0.0.0:1", "0.0.0.0", 1, False),
        ("LocalHost:1", "LocalHost", 1, True),
        ("127.0.0.1.example.org:1", "127.0.0.1.example.org", 1, False),
        ("b\u00fccher.example.:1", "b\u00fccher.example.", 1, False),
        ("gpu_box-1:1", "gpu_box-1", 1, False),
        ("[fe80::1%eth0]:1", "fe80::1%eth0", 1, False),
    ],
)
def test_addresses(text: str, host: str, port: int, loopback: bool) -> None:
    address = parse_address(text)
    assert address == Address(host=host, port=port)
    assert str(address) == text
    assert address.is_loopback is loopback


@pytest.mark.parametrize(
    "text",
    [
        *("", "host", ":80", "host:", "host:port", "host:65536", "host:-1"),
        # What the resolver would not take, some of it with errors that nobody expects.
        *(
            "a b:80",
            "a..b:80",
            "a\x00b:80",
            "\u202eb:80",
            f"{'x' * 64}:80",
            f"{'x.' * 127}:80",
            "\udc80:80",
        ),
    ],
)
def test_what_is_no_address_is_quoted(text: str) -> None:
    with pytest.raises(ConfigError, match="address: got"):
        parse_address(text)


def test_a_user_without_a_home_has_no_file_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(path: Path) -> Path:
        raise RuntimeError(f"no home for {path}")

    monkeypatch.setattr(Path, "expanduser", nowhere)
    monkeypatch.chdir(tmp_path)
    assert read_configuration(None) == {}


def test_a_child_does_not_inherit_our_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PACELINE_CLOUD_LISTEN", "0.0.0.0:1")
    monkeypatch.setenv("OTHER", "kept")
    environment = child_environment({"ADDED": "1"})
    assert "PACELINE_CLOUD_LISTEN" not in environment
    assert (environment["OTHER"], environment["ADDED"]) == ("kept", "1")


def test_prompt_files(tmp_path: Path) -> None:
    path = tmp_path / "prompts.jsonl"
    talk = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi\u2028there"},
    ]
    lines = [
        json.dumps({"id": 7, "prompt": "Hello", "more": 1}),
        "",
        json.dumps({"messages": talk}),
    ]
    path.write_text("\r\n".join(lines), encoding="utf-8")
    first, second = read_prompts(path)
    assert (first.name, first.messages) == ("7", (Message(role="user", content="Hello"),))
    assert (second.name, [message.role for message in second.messages]) == ("3", ["system", "user"])
    assert second.messages[1].content == "Hi\u2028there"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 1: not JSON"),
        ("[]", "line 1: got a list"),
        ("{}", "either `prompt` or `messages`, got nothing"),
        ('{"prompt": "a", "messages": []}', "either `prompt` or `messages`"),
        ('{"prompt": ""}', "`prompt` must be a text"),
        ('{"prompt": 5}', "`prompt` must be a text"),
        ('{"messages": []}', "`messages` must be a list"),
        ('{"messages": [{"role": "user"}]}', r"messages\[0\]"),
        ('{"messages": [{"role": "king", "content": ""}]}', r"messages\[0\].role: got 'king'"),
        ("", "holds no prompt"),
    ],
)
def test_a_wrong_prompt_file_names_the_line(tmp_path: Path, line: str, expected: str) -> None:
    path = tmp_path / "prompts.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(ConfigError, match=expected):
        read_prompts(path)


def test_the_prompts_for_tests_cover_all_categories() -> None:
    path = Path(__file__).parents[1] / "data/prompts/prompts.jsonl"
    assert len({line.name for line in read_prompts(path)}) == 40
    entries = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    assert len({entry["category"] for entry in entries}) == 14


def test_prompts_from_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"prompt": "Hi"}')))
    assert read_prompts(Path("-"))[0].messages[0].content == "Hi"


def test_a_missing_or_binary_prompt_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_prompts(tmp_path / "nowhere")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_prompts(tmp_path / "binary")


def _line(message: str, **extra: object) -> str:
    record = logging.LogRecord("cloud.service", logging.INFO, "", 0, message, None, None)
    vars(record).update(extra)
    return LineFormatter().format(record)


def test_a_log_record_is_one_line_with_its_fields() -> None:
    line = _line("session opened\nforged", session="7f 3a", rtt_s=0.061234567, api_key="abc")
    stamp, rest = line.split(" ", 1)
    assert stamp.endswith("Z")
    assert rest == (
        'INFO cloud.service session opened\\nforged session="7f 3a" rtt_s=0.0612346 api_key=***'
    )


def test_a_peer_cannot_steer_the_terminal_through_a_log_line() -> None:
    line = _line("policy 3: \x1b[2J\u202e\u00fc", names="a\x9bb")
    assert line.split(" ", 1)[1] == (
        'INFO cloud.service policy 3: \\x1b[2J\\u202e\u00fc names="a\\x9bb"'
    )


def test_an_error_stays_on_the_line() -> None:
    try:
        int("password=hunter2")
    except ValueError:
        info = sys.exc_info()
    record = logging.LogRecord("cloud", logging.ERROR, "", 0, "failed", None, info)
    line = LineFormatter().format(record)
    assert "\n" not in line
    assert "ValueError" in line
    assert "hunter2" not in line


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("bearer abc", "bearer ***"),
        ("api_key=abc, next", "api_key=***, next"),
        ("token=abc", "token=***"),
        ("8 tokens drafted", "8 tokens drafted"),
        ("num_tokens=8", "num_tokens=8"),
    ],
)
def test_secrets_are_masked(text: str, masked: str) -> None:
    assert mask_secrets(text) == masked


def test_our_programs_log_at_the_level_and_libraries_only_warn() -> None:
    root = logging.getLogger()
    names = ("paceline", "edge", "cloud", "orchestrator", "simulator")
    before = (root.handlers[:], root.level, [logging.getLogger(name).level for name in names])
    try:
        configure_logging("info")
        assert logging.getLogger("cloud.service").isEnabledFor(logging.INFO)
        assert not logging.getLogger("transformers.models").isEnabledFor(logging.INFO)
        assert len(root.handlers) == 1
    finally:
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        for name, level in zip(names, before[2], strict=True):
            logging.getLogger(name).setLevel(level)
