"""Logs: one line per event on stderr, fields as key=value, secrets masked.

    2026-01-31T12:00:00.123Z INFO cloud.service session opened session=7f3a prompt_tokens=12

or, with --log-format json, one JSON object per line with the fields as its members:

    {"time": "2026-01-31T12:00:00.123Z", "level": "INFO", "logger": "cloud.service", "message": "session opened", ...}

Fields are passed as `extra`: log.info("session opened", extra={"prompt_tokens": 12}). Both sides name a session by
`paceline.tokens.log_name` under the key `session`. docs/observability.md lists what is logged.
"""

import json
import logging
import math
import re
import sys
from collections.abc import Mapping
from datetime import UTC, datetime

from paceline.clock import Clock

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("text", "json")

MASK = "***"
_SECRET_NAME = re.compile(
    r"(^|_)(token|secret|password|authorization|api_key|private_key)$", re.IGNORECASE
)
_SECRET_TEXT = re.compile(
    r"(?P<name>\b(?:bearer|authorization:|api[_-]?key[=:]|token[=:]|secret[=:]|password[=:]))(?P<gap>\s*)"
    r"(?P<value>(?!bearer\b)[^\s,;\"']+)",
    re.IGNORECASE,
)
# What every record has; everything else in it came in as `extra`.
_STANDARD_FIELDS = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PLAIN_VALUE = re.compile(r"[\w.:/@+\-\[\]]+")


class LineFormatter(logging.Formatter):
    """Formats a record as one line."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        stamp = _stamp(record)
        parts = [stamp, record.levelname, record.name, mask_secrets(record.getMessage())]
        parts += [f"{name}={_field(name, value)}" for name, value in _fields(record).items()]
        if record.exc_info:
            parts.append(f"error={_quoted(mask_secrets(self.formatException(record.exc_info)))}")
        return _printable(" ".join(parts))


class JsonFormatter(logging.Formatter):
    """Formats a record as one JSON object; a field cannot hide what every line has."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, without its end."""
        line: dict[str, object] = {
            name: _plain(name, value) for name, value in _fields(record).items()
        }
        if record.exc_info:
            line["error"] = mask_secrets(self.formatException(record.exc_info))
        own = {
            "time": _stamp(record),
            "level": record.levelname,
            "logger": record.name,
            "message": mask_secrets(record.getMessage()),
        }
        return json.dumps(own | {name: value for name, value in line.items() if name not in own})


class BoundedLog:
    """Writes lines that a peer can cause: at most `burst` at once and `per_s` in the long run.

    What is left out is counted and told with the next line that is written, as the field `left_out`.

    Args:
        log: where lines go.
        clock: the time.
        burst: at least 1.
        per_s: lines per second; more than 0.
    """

    def __init__(self, log: logging.Logger, *, clock: Clock, burst: int, per_s: float) -> None:
        self._log = log
        self._clock = clock
        self._burst = burst
        self._per_s = per_s
        self._room = float(burst)
        self._filled_at_s = clock.now_s()
        self._num_left_out = 0

    def info(self, message: str, fields: Mapping[str, object]) -> None:
        """Write a line of level info, if there is room."""
        self._write(logging.INFO, message, fields)

    def warning(self, message: str, fields: Mapping[str, object]) -> None:
        """Write a line of level warning, if there is room."""
        self._write(logging.WARNING, message, fields)

    def _write(self, level: int, message: str, fields: Mapping[str, object]) -> None:
        if not self._log.isEnabledFor(level):
            return
        now_s = self._clock.now_s()
        filled = self._room + (now_s - self._filled_at_s) * self._per_s
        self._room, self._filled_at_s = min(float(self._burst), filled), now_s
        if self._room < 1.0:
            self._num_left_out += 1
            return
        self._room -= 1.0
        left_out = {"left_out": self._num_left_out} if self._num_left_out else {}
        self._num_left_out = 0
        self._log.log(level, message, extra={**fields, **left_out})


def configure_logging(level: str, *, form: str = "text") -> None:
    """Send the logs of the whole process to stderr as single lines.

    Args:
        level: one of LEVELS. Libraries stay at warning unless it is debug.
        form: one of FORMATS.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else LineFormatter())
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if level == "debug" else logging.WARNING)
    for program in ("paceline", "edge", "cloud", "orchestrator", "simulator"):
        logging.getLogger(program).setLevel(level.upper())


def mask_secrets(text: str) -> str:
    """Return the text with bearer tokens, API keys and passwords replaced."""
    return _SECRET_TEXT.sub(rf"\g<name>\g<gap>{MASK}", text)


def _stamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, tz=UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {name: value for name, value in vars(record).items() if name not in _STANDARD_FIELDS}


def _plain(name: str, value: object) -> object:
    """Return a field's value as JSON has it: numbers and truth values as they are, anything else as masked text."""
    if _SECRET_NAME.search(name):
        return MASK
    if value is None or isinstance(value, bool | int):
        return value
    if isinstance(value, float) and math.isfinite(value):
        return value  # JSON has no word for the others
    return mask_secrets(str(value))


def _field(name: str, value: object) -> str:
    if _SECRET_NAME.search(name):
        return MASK
    text = mask_secrets(f"{value:.6g}" if isinstance(value, float) else str(value))
    return text if _PLAIN_VALUE.fullmatch(text) else _quoted(text)


def _printable(text: str) -> str:
    """Return the text with line ends, and what else would steer a terminal, written as escapes: peers say part of it."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
