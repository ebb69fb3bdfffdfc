"""What `generate`, `chat` and `edge` take, from the command line, the environment and the configuration file."""

import socket
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from edge.chat import chat
from edge.command import edge
from edge.control_options import control_options, control_settings, host_id
from edge.generate import OutputSettings, check_line, conversation, generate
from edge.options import (
    AnswerSettings,
    agent_options,
    agent_settings,
    answer_options,
    answer_settings,
)
from paceline.client.settings import DraftingSettings
from paceline.command import run
from paceline.errors import ConfigError
from paceline.prompts import Message, PromptLine
from paceline.session.growth import Growth
from paceline.session.pipeline import PipelineName, PipelineSettings
from paceline.settings import Address, secret
from paceline.topics import check_id

USER = Message(role="user", content="Hello")
SYSTEM = Message(role="system", content="Be brief")


@click.command()
@answer_options
@agent_options
def probe(**values: Any) -> None:
    """Take the options and show the settings."""
    click.echo(repr(agent_settings(values)))
    click.echo(repr(answer_settings(values)))


@pytest.fixture
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a configuration file, where the command runs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_options_become_settings() -> None:
    arguments = (
        "--cloud a:1 --cloud b:2 --draft none --draft-length 5 --window 70 --temperature 0.5"
    )
    arguments += " --stop x --stop y --seed 9 --max-tokens 3 --tokens-per-message 2 --threads 1"
    shown = CliRunner().invoke(probe, arguments.split(), catch_exceptions=False).output
    for part in (
        repr((Address(host="a", port=1), Address(host="b", port=2))),
        "draft='none'",
        "draft_length=5, window=70, tokens_per_message=2",
        "temperature=0.5",
        "stop=('x', 'y')",
        "seed=9",
        "max_tokens=3",
        "threads=1",
    ):
        assert part in shown


@pytest.mark.parametrize(
    ("arguments", "policy", "drafting"),
    [
        ("", "closed-form", (8, 64)),
        ("--draft-length 5", "fixed", (5, 64)),
        ("--window 9", "fixed", (8, 9)),
        ("--draft-length 5 --length-policy closed-form", "closed-form", (5, 64)),
        ("--length-policy fixed", "fixed", (8, 64)),
        ("--draft tree:low-bit:4/64", "marginal", (32, 256)),
        ("--draft tree:low-bit:4/64 --draft-length 5", "marginal", (5, 256)),
        ("--draft tree:low-bit:4/64 --length-policy fixed", "fixed", (32, 256)),
    ],
)
def test_who_says_how_far_to_draft_means_it(
    arguments: str, policy: str, drafting: tuple[int, int]
) -> None:
    shown = CliRunner().invoke(probe, arguments.split(), catch_exceptions=False).output
    assert f"<LengthPolicy.{policy.upper().replace('-', '_')}: '{policy}'>" in shown
    assert f"draft_length={drafting[0]}, window={drafting[1]}" in shown


def test_a_byte_has_a_price_in_microseconds() -> None:
    for arguments, told in (("", "byte_s=4.8e-05"), ("--byte-price 8", "byte_s=8e-06")):
        assert told in CliRunner().invoke(probe, arguments.split()).output
    for price in ("nan", "inf"):
        found = CliRunner().invoke(probe, ["--byte-price", price])
        assert isinstance(found.exception, ConfigError)
        assert str(found.exception).startswith(f"--byte-price: got {price}, expected a finite")


def settings_of(arguments: str) -> DraftingSettings:
    made: list[DraftingSettings] = []

    @click.command()
    @agent_options
    def probed(**values: Any) -> None:
        made.append(agent_settings(values).drafting)

    CliRunner().invoke(probed, arguments.split(), catch_exceptions=False)
    return made[0]


@pytest.mark.parametrize(
    ("arguments", "name", "patience_ms", "draft_length", "is_tree"),
    [
        ("", "tree-stream", 0, 8, False),
        ("--draft tree:low-bit:4/64", "tree-stream", 0, 32, True),
        ("--draft adapt:tree:low-bit:4/64", "tree-stream", 0, 32, True),
        ("--draft tree:low-bit:4/64 --patience 0.25", "tree-stream", 250, 32, True),
        ("--pipeline stop-and-wait", "stop-and-wait", 2000, 4, False),
        ("--pipeline stop-and-wait --draft tree:low-bit:4/64", "stop-and-wait", 2000, 4, False),
        ("--pipeline run-ahead --patience 0", "run-ahead", 0, 16, False),
        ("--pipeline outcome-cache --draft-length 6", "outcome-cache", 2000, 6, False),
        ("--pipeline outcome-cache-ahead", "outcome-cache-ahead", 2000, 16, False),
    ],
)
def test_a_pipeline_is_chosen_by_name(
    arguments: str, name: str, patience_ms: int, draft_length: int, is_tree: bool
) -> None:
    drafting = settings_of(arguments)
    assert drafting.pipeline.name == name
    assert drafting.pipeline.patience_ms == patience_ms
    assert drafting.draft_length == draft_length
    assert (drafting.growth is not None) is is_tree


