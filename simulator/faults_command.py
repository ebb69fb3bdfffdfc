"""`paceline simulate faults`: schedules of faults in small worlds."""

import os
import sys

import click

from paceline.console import progress
from simulator.virtual.campaign import Report, campaign, explained, replay_command
from simulator.virtual.faults import drawn

SHOWN = 5
"""Failures that are told in full."""


@click.command()
@click.option(
    "--seed", type=click.IntRange(min=0), help="Try this schedule only, and tell all of it."
)
@click.option(
    "--first", type=click.IntRange(min=0), default=0, show_default=True, help="First seed."
)
@click.option("--count", type=click.IntRange(min=1), default=1000, show_default=True, help="Seeds.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="one for each core",
    help="How many share the work.",
)
@click.option("--coverage", is_flag=True, help="Fail if some fault never met some state.")
def faults(*, seed: int | None, first: int, count: int, processes: int, coverage: bool) -> None:
    """Let things go wrong in many small worlds, and check that nothing is lost, doubled or stuck.

    Two edges, two verifiers, at least three faults in each. Exit status 1 if anything is wrong.
    """
    if seed is not None:
        lines = explained(drawn(seed), smaller=True)
        click.echo("\n".join(lines))
        sys.exit(any(line.startswith("WRONG") for line in lines))
    done = 0
    with progress(f"{count} schedules") as step:

        def more(size: int) -> None:
            nonlocal done
            done += size
            step.advance(done, count)

        report = campaign(first=first, count=count, num_processes=processes, progress=more)
    click.echo("\n".join(report.coverage.lines()))
    _tell(report)
    for failure in report.failures[:SHOWN]:
        click.echo(f"\n{'-' * 80}")
        click.echo("\n".join(explained(drawn(failure.seed), smaller=True)))
    for failure in report.failures[SHOWN:]:
        click.echo(
            f"{failure.wrongs[0].splitlines()[0]}; replay it: {replay_command(failure.seed)}"
        )
    empty = [f"{kind} in {state}" for kind, state in report.coverage.empty]
    if empty:
        click.echo(f"never met: {', '.join(empty)}")
    sys.exit(bool(report.failures) or (coverage and bool(empty)))


def _tell(report: Report) -> None:
    click.echo(
        f"seeds {report.first} to {report.first + report.count - 1}: {report.count} schedules, "
        f"{report.num_faults} faults, {report.num_tokens} tokens, {report.num_messages} messages; "
        f"{len(report.failures)} went wrong"
    )
