"""Writes a timeline to a file; the end of its name says what: a trace, a picture, or the recording it is made from."""

import json
import os
from pathlib import Path

from paceline.errors import ConfigError
from paceline.timeline.building import timeline_of
from paceline.timeline.chrome import trace_events
from paceline.timeline.facts import Facts
from paceline.timeline.picture import check_picture, draw
from paceline.timeline.recording import lines, parse
from paceline.timeline.value import Reference, Timeline

TRACE, RECORDING = ".json", ".jsonl"
PICTURES = (".png", ".svg")
HELP = (
    "Write a timeline of it: .json for ui.perfetto.dev and chrome://tracing, .svg or .png for a picture "
    "(needs matplotlib), .jsonl for the recording itself."
)


def check_file(path: Path) -> None:
    """Refuse a file before the work begins, not after it.

    Raises:
        ConfigError: nothing is written to such a name, its folder is not there, or matplotlib is missing.
    """
    if path.suffix not in {TRACE, RECORDING, *PICTURES}:
        raise ConfigError(
            f"timeline: got {path}, expected a name that ends with .json, .svg, .png or .jsonl"
        )
    if not path.parent.is_dir():
        raise ConfigError(f"timeline: there is no folder {path.parent}; make it first")
    if path.is_dir() or not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"timeline: cannot write {path}; name a file that can be written")
    if path.suffix in PICTURES:
        check_picture()


def write(facts: Facts, path: Path, *, title: str, reference: Reference | None = None) -> Timeline:
    """Write a session's timeline and return it.

    Raises:
        ConfigError: the file cannot be written, or see `check_file`.
    """
    check_file(path)
    timeline = timeline_of(facts, title=title, reference=reference)
    try:
        if path.suffix == RECORDING:
            path.write_text("".join(f"{line}\n" for line in lines(facts)), encoding="utf-8")
        elif path.suffix == TRACE:
            path.write_text(json.dumps(trace_events(timeline)) + "\n", encoding="utf-8")
        else:
            draw(timeline, path)
    except OSError as error:
        raise ConfigError(f"timeline: cannot write {path}: {error.strerror}") from error
    return timeline


def read_recording(path: Path) -> Facts:
    """Return the facts of a file that was written as .jsonl.

    Raises:
        ConfigError: it cannot be read, or is no such recording.
    """
    try:
        with path.open(encoding="utf-8") as text:
            return parse(text, where=str(path))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8: {error}") from error
