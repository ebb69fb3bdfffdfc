"""The `paceline` command: sub-commands, configuration, failures."""

import errno
import json
import logging
import socket
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import click
import pytest
from harness.processes import running

from paceline import command
from paceline.errors import ConfigError, OverloadedError
from paceline.settings import DURATION

MODULE = '''
"""Sub-commands for a test."""
import click
import errno
from paceline.errors import ModelError
from paceline.settings import DURATION

@click.command()
@click.option("--rtt", type=DURATION, default="60ms")
@click.option("--max-tokens", "limit", type=int, default=1)
@click.option("--fail", default="")
def sample(rtt: float, limit: int, fail: str) -> None:
    """Show what it was given. And more.

    Details.
    """
    if fail == "model":
        raise ModelError("weights: got garbage, expected GGUF")
    if fail == "group":
        raise ExceptionGroup("tasks", [ModelError("one"), ModelError("two")])
    if fail == "mixed":
        raise ExceptionGroup("tasks", [ModelError("one"), ZeroDivisionError()])
    if fail == "interrupt":
        raise KeyboardInterrupt
    if fail == "module":
        import not_a_module_of_anyone
    if fail == "port":
        raise OSError(errno.EADDRINUSE, "cannot listen at 127.0.0.1:1: in use")
    if fail == "bug":
        raise ZeroDivisionError
    print(f"rtt={rtt} limit={limit}")

@click.group()
def nested() -> None:
    """Has sub-commands of its own."""

@nested.command("go-on")
@click.option("--max-tokens", "limit", type=int, default=1)
@click.option("--tag", "tags", multiple=True)
def go_on(limit: int, tags: tuple[str, ...]) -> None:
    """Show what it was given."""
    print(f"limit={limit} tags={tags}")
'''


@pytest.fixture(autouse=True)
def commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "sample_commands.py").write_text(MODULE, encoding="utf-8")
    (tmp_path / "broken_commands.py").write_text(
        "import not_a_module_of_anyone\n", encoding="utf-8"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    names = {
        "sample": "sample_commands:sample",
        "nested": "sample_commands:nested",
        "broken": "broken_commands:broken",
        "absent": "sample_commands:absent",
        "odd": "sample_commands:DURATION",
    }
    points = {
        name: EntryPoint(name=name, value=value, group=command.ENTRY_POINT_GROUP)
        for name, value in names.items()
    }
    monkeypatch.setattr(command, "_installed", lambda: points)


def test_a_sub_command_gets_its_options(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["sample", "--rtt", "1.5s", "--max-tokens", "9"]) == 0
    assert capsys.readouterr().out == "rtt=1.5 limit=9\n"


def test_command_line_wins_then_environment_then_file_then_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def limit(*arguments: str) -> str:
        assert command.run([*arguments]) == 0
        return capsys.readouterr().out.split("limit=")[1].strip()

    assert limit("sample") == "1"
    home = tmp_path / ".config/paceline"
    home.mkdir(parents=True)
    (home / "paceline.toml").write_text("[sample]\nmax-tokens = 2\n", encoding="utf-8")
    assert limit("sample") == "2"
    (tmp_path / "paceline.toml").write_text("[sample]\nmax_tokens = 3\n", encoding="utf-8")
    assert limit("sample") == "3"
    (tmp_path / "other.toml").write_text("[sample]\nmax-tokens = 4\n", encoding="utf-8")
    assert limit("--config", "other.toml", "sample") == "4"
    monkeypatch.setenv("PACELINE_SAMPLE_MAX_TOKENS", "5")
    assert limit("--config", "other.toml", "sample") == "5"
    assert limit("--config", "other.toml", "sample", "--max-tokens", "6") == "6"


def test_a_nested_sub_command_has_its_own_variables_and_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def told(*arguments: str) -> str:
        assert command.run(["nested", "go-on", *arguments]) == 0
        return capsys.readouterr().out

    assert told() == "limit=1 tags=()\n"
    (tmp_path / "paceline.toml").write_text(
        '[nested.go-on]\nmax-tokens = 2\ntag = "one"\n', encoding="utf-8"
    )
    assert told() == "limit=2 tags=('one',)\n"
    monkeypatch.setenv("PACELINE_NESTED_GO_ON_MAX_TOKENS", "3")
    assert told() == "limit=3 tags=('one',)\n"
    assert told("--max-tokens", "4") == "limit=4 tags=('one',)\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[sample]\nmax-token = 3\n", ["'max-token'", "'max-tokens'", "[sample]"]),
        ("[simple]\nmax-tokens = 3\n", ["'simple'", "'sample'"]),
        ("[sample]\nzzzzzzzz = 3\n", ["'zzzzzzzz'", "fail", "max-tokens", "rtt"]),
        ("sample = 3\n", ["sample must be a table"]),
        ('log-levl = "info"\n', ["'log-levl'", "'log-level'"]),
        ('log-level = "loud"\n', ["--log-level", "loud"]),
        ("[sample\n", ["not valid TOML"]),
        ('[sample]\nrtt = "60"\n', ["--rtt", "no unit"]),
    ],
)
def test_a_wrong_configuration_file_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, expected: list[str]
) -> None:
    (tmp_path / "paceline.toml").write_text(content, encoding="utf-8")
    assert command.run(["sample"]) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in expected), message


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("[nested.go-on]\nmax-token = 3\n", ["'max-token'", "'max-tokens'", "[nested.go-on]"]),
        ("[nested]\ngo-off = 3\n", ["'go-off'", "'go-on'", "[nested]"]),
        ("[nested]\ngo-on = 3\n", ["nested.go-on must be a table"]),
    ],
)
def test_a_wrong_nested_table_names_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str, expected: list[str]
) -> None:
    (tmp_path / "paceline.toml").write_text(content, encoding="utf-8")
    assert command.run(["nested", "go-on"]) == 2
    message = capsys.readouterr().err
    assert all(part in message for part in expected), message


