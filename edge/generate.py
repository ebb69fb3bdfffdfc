"""`paceline generate`: one answer per prompt, streamed into the terminal."""

import contextlib
import json
import secrets
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edge.control_options import control_options, passing_control_settings
from edge.options import (
    AnswerSettings,
    agent_options,
    agent_settings,
    answer_options,
    answer_settings,
)
from edge.summary import answer_object, summary_line
from edge.timeline import timeline_file, timeline_options
from paceline.client.client import Client
from paceline.client.generation import Generation
from paceline.client.session_trace import SessionTrace
from paceline.console import LEGEND, Origin, TokenPrinter, progress
from paceline.errors import ConfigError
from paceline.prompts import PROMPT_FILE, Message, PromptLine

if TYPE_CHECKING:
    from edge.agent import Agent


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSettings:
    """How answers are shown."""

    as_json: bool = False
    """One JSON object per answer, nothing else on stdout."""

    json_file: Path | None = None
    """Gets the JSON objects as well, whatever is shown."""

    raw: bool = False
    """Go on from the prompt as it stands, without the model's chat template."""


@click.command()
@click.argument("prompt", required=False)
@click.option(
    "--prompts",
    type=PROMPT_FILE,
    help="JSON lines, each with `prompt` or `messages`, instead of PROMPT; - is standard input.",
)
@click.option("--json", "as_json", is_flag=True, help="Write one JSON object per answer.")
@click.option(
    "--json-file",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write the JSON objects to this file, besides what is shown.",
)
@click.option("--raw", is_flag=True, help="Continue PROMPT itself, without a chat template.")
@timeline_options
@answer_options
@agent_options
@control_options
def generate(
    *,
    prompt: str | None,
    prompts: tuple[PromptLine, ...] | None,
    as_json: bool,
    json_file: Path | None,
    raw: bool,
    **values: Any,
) -> None:
    """Answer a prompt with the verifier's model.

    Tokens appear as they become final, coloured by where they came from. Without --cloud a private verifier runs on
    this machine for as long as the answer takes. With --broker it takes part in the control plane for as long, as the
    edge that --edge-id names.

    Example: paceline generate "Why is the sky blue?" --max-tokens 100
    """
    if (prompt is None) == (prompts is None):
        raise click.UsageError("Give either PROMPT or --prompts FILE.")
    if prompt == "":
        raise click.UsageError("PROMPT is empty; write a text to answer.")
    answers = answer_settings(values)
    lines = prompts or (
        PromptLine(name="1", messages=(Message(role="user", content=prompt or ""),)),
    )
    output = OutputSettings(as_json=as_json, json_file=json_file, raw=raw)
    for line in lines:
        check_line(line, answers=answers, output=output)
    timeline = timeline_file(values)
    if timeline is not None and len(lines) > 1:
        raise click.UsageError("--timeline shows one answer; give one prompt.")
    agent = agent_settings(values)
    control = passing_control_settings(values)
    # PyTorch takes seconds to import; --help and a wrong flag must not wait for it.
    from edge.agent import open_agent  # noqa: PLC0415
    from edge.running import run  # noqa: PLC0415

    opening = open_agent(agent, control=control)
    trace = None if timeline is None else timeline.trace
    try:
        run(_generate(lines, opening=opening, answers=answers, output=output, trace=trace))
    finally:
        if timeline is not None:
            timeline.save(agent)


async def _generate(
    lines: tuple[PromptLine, ...],
    *,
    opening: "AbstractAsyncContextManager[Agent]",
    answers: AnswerSettings,
    output: OutputSettings,
    trace: SessionTrace | None = None,
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        # Opened first: a file that cannot be written is told before anything slow starts.
        file = output.json_file and stack.enter_context(
            output.json_file.open("w", encoding="utf-8")
        )
        opened = await stack.enter_async_context(opening)
        printer = TokenPrinter()
        if printer.is_colored and not output.as_json:
            click.echo(click.style(LEGEND, dim=True), err=True)
        for line in lines:
            generation = start(opened.client, line, answers=answers, raw=output.raw, trace=trace)
            if not output.as_json:
                if len(lines) > 1:
                    click.echo(click.style(f"[{line.name}]", bold=True), err=True)
                await show_text(generation, printer=printer)
            else:
                await show(generation, printer=None)
            data = json.dumps(answer_object(generation.result, name=line.name), ensure_ascii=False)
            if output.as_json:
                click.echo(data)
            if file:
                click.echo(data, file=file)


def start(
    client: Client,
    line: PromptLine,
    *,
    answers: AnswerSettings,
    raw: bool = False,
    trace: SessionTrace | None = None,
) -> Generation:
    """Return the generation of one answer, to be entered.

    Raises:
        InvalidRequestError: a setting is out of its range, or the model has no chat template.
    """
    return client.generate(
        messages=None if raw else conversation(line, system=answers.system),
        prompt=line.messages[0].content if raw else None,
        max_tokens=answers.max_tokens,
        sampling=answers.sampling(random_seed=secrets.randbits(63)),
        stop=answers.stop,
        trace=trace,
    )


async def show_text(generation: Generation, *, printer: TokenPrinter) -> None:
    """Show an answer with the line that ends it.

    Raises:
        PacelineError: it failed.
    """
    try:
        await show(generation, printer=printer)
    finally:
        printer.end_line()
    click.echo(click.style(summary_line(generation.statistics), dim=True), err=True)


async def show(generation: Generation, *, printer: TokenPrinter | None) -> None:
    """Run a generation to its end, with its pieces printed as they come.

    Until the first one comes, a terminal shows that the prompt is being read.

    Raises:
        PacelineError: it failed.
    """
    async with generation:
        with contextlib.ExitStack() as waiting:
            waiting.enter_context(progress(_reading(generation), only_on_terminal=True))
            async for piece in generation:
                waiting.close()
                if printer is None:
                    continue
                printer.write(piece.text, Origin.DRAFT if piece.accepted else Origin.CLOUD)


def _reading(generation: Generation) -> str:
    return f"reading the prompt, {len(generation.prompt_ids)} tokens"


def conversation(line: PromptLine, *, system: str | None) -> tuple[Message, ...]:
    """Return the messages of a prompt, with the system message first unless it brings its own."""
    if system is None or line.messages[0].role == "system":
        return line.messages
    return (Message(role="system", content=system), *line.messages)


def check_line(line: PromptLine, *, answers: AnswerSettings, output: OutputSettings) -> None:
    """Refuse what --raw cannot do.

    Raises:
        ConfigError: a conversation, or a system message, and no chat template to put it into.
    """
    if not output.raw:
        return
    if answers.system is not None:
        raise ConfigError("--raw: a system message needs the chat template; leave out --system")
    if len(line.messages) != 1 or line.messages[0].role != "user":
        raise ConfigError(f"--raw: prompt {line.name} is a conversation; give it as `prompt`")
