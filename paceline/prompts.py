"""Prompts from a file: JSON lines, each with `prompt` (a text) or `messages` (a conversation).

`id` and `category` may name a line and its kind; other keys are left alone.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from paceline.errors import ConfigError

STANDARD_INPUT = Path("-")

ROLES = ("system", "user", "assistant")
MAX_LINE_BYTES = 4 * 1024 * 1024
"""Longest line of a prompt file; far above any context."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn of a conversation."""

    role: str
    content: str


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptLine:
    """One line of a prompt file."""

    name: str
    """The line's `id` if it has one, else its number from 1."""

    messages: tuple[Message, ...]
    """The conversation; a line with `prompt` is one message of the user."""

    category: str = ""
    """The line's `category`, for reports by kind of prompt; empty if it has none."""


def read_prompts(path: Path) -> tuple[PromptLine, ...]:
    """Return the prompts of a file in order; empty lines are skipped, unknown keys are left alone.

    The path "-" is standard input.

    Raises:
        ConfigError: the file cannot be read, holds no prompt, or a line is not what it should be; names the line.
    """
    try:
        content = sys.stdin.buffer.read() if path == STANDARD_INPUT else path.read_bytes()
        text = content.decode("utf-8")
    except OSError as error:
        raise ConfigError(f"--prompts: cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"--prompts: {path} is not UTF-8 text: {error}") from error
    lines = [
        _parse_line(line, number=number, where=f"{path}, line {number}")
        # Not splitlines(): JSON strings may hold U+2028 and the like, which are no ends of lines here.
        for number, line in enumerate(text.split("\n"), start=1)
        if line.strip()
    ]
    if not lines:
        raise ConfigError(f"--prompts: {path} holds no prompt; write one JSON object per line")
    return tuple(lines)


def _parse_line(line: str, *, number: int, where: str) -> PromptLine:
    if len(line) > MAX_LINE_BYTES:
        raise ConfigError(f"{where}: got {len(line)} characters, at most {MAX_LINE_BYTES} are read")
    try:
        entry = json.loads(line)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{where}: not JSON: {error}") from error
    if not isinstance(entry, dict):
        raise ConfigError(f"{where}: got a {type(entry).__name__}, expected an object")
    if ("prompt" in entry) == ("messages" in entry):
        raise ConfigError(f"{where}: expected either `prompt` or `messages`, got {_names(entry)}")
    name = str(entry.get("id", number))
    category = str(entry.get("category", ""))
    if "messages" in entry:
        messages = parse_messages(entry["messages"], where=where)
        return PromptLine(name=name, messages=messages, category=category)
    if not isinstance(entry["prompt"], str) or not entry["prompt"]:
        raise ConfigError(f"{where}: `prompt` must be a text that is not empty")
    messages = (Message(role="user", content=entry["prompt"]),)
    return PromptLine(name=name, messages=messages, category=category)


def parse_messages(value: Any, *, where: str) -> tuple[Message, ...]:
    """Return a conversation given as JSON: a list of objects with `role` and `content`.

    Raises:
        ConfigError: it is not that.
    """
    if not isinstance(value, list) or not value:
        raise ConfigError(f"{where}: `messages` must be a list that is not empty")
    messages = []
    for index, entry in enumerate(value):
        if not isinstance(entry, dict) or not isinstance(entry.get("content"), str):
            raise ConfigError(f"{where}: messages[{index}] must be an object with a text `content`")
        if entry.get("role") not in ROLES:
            raise ConfigError(
                f"{where}: messages[{index}].role: got {entry.get('role')!r}, expected one of {', '.join(ROLES)}"
            )
        messages.append(Message(role=entry["role"], content=entry["content"]))
    return tuple(messages)


def _names(entry: dict[str, Any]) -> str:
    return ", ".join(sorted(entry)) or "nothing"


class PromptFileType(click.ParamType[tuple[PromptLine, ...]]):
    """A prompt file on the command line, its prompts in the program."""

    name = "file"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[PromptLine, ...]:
        """Read the file."""
        if isinstance(value, tuple):
            return value
        try:
            return read_prompts(Path(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


PROMPT_FILE = PromptFileType()
