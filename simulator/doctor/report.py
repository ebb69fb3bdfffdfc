"""Shows checks as they come: coloured marks on a terminal, plain words elsewhere, one object for programs."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import TextIO

from rich.console import Console
from rich.text import Text

from paceline.logs import mask_secrets
from paceline.settings import color_wanted
from simulator.doctor.verdicts.check import Check, Status

_MARKS = {
    Status.OK: ("\N{CHECK MARK}", "green"),
    Status.WARN: ("!", "yellow"),
    Status.FAIL: ("\N{BALLOT X}", "bold red"),
    Status.SKIPPED: ("-", "dim"),
}


class Report:
    """Writes checks for people, one after another."""

    def __init__(self, file: TextIO) -> None:
        self._console = Console(file=file, no_color=not color_wanted(), highlight=False)
        encoding = (file.encoding or "ascii").lower().replace("-", "")
        self._has_marks = self._console.is_terminal and encoding == "utf8"

    def show(self, check: Check) -> None:
        """Write one check, and below it what to do."""
        mark, style = _MARKS[check.status]
        if not self._has_marks:
            mark = f"{check.status.upper():7}"
        # Text, not markup: what a peer says must not be read as "[bold]".
        line = Text.assemble((mark, style), " ", (check.name, "bold"), ": ", _plain(check.found))
        self._console.print(line, soft_wrap=True)
        if check.advice:
            indent = " " * (len(mark) + 1)
            self._console.print(Text(f"{indent}-> {_plain(check.advice)}"), soft_wrap=True)

    def conclude(self, checks: Sequence[Check]) -> None:
        """Write the last line."""
        counts = {status: sum(check.status is status for check in checks) for status in Status}
        told = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
        verdict = "Something is wrong, see above" if counts[Status.FAIL] else "Nothing is wrong"
        self._console.print(Text(f"{verdict}: {told}."), soft_wrap=True)


def as_json(checks: Sequence[Check]) -> str:
    """Return all checks as one object: {"ok": bool, "checks": [{"name", "status", "found", "advice"}, ...]}."""
    entries = [{key: _plain(value) for key, value in asdict(check).items()} for check in checks]
    return json.dumps({"ok": is_well(checks), "checks": entries}, indent=2)


def is_well(checks: Sequence[Check]) -> bool:
    """Return whether nothing failed."""
    return all(check.status is not Status.FAIL for check in checks)


def _plain(text: str) -> str:
    """Return a text on one line, without control codes and secrets: a peer may have written it."""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return mask_secrets(" ".join(printable.split()))
