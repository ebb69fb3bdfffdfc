"""Logs: one line per event on stderr, fields as key=value, secrets masked.

    2026-01-31T12:00:00.123Z INFO cloud.service session opened session=7f3a prompt_tokens=12

Fields are passed as `extra`: log.info("session opened", extra={"prompt_tokens": 12}).
"""

import logging
import re
import sys
from datetime import UTC, datetime

LEVELS = ("debug", "info", "warning", "error")

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
        moment = datetime.fromtimestamp(record.created, tz=UTC)
        stamp = moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"
        parts = [stamp, record.levelname, record.name, mask_secrets(record.getMessage())]
        parts += [
            f"{name}={_field(name, value)}"
            for name, value in vars(record).items()
            if name not in _STANDARD_FIELDS
        ]
        if record.exc_info:
            parts.append(f"error={_quoted(mask_secrets(self.formatException(record.exc_info)))}")
        return " ".join(part.replace("\n", "\\n").replace("\r", "\\r") for part in parts)


def configure_logging(level: str) -> None:
    """Send the logs of the whole process to stderr as single lines.

    Args:
        level: one of LEVELS. Libraries stay at warning unless it is debug.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
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


def _field(name: str, value: object) -> str:
    if _SECRET_NAME.search(name):
        return MASK
    text = mask_secrets(f"{value:.6g}" if isinstance(value, float) else str(value))
    return text if _PLAIN_VALUE.fullmatch(text) else _quoted(text)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