def test_the_closed_form_is_for_streams() -> None:
    with pytest.raises(ConfigError, match="--pipeline stop-and-wait, expected fixed"):
        settings_of("--pipeline stop-and-wait --length-policy closed-form")
    assert settings_of("--pipeline stop-and-wait --length-policy fixed").draft_length == 4


@pytest.mark.parametrize(
    "fields", [{"segment": 0}, {"fan_out": 0}, {"patience_s": -0.1}, {"patience_s": float("nan")}]
)
def test_pipelines_that_make_no_sense(fields: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"pipeline.{next(iter(fields))}: got"):
        PipelineSettings(**fields)


def test_a_chains_pipeline_takes_no_tree() -> None:
    with pytest.raises(ConfigError, match="growth: got one with the pipeline run-ahead"):
        DraftingSettings(growth=Growth(), pipeline=PipelineSettings(name=PipelineName.RUN_AHEAD))


@click.command()
@control_options
@agent_options
def member(**values: Any) -> None:
    """Take the options and show the settings of the control plane."""
    click.echo(repr(control_settings(values)))


def test_a_broker_makes_an_edge_a_member() -> None:
    def shown(arguments: str) -> str:
        return CliRunner().invoke(member, arguments.split(), catch_exceptions=False).output

    assert shown("") == "None\n"
    alone = shown("--broker b:1883 --insecure")
    assert f"edge_id={host_id(socket.gethostname())!r}, telemetry_interval_s=5.0" in alone
    assert "insecure=True" in alone
    assert "follow_verifiers=True" in alone
    told = shown("--broker b:1 --edge-id kiosk --telemetry-interval 2s --no-follow-verifiers")
    assert "edge_id='kiosk', telemetry_interval_s=2.0, follow_verifiers=False" in told


@pytest.mark.parametrize(
    ("name", "known"),
    [("kiosk-7.lan", "kiosk-7.lan"), ("Büro #3", "B-ro--3"), ("x" * 99, "x" * 64), ("", "edge")],
)
def test_a_host_name_becomes_an_id(name: str, known: str) -> None:
    assert host_id(name) == known
    assert check_id(host_id(name)) == known


def test_generate_and_chat_have_the_same_flags() -> None:
    of_generate = {parameter.name for parameter in generate.params}
    of_chat = {parameter.name for parameter in chat.params}
    of_one_answer = {"prompt", "prompts", "as_json", "json_file", "raw"}
    assert of_generate - of_chat == of_one_answer | {"timeline", "timeline_tokens"}
    assert of_chat <= of_generate


