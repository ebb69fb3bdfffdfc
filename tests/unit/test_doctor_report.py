"""How checks are shown, and what the probes read without a network."""

import io
import json
import socket
from pathlib import Path

import pytest

from paceline.engine.loading import ModelSource
from simulator.doctor.probes import installation
from simulator.doctor.probes.models import hub_trouble
from simulator.doctor.report import Report, as_json, is_well
from simulator.doctor.verdicts.check import Check, failed, passed, skipped, warned

CHECKS = (
    passed("python", "3.11.7"),
    warned("memory", "0.5 GiB available", "End other programs."),
    skipped("verifier", "no --cloud given"),
)
BAD = failed("access", "[bold]no\x1b[31m\n token=abcdef", "Get a token.")


def _shown(*checks: Check) -> str:
    file = io.StringIO()
    report = Report(file)
    for check in checks:
        report.show(check)
    report.conclude(checks)
    return file.getvalue()


def test_a_pipe_gets_plain_words() -> None:
    assert _shown(*CHECKS) == (
        "OK      python: 3.11.7\n"
        "WARN    memory: 0.5 GiB available\n"
        "        -> End other programs.\n"
        "SKIPPED verifier: no --cloud given\n"
        "Nothing is wrong: 1 ok, 1 warn, 1 skipped.\n"
    )


def test_what_a_peer_says_is_shown_as_it_is_but_for_control_codes_and_secrets() -> None:
    assert "FAIL    access: [bold]no [31m token=***\n" in _shown(BAD)
    assert "Something is wrong, see above: 1 fail." in _shown(BAD)


def test_a_terminal_gets_marks(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.TextIOWrapper):
        def isatty(self) -> bool:
            return True

    monkeypatch.setenv("TERM", "xterm")
    file = Terminal(io.BytesIO(), encoding="utf-8")
    for check in (*CHECKS, BAD):
        Report(file).show(check)
    file.flush()
    shown = file.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "\N{CHECK MARK}" in shown
    assert "\N{BALLOT X}" in shown
    assert "\x1b[" in shown


def test_json_holds_every_check() -> None:
    assert is_well(CHECKS)
    told = json.loads(as_json((*CHECKS, BAD)))
    assert told["ok"] is False
    assert [check["status"] for check in told["checks"]] == ["ok", "warn", "skipped", "fail"]
    assert told["checks"][1]["advice"] == "End other programs."
    assert told["checks"][3]["found"] == "[bold]no [31m token=***"


@pytest.mark.parametrize(
    ("limit", "current", "expected"),
    [("max", "5", 2048 * 1024), ("1000000", "400000", 600000), ("10", "400000", 0)],
)
def test_available_memory_heeds_a_containers_limit(
    tmp_path: Path, limit: str, current: str, expected: int
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 9999 kB\nMemFree: 17 kB\nMemAvailable: 2048 kB\n", "ascii")
    (tmp_path / "memory.max").write_text(limit, "ascii")
    (tmp_path / "memory.current").write_text(current, "ascii")
    assert installation.available_bytes(meminfo=meminfo, cgroup=tmp_path) == expected


def test_available_memory_is_not_made_up(tmp_path: Path) -> None:
    assert installation.available_bytes(meminfo=tmp_path / "none", cgroup=tmp_path) is None


def test_a_hub_out_of_reach_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    here = ModelSource(name="x", location=str(Path.cwd()))
    elsewhere = ModelSource(name="nobody/nothing", location="nobody/nothing")
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        hub = f"https://127.0.0.1:{taken.getsockname()[1]}"
        assert hub_trouble(here, hub=hub) == ""
        told = hub_trouble(elsewhere, hub=hub)
        assert told.endswith("not in the cache of models, and 127.0.0.1: connection refused")
        monkeypatch.setenv("https_proxy", "http://proxy.example:3128")
        assert hub_trouble(elsewhere, hub=hub) == "", "the way leads through the proxy"


def test_our_own_packages_are_read_from_our_own_metadata() -> None:
    packages = {package.name: package for package in installation.packages()}
    assert packages["torch"].specifier == ">=2.9"
    assert packages["torch"].fits
    assert "ray" not in packages, "an extra is not needed"
    assert installation.python_specifier() == ">=3.11"
