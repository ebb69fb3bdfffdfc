"""`--timeline`: what one answer did when, written to a file when it is over."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from edge.options import NO_DRAFT, AgentSettings
from paceline.client.session_trace import SessionTrace
from paceline.timeline.facts import disguised
from paceline.timeline.writing import HELP, check_file, write

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True, kw_only=True)
class TimelineFile:
    """Where a timeline goes, and what it is made from.

    Raises:
        ConfigError: it could not be written later; see `paceline.timeline.writing.check_file`.
    """

    path: Path
    with_tokens: bool = False
    """Token ids are the user's text: they are left out unless asked for."""
    trace: SessionTrace = field(default_factory=SessionTrace)

    def __post_init__(self) -> None:
        """Check the file."""
        check_file(self.path)

    def save(self, agent: AgentSettings) -> None:
        """Write what was noted, if anything was.

        Raises:
            ConfigError: the file cannot be written.
        """
        facts = self.trace.facts()
        if not facts.facts:
            return  # it failed before anything was asked
        write(
            facts if self.with_tokens else disguised(facts),
            self.path,
            title=f"paceline generate: {_drafting(agent)}",
        )
        click.echo(click.style(f"timeline: {self.path}", dim=True), err=True)


def timeline_options(command: Command) -> Command:
    """Add `--timeline` and `--timeline-tokens`; `timeline_file` reads them."""
    file = click.Path(path_type=Path, dir_okay=False)
    with_tokens = click.option(
        "--timeline-tokens",
        is_flag=True,
        help="Put token ids, and so the text, into the timeline.",
    )
    return click.option("--timeline", type=file, help=HELP)(with_tokens(command))


def timeline_file(values: dict[str, Any]) -> TimelineFile | None:
    """Take the options out of the values; return None if no timeline is wanted.

    Raises:
        ConfigError: the file could not be written later.
    """
    path: Path | None = values.pop("timeline")
    with_tokens: bool = values.pop("timeline_tokens")
    return None if path is None else TimelineFile(path=path, with_tokens=with_tokens)


def _drafting(agent: AgentSettings) -> str:
    if agent.draft == NO_DRAFT:
        return "no drafts"
    draft = Path(agent.draft).name
    policy, length = agent.length_policy, agent.drafting.draft_length
    return f"drafter {draft}, draft length {length}, policy {policy}"