@pytest.mark.parametrize("command", [generate, chat, edge])
def test_every_option_has_help(command: click.Command) -> None:
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.usefixtures("somewhere")
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["generate"], "PROMPT or --prompts"),
        (["generate", "Hi", "--broker", "127.0.0.1:1"], "--edge-id: got none with --broker"),
        (["generate", "Hi", "--edge-id", "me"], "--edge-id: got it without --broker"),
        (["generate", ""], "PROMPT is empty"),
        (["generate", "Hi", "--temperature", "1000"], "temperature: got 1000"),
        (["generate", "Hi", "--top-p", "0"], "top_p"),
        (["generate", "Hi", "--max-tokens", "0"], "--max-tokens"),
        (["generate", "Hi", "--cloud", "nowhere"], "HOST:PORT"),
        (["generate", "Hi", "--dtype", "int8"], "--dtype"),
        (["generate", "Hi", "--raw", "--system", "x"], "--system"),
        (["generate", "Hi", "--target", "./nothing.gguf"], "nothing.gguf"),
        (["generate", "Hi", "--tls-cert", __file__], "key_file"),
        (["generate", "--prompts", "nothing.jsonl"], "nothing.jsonl"),
        (["chat", "--min-p", "1"], "min_p"),
        (["edge", "--listen", "0.0.0.0:0"], "--api-key"),
        (["edge", "--listen", "0.0.0.0:0", "--api-key", "short"], "--api-key"),
        (["edge", "--max-concurrent", "0"], "--max-concurrent"),
        (["edge", "--max-tokens", "0"], "--max-tokens"),
        (["edge", "--edge-id", "kiosk"], "--edge-id: got it without --broker"),
        (["edge", "--broker", "b:1", "--edge-id", "a/b"], "--edge-id: id: got 'a/b'"),
        (["edge", "--broker", "b:1", "--telemetry-interval", "0.5s"], "--telemetry-interval"),
        (["edge", "--window", "5000"], "--window"),
        (["edge", "--target", "./nothing.gguf"], "nothing.gguf"),
    ],
)
def test_a_wrong_value_is_one_sentence_and_status_2(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(arguments) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert words in said.err
    assert "Traceback" not in said.err
    assert said.err.count("\n") == 1


@pytest.mark.usefixtures("somewhere")
def test_a_port_in_use_is_told_before_anything_slow(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        assert run(["edge", "--listen", place]) == 2
    assert f"cannot listen on {place}" in capsys.readouterr().err
    assert run(["edge", "--listen", "192.0.2.1:0", "--api-key", "0123456789"]) == 2
    assert "cannot listen on 192.0.2.1:0" in capsys.readouterr().err


def test_environment_and_file_are_read(
    somewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (somewhere / "paceline.toml").write_text("[generate]\ntemperature = 1001\n[chat]\nmin-p = 2\n")
    assert run(["generate", "Hi"]) == 2
    assert "temperature: got 1001" in capsys.readouterr().err
    assert run(["chat"]) == 2
    assert "min_p: got 2" in capsys.readouterr().err
    monkeypatch.setenv("PACELINE_GENERATE_TEMPERATURE", "1002")
    assert run(["generate", "Hi"]) == 2
    assert "temperature: got 1002" in capsys.readouterr().err
    assert run(["generate", "Hi", "--temperature", "1003"]) == 2
    assert "temperature: got 1003" in capsys.readouterr().err
    monkeypatch.setenv("PACELINE_EDGE_MAX_CONCURRENT", "-5")
    assert run(["edge"]) == 2
    assert "got -5" in capsys.readouterr().err


def test_a_repeatable_option_may_have_one_value_in_the_file(
    somewhere: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (somewhere / "paceline.toml").write_text('[generate]\ncloud = "nowhere"\n')
    assert run(["generate", "Hi"]) == 2
    assert "got 'nowhere', expected HOST:PORT" in capsys.readouterr().err
    (somewhere / "paceline.toml").write_text('[generate]\ncloud = ["a:1", "nowhere"]\n')
    assert run(["generate", "Hi"]) == 2
    assert "got 'nowhere', expected HOST:PORT" in capsys.readouterr().err


def test_prompts_come_from_standard_input() -> None:
    both = CliRunner().invoke(
        generate, ["--prompts", "-", "--raw"], input='{"messages": [{"role": "user"}]}\n'
    )
    assert both.exit_code == 2
    assert "-, line 1" in both.output


def test_a_system_message_comes_first_unless_the_prompt_has_one() -> None:
    line = PromptLine(name="1", messages=(USER,))
    assert conversation(line, system=None) == (USER,)
    assert conversation(line, system="Be brief") == (SYSTEM, USER)
    own = PromptLine(name="1", messages=(SYSTEM, USER))
    assert conversation(own, system="Be long") == (SYSTEM, USER)


def test_raw_takes_texts_only() -> None:
    raw = OutputSettings(raw=True)
    check_line(PromptLine(name="1", messages=(USER,)), answers=AnswerSettings(), output=raw)
    with pytest.raises(ConfigError, match="prompt 7 is a conversation"):
        check_line(
            PromptLine(name="7", messages=(SYSTEM, USER)), answers=AnswerSettings(), output=raw
        )


def test_secrets_come_from_a_file_or_as_they_are(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert secret(None, None, name="--token") is None
    assert secret("x", None, name="--token") == "x"
    assert secret(None, file, name="--token") == "abc"
    with pytest.raises(ConfigError, match="got both"):
        secret("x", file, name="--token")
    file.write_text("a b\nc d\n")
    with pytest.raises(ConfigError, match="one line"):
        secret(None, file, name="--token")
    file.write_bytes(b"\xff\xff")
    with pytest.raises(ConfigError, match="cannot read"):
        secret(None, file, name="--token")
