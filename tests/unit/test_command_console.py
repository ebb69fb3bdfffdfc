"""What a terminal and what a pipe gets to see."""

import io

import pytest

from paceline.console import Origin, TokenPrinter, progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLORTERM"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


def test_a_pipe_gets_the_text_and_nothing_else() -> None:
    out = io.StringIO()
    printer = TokenPrinter(out)
    printer.write("[bold] Hello\x07", Origin.DRAFT)
    printer.write(" world" * 40, Origin.CLOUD)
    printer.end_line()
    printer.end_line()
    assert out.getvalue() == "[bold] Hello\x07" + " world" * 40 + "\n"
    assert not printer.is_colored


def test_a_terminal_gets_colours_by_origin_and_no_control_codes() -> None:
    out = Terminal()
    printer = TokenPrinter(out)
    printer.write("[bold]dr\x1b[2Jaft\n", Origin.DRAFT)
    printer.write("cloud", Origin.CLOUD)
    printer.write("", Origin.DRAFT)
    text = out.getvalue()
    assert "\x1b[32m[bold]dr[2Jaft\x1b[0m\n" in text
    assert "\x1b[32mcloud" not in text
    assert text.endswith(("cloud", "cloud\x1b[0m"))
    assert printer.is_colored


def test_a_new_line_is_begun_only_when_needed() -> None:
    out = io.StringIO()
    printer = TokenPrinter(out)
    printer.end_line()
    printer.write("a\n", Origin.CLOUD)
    printer.end_line()
    assert out.getvalue() == "a\n"


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    out = Terminal()
    printer = TokenPrinter(out)
    printer.write("dr\x1b[2Jaft", Origin.DRAFT)
    assert out.getvalue() == "dr[2Jaft"
    assert not printer.is_colored


def test_progress_without_a_terminal_is_two_plain_lines() -> None:
    out = io.StringIO()
    with progress("loading [weights]", file=out) as step:
        step.advance(1, 2)
    assert out.getvalue() == "loading [weights] ...\nloading [weights]: done\n"


def test_progress_that_fails_does_not_say_done() -> None:
    out = io.StringIO()
    with pytest.raises(ZeroDivisionError), progress("loading", file=out):
        raise ZeroDivisionError
    assert out.getvalue() == "loading ...\n"


def test_progress_on_a_terminal_leaves_nothing_behind() -> None:
    out = Terminal()
    with progress("loading [weights]", file=out) as step:
        step.advance(1, 2)
    assert "loading [weights]" in out.getvalue()
    assert "done" not in out.getvalue()


def test_what_is_not_worth_a_line_is_shown_on_a_terminal_alone() -> None:
    for out, is_shown in ((Terminal(), True), (io.StringIO(), False)):
        with progress("reading", file=out, only_on_terminal=True) as step:
            step.advance(1, 2)
        assert ("reading" in out.getvalue()) is is_shown