def test_the_file_may_set_what_all_sub_commands_share(tmp_path: Path) -> None:
    (tmp_path / "paceline.toml").write_text('log-level = "debug"\n[sample]\n', encoding="utf-8")
    assert command.run(["sample"]) == 0
    assert logging.getLogger("paceline").level == logging.DEBUG
    assert command.run(["--log-level", "error", "sample"]) == 0
    assert logging.getLogger("paceline").level == logging.ERROR


def test_a_missing_configuration_file_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["--config", "nowhere.toml", "sample"]) == 2
    assert "nowhere.toml" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("fail", "status", "sentence"),
    [
        ("model", 2, "paceline: weights: got garbage, expected GGUF\n"),
        ("group", 2, "paceline: one\n"),
        ("interrupt", 130, "\n"),
        (
            "port",
            2,
            "paceline: cannot listen at 127.0.0.1:1: in use: choose another port, or 0 for any\n",
        ),
    ],
)
def test_a_failure_is_one_sentence_and_its_status(
    capsys: pytest.CaptureFixture[str], fail: str, status: int, sentence: str
) -> None:
    assert command.run(["sample", "--fail", fail]) == status
    assert capsys.readouterr().err == sentence


def test_a_missing_module_is_named_with_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["sample", "--fail", "module"], ["broken"]):
        assert command.run(arguments) == 2
        message = capsys.readouterr().err
        assert "'not_a_module_of_anyone'" in message
        assert "install" in message
        assert message.count("\n") == 1


@pytest.mark.parametrize("fail", ["bug", "mixed"])
def test_a_bug_keeps_its_traceback(fail: str) -> None:
    with pytest.raises((ZeroDivisionError, ExceptionGroup)):
        command.run(["sample", "--fail", fail])


def test_traceback_on_request() -> None:
    with pytest.raises(Exception, match="got garbage"):
        command.run(["--traceback", "sample", "--fail", "model"])


def test_an_unknown_sub_command_tells_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["sampel"]) == 2
    assert "did you mean 'sample'?" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["absent", "odd"])
def test_an_entry_point_that_is_no_command_is_named(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    assert command.run([name]) == 2
    assert f"`{name}`" in capsys.readouterr().err


def test_the_help_lists_sub_commands_without_importing_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    sys.modules.pop("sample_commands", None)
    assert command.run(["--help"]) == 0
    text = capsys.readouterr().out
    assert "Show what it was given. And more\n" in text
    assert "broken" in text
    assert "sample_commands" not in sys.modules


def test_a_wrong_option_points_at_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run(["sample", "--nonsense"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("paceline sample: ")
    assert "--help" in message


def test_no_arguments_at_all_show_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.run([]) == 2
    assert capsys.readouterr().err.startswith("Usage: paceline ")


def test_what_is_no_failure_of_ours_is_left_alone() -> None:
    assert command.explain(RuntimeError("bug")) is None
    assert command.explain(OSError(errno.EIO, "bad disk")) is None
    assert command.explain(OverloadedError("full")) == (2, "paceline: full")
    assert command.explain(ConfigError("token=abc is wrong")) == (2, "paceline: token=*** is wrong")
    assert command.explain(FileNotFoundError(errno.ENOENT, "No such file", "x.gguf")) == (
        2,
        "paceline: x.gguf: No such file",
    )


@pytest.mark.slow
def test_the_real_command_is_light_and_knows_its_version() -> None:
    program = (
        "import sys; from paceline.command import run; status = run(['--help']); "
        "assert status == 0; heavy = {'torch', 'transformers', 'grpc', 'rich'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    shown = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    for name in ("chat", "cloud", "demo", "edge", "generate", "link"):
        assert f"  {name} " in shown.stdout
    told = subprocess.run(
        [sys.executable, "-m", "paceline.command", "--version"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert told.stdout.startswith("paceline, version 0.")


@pytest.mark.slow
def test_link_tells_where_it_listens_and_what_it_carried() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        to = f"127.0.0.1:{server.getsockname()[1]}"
        arguments = ["link", "--to", to, "--rtt", "2ms", "--json"]
        with running("paceline.command", *arguments, ready=r'"listening".*"port": (\d+)') as link:
            assert link.ready is not None
            with socket.create_connection(("127.0.0.1", int(link.ready[1])), timeout=10) as client:
                client.sendall(b"12345")
                carried, _ = server.accept()
                with carried:
                    assert carried.recv(5, socket.MSG_WAITALL) == b"12345"
            assert link.terminate() == 0
        last = json.loads(link.stdout.splitlines()[-1])
    assert (last["event"], last["up_bytes"], last["num_connections"]) == ("closed", 5, 1)


@pytest.mark.slow
def test_link_says_that_a_port_is_in_use() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        taken = f"127.0.0.1:{server.getsockname()[1]}"
        with running("paceline.command", "link", "--to", taken, "--listen", taken) as link:
            assert link.wait() == 2
    assert link.stderr == (
        f"paceline: cannot listen at {taken}: Address already in use; "
        "choose another address, or port 0 for any\n"
    )


def test_options_may_have_several_names() -> None:
    @click.command()
    @click.option("--seed", "--noise", "number", type=DURATION)
    @click.option("--on/--off", "switch")
    def several(number: float, switch: bool) -> None: ...

    assert command._options(several, {"noise": 1, "off": True}, table="several") == {
        "number": 1,
        "switch": True,
    }
