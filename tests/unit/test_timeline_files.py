"""What is written to files: pictures that are pictures, refusals that come early."""

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from click.testing import CliRunner
from harness.timelines import check_timeline

from edge.generate import generate
from paceline.errors import ConfigError
from paceline.timeline.building import timeline_of
from paceline.timeline.command import timeline
from paceline.timeline.writing import check_file, read_recording
from simulator.timeline.command import session

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """A recorded session with token ids."""
    file = tmp_path / "session.jsonl"
    options = ["--tokens", "16", "--timeline", str(file), "--timeline-tokens"]
    result = CliRunner().invoke(session, options, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return file


@pytest.mark.slow
def test_pictures_are_pictures_and_say_what_is_in_them(recording: Path, tmp_path: Path) -> None:
    png, svg = tmp_path / "t.png", tmp_path / "t.svg"
    for file in (png, svg):
        title = r"a & b for $5 or $\nothing$"  # no mathematics, and no markup
        said = CliRunner().invoke(timeline, [str(recording), str(file), "--title", title])
        assert said.exit_code == 0, said.output
        assert "16 tokens in" in said.output
    assert png.read_bytes().startswith(PNG)
    assert len(png.read_bytes()) > 20_000
    root = ET.parse(svg).getroot()
    assert root.tag.endswith("svg")
    # Matplotlib draws letters as paths, and leaves each text as a comment.
    text = svg.read_text(encoding="utf-8")
    for name in ("uplink", "downlink", "accepted draft", "step of the target", "milliseconds"):
        assert name in text


def test_a_recording_becomes_a_trace_without_the_text(recording: Path, tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    runner = CliRunner()
    runner.invoke(timeline, [str(recording), str(file)], catch_exceptions=False)
    trace = json.loads(file.read_text(encoding="utf-8"))
    assert trace["otherData"]["title"] == "session"
    assert "token_ids" not in file.read_text(encoding="utf-8")
    runner.invoke(timeline, [str(recording), str(file), "--tokens"], catch_exceptions=False)
    assert "token_ids" in file.read_text(encoding="utf-8")
    check_timeline(timeline_of(read_recording(recording), title=""), num_tokens=16)


def test_a_file_that_could_not_be_written_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match=r"\.json, \.svg, \.png or \.jsonl"):
        check_file(tmp_path / "t.gif")
    with pytest.raises(ConfigError, match="no folder"):
        check_file(tmp_path / "nowhere" / "t.json")
    (tmp_path / "folder.json").mkdir()
    with pytest.raises(ConfigError, match="can be written"):
        check_file(tmp_path / "folder.json")
    monkeypatch.setattr("paceline.timeline.picture.find_spec", lambda _: None)
    with pytest.raises(ConfigError, match="pip install matplotlib"):
        check_file(tmp_path / "t.png")
    check_file(tmp_path / "t.json")
    for command, options in ((generate, ["hello"]), (session, [])):
        # No verifier, no model, no world: it is refused before any of them is looked for.
        result = CliRunner().invoke(command, [*options, "--timeline", str(tmp_path / "t.svg")])
        assert isinstance(result.exception, ConfigError)
        assert "matplotlib" in str(result.exception)


def test_a_recording_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_recording(tmp_path / "none.jsonl")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_recording(tmp_path / "bytes.jsonl")


def test_several_prompts_have_no_timeline(tmp_path: Path) -> None:
    prompts = tmp_path / "p.jsonl"
    prompts.write_text('{"prompt": "a"}\n{"prompt": "b"}\n', encoding="utf-8")
    options = ["--prompts", str(prompts), "--timeline", str(tmp_path / "t.json")]
    result = CliRunner().invoke(generate, options)
    assert result.exit_code == 2
    assert "one answer" in result.output
