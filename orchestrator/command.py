"""`paceline orchestrator`: serves the fleet's control and dashboard, and asks a running one."""

import asyncio
from typing import Any
from urllib.parse import quote

import click

from orchestrator.options import (
    ask_options,
    ask_settings,
    orchestrator_settings,
    serve_options,
)
from paceline.control.messages import MAX_DRAFT_LENGTH


@click.group()
def orchestrator() -> None:
    """Tell every edge how far ahead to draft, and show the fleet.

    Edges and verifiers that are given the same --broker appear by themselves. Without the orchestrator, or its broker, they go
    on by themselves.
    """


@orchestrator.command()
@serve_options
def serve(**values: Any) -> None:
    """Plan for the fleet and serve the dashboard until Ctrl-C or SIGTERM.

    Without --broker a small broker runs in this process, for one machine. Prints one line when it is ready: "paceline
    orchestrator ready on http://HOST:PORT with broker HOST:PORT".

    On one machine: paceline orchestrator serve --history fleet.db

    For others: paceline orchestrator serve --broker mqtt:8883 --broker-ca ca.pem --listen 0.0.0.0:8090 --api-key-file key
    --tls-cert cert.pem --tls-key key.pem
    """
    settings = orchestrator_settings(values)
    # Only a call that serves pays for importing the broker and the rest; --help does not.
    from orchestrator.program import run  # noqa: PLC0415

    run(settings)


@orchestrator.command()
@click.argument("edge")
@ask_options
def explain(*, edge: str, **values: Any) -> None:
    """Say in a sentence why an edge drafts as far ahead as it does."""
    click.echo(_ask(values, _path(edge))["explanation"])


@orchestrator.command()
@ask_options
def status(**values: Any) -> None:
    """Show all verifiers and edges in tables."""
    fleet = _ask(values, "/api/fleet")
    from orchestrator.tables import show_fleet  # noqa: PLC0415 - rich is needed here only

    show_fleet(fleet)


@orchestrator.command()
@click.argument("edge")
@click.option(
    "--draft-length",
    type=click.IntRange(0, MAX_DRAFT_LENGTH),
    required=True,
    help="How many tokens deep the edge drafts until it is released.",
)
@ask_options
def pin(*, edge: str, draft_length: int, **values: Any) -> None:
    """Set an edge's draft length by hand, at once, until it is released."""
    _ask(values, f"{_path(edge)}/pin", body={"draft_length": draft_length})
    click.echo(f"{edge} drafts {draft_length} tokens ahead until it is released")


@orchestrator.command()
@click.argument("edge")
@ask_options
def release(*, edge: str, **values: Any) -> None:
    """Plan for an edge again that was pinned."""
    _ask(values, f"{_path(edge)}/release", body={})
    click.echo(f"{edge} is planned for again")


def _path(edge: str) -> str:
    return f"/api/edges/{quote(edge, safe='')}"


def _ask(
    values: dict[str, Any], path: str, *, body: dict[str, object] | None = None
) -> dict[str, Any]:
    settings = ask_settings(values)
    from orchestrator.asking import ask  # noqa: PLC0415 - aiohttp takes its time to import

    return asyncio.run(ask(settings, path, body=body))
