"""`paceline chat`: a conversation in the terminal."""

import contextlib
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

import click

from edge.control_options import control_options, passing_control_settings
from edge.generate import show_text, start
from edge.options import (
    AnswerSettings,
    agent_options,
    agent_settings,
    answer_options,
    answer_settings,
)
from paceline.client.client import Client
from paceline.console import LEGEND, TokenPrinter
from paceline.errors import PacelineError
from paceline.logs import mask_secrets
from paceline.prompts import Message, PromptLine

HELP = """\
Type a message and Enter. Ctrl-C stops an answer, Ctrl-D leaves.
  /help   this text
  /new    begin a new conversation
  /exit   leave, like Ctrl-D"""


@click.command()
@answer_options
@agent_options
@control_options
def chat(**values: Any) -> None:
    """Talk with the verifier's model.

    Every answer knows the whole conversation. Without --cloud a private verifier runs on this machine until you leave.
    Ctrl-C stops an answer, Ctrl-D leaves, /help tells the rest.

    Example: paceline chat --system "Answer in one sentence." --cloud gpu-box:50051
    """
    answers = answer_settings(values)
    agent = agent_settings(values)
    control = passing_control_settings(values)
    # PyTorch takes seconds to import; --help and a wrong flag must not wait for it.
    from edge.agent import open_agent  # noqa: PLC0415
    from edge.background import in_background  # noqa: PLC0415

    signal.signal(signal.SIGTERM, _terminate)
    with contextlib.suppress(
        ImportError
    ):  # not on every system; without it, lines cannot be edited
        __import__("readline")
    with in_background(open_agent(agent, control=control)) as background:
        printer = TokenPrinter()
        if sys.stdin.isatty():
            click.echo(HELP, err=True)
        if printer.is_colored:
            click.echo(click.style(LEGEND, dim=True), err=True)
        talk = Conversation(answers, printer=printer)
        at_terminal = sys.stdin.isatty()
        while (text := read_line()) is not None:
            # Where nobody sits, Ctrl-C means the command, not the answer.
            with contextlib.suppress(*([KeyboardInterrupt] if at_terminal else [])):
                if text.startswith("/"):
                    if not talk.command(text):
                        return
                elif text.strip():
                    background.call(talk.turn(background.resource.client, text))


class Conversation:
    """What has been said so far.

    Args:
        answers: how answers are drawn.
        printer: shows them.
    """

    def __init__(self, answers: AnswerSettings, *, printer: TokenPrinter) -> None:
        self._answers = answers
        self._printer = printer
        self.messages: list[Message] = []
        """All that was said, without the system message."""

    def command(self, text: str) -> bool:
        """Do what a line with a slash says; returns whether the conversation goes on."""
        match text.split(maxsplit=1)[0]:
            case "/exit" | "/quit":
                return False
            case "/new":
                self.messages.clear()
                click.echo("a new conversation begins", err=True)
            case "/help":
                click.echo(HELP, err=True)
            case unknown:
                click.echo(f"{unknown} is not known; /help lists what is", err=True)
        return True

    async def turn(self, client: Client, text: str) -> None:
        """Answer one message. What there is of a stopped answer stays in the conversation."""
        self.messages.append(Message(role="user", content=text))
        line = PromptLine(name="", messages=tuple(self.messages))
        try:
            generation = start(client, line, answers=self._answers)
            try:
                await show_text(generation, printer=self._printer)
            finally:
                self.messages.append(Message(role="assistant", content=generation.result.text))
        except PacelineError as error:
            # The conversation goes on without this message: a shorter one may fit, or the link may be back.
            del self.messages[-1]
            click.echo(f"paceline: {mask_secrets(str(error))}", err=True)


def read_line() -> str | None:
    """Return the next line that the user types, without its end; none if there are no more."""
    if not sys.stdin.isatty():
        line = sys.stdin.readline()
        return line.rstrip("\n") if line else None
    while True:
        try:
            return input("> ")
        except EOFError:
            click.echo(err=True)
            return None
        except KeyboardInterrupt:
            click.echo("\n(Ctrl-D leaves)", err=True)


def _terminate(number: int, frame: FrameType | None) -> NoReturn:
    """Leave by way of every `with`, so that the private verifier ends with us."""
    del frame
    raise SystemExit(128 + number)
