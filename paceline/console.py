"""What people see: progress of slow preparations, and tokens coloured by where they came from.

On a terminal these are bars and colours; anywhere else plain lines, so that a log or a pipe stays readable. Progress
goes to stderr, text to stdout.
"""

import sys
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from typing import Protocol, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from paceline.settings import color_wanted


class Origin(StrEnum):
    """Where a committed token came from."""

    DRAFT = "draft"
    """Drafted at the edge and accepted."""

    CLOUD = "cloud"
    """The target's own."""


STYLES = {Origin.DRAFT: "green", Origin.CLOUD: "default"}
LEGEND = "green: drafted here and accepted; plain: the cloud's own"


class Step(Protocol):
    """One slow preparation under way."""

    def advance(self, done: int, total: int) -> None:
        """Tell how far it is: 0 <= done <= total, in any unit."""
        ...


class TokenPrinter:
    """Writes streamed text at once, with a style for where it came from if the output is a terminal."""

    def __init__(self, file: TextIO | None = None) -> None:
        file = file or sys.stdout
        self._file = file
        self._console = _console(file)
        self._at_line_start = True

    @property
    def is_colored(self) -> bool:
        """Colours are shown, so a legend helps."""
        return self._console.is_terminal and not self._console.no_color

    def write(self, text: str, origin: Origin) -> None:
        """Write a piece of the text; it may be empty or end within a word."""
        if not text:
            return
        if self._console.is_terminal:
            # Text, not markup: what a model writes must not be read as "[bold]". Control codes other than line
            # ends and tabs are dropped for the same reason, also where NO_COLOR is set.
            shown = "".join(
                char for char in text if char in "\n\t" or unicodedata.category(char) != "Cc"
            )
            self._console.print(Text(shown, style=STYLES[origin]), end="", soft_wrap=True)
        else:
            self._file.write(text)
        self._file.flush()
        self._at_line_start = text.endswith("\n")

    def end_line(self) -> None:
        """Begin a new line unless the text has just done so."""
        if not self._at_line_start:
            self._file.write("\n")
            self._file.flush()
            self._at_line_start = True


@contextmanager
def progress(
    what: str, *, file: TextIO | None = None, only_on_terminal: bool = False
) -> Iterator[Step]:
    """Show a slow preparation, "loading weights" for example, while the body runs.

    Args:
        what: said to the user, in the lower case of a running sentence.
        file: stderr if not given.
        only_on_terminal: say nothing elsewhere: it is not worth a line in a log.
    """
    console = _console(file or sys.stderr)
    if not console.is_terminal and only_on_terminal:
        yield _Silent()
        return
    if not console.is_terminal:
        console.print(Text(f"{what} ..."), soft_wrap=True)
        yield _Silent()
        console.print(Text(f"{what}: done"), soft_wrap=True)
        return
    bar = Progress(
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    )
    with bar:
        yield _Bar(bar, what)


class _Silent:
    """Progress where nobody watches: begin and end are enough."""

    def advance(self, done: int, total: int) -> None:
        del done, total


class _Bar:
    """Progress on a terminal; pulses until the total is known."""

    def __init__(self, bar: Progress, what: str) -> None:
        self._bar = bar
        self._task = bar.add_task(what, total=None)

    def advance(self, done: int, total: int) -> None:
        self._bar.update(self._task, completed=done, total=total)


def _console(file: TextIO) -> Console:
    return Console(file=file, no_color=not color_wanted(), highlight=False)
