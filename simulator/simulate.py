"""`paceline simulate`: a fleet, and with sub-commands small worlds in virtual time; also `python -m simulator.simulate`."""

import importlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from cloud.scheduler import Schedule, SchedulerSettings
from edge.steering import LengthPolicy
from paceline.client.settings import DraftingSettings
from paceline.console import progress
from paceline.errors import ConfigError
from paceline.settings import DURATION
from simulator.acceptance.recordings import cost_names, recorded_costs, recorded_trace, trace_names
from simulator.calibration.cost_file import Calibration, read_costs
from simulator.cost import StepCost
from simulator.fleet.figures import figures
from simulator.fleet.mix import EXAMPLE, parse_mix, read_mix
from simulator.fleet.people import People
from simulator.fleet.picture import check_picture, draw
from simulator.fleet.report import report
from simulator.fleet.run import FleetSettings, run_fleet
from simulator.fleet.settings import DrafterModel, VerifierModel

NO_DRAFT = "none"
PEOPLE = People(every_s=1.0)
"""As they are if nobody says otherwise."""
DRAFT_TIME_S = 0.007
"""What a forward pass of the distilled draft took that was recorded with the default costs."""

SUB_COMMANDS = {
    "faults": ("simulator.faults_command", "Let things go wrong in many small worlds."),
    "session": ("simulator.timeline.command", "Answer one question, and draw a timeline."),
}
"""Where they are, and what the list of them says: they import PyTorch and gRPC, a fleet needs neither."""


class SimulateGroup(click.Group):
    """A group that imports a sub-command when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of the sub-commands."""
        del ctx
        return list(SUB_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a sub-command."""
        del ctx
        if cmd_name not in SUB_COMMANDS:
            return None
        command = getattr(importlib.import_module(SUB_COMMANDS[cmd_name][0]), cmd_name)
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the list of sub-commands without importing any of them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, told) for name, (_, told) in SUB_COMMANDS.items()])


def _print_mix(ctx: click.Context, param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's
    del param
    if value:
        click.echo(EXAMPLE.read_text(encoding="utf-8"), nl=False)
        ctx.exit()


@click.group(cls=SimulateGroup, invoke_without_command=True)
@click.option("--edges", type=click.IntRange(min=1), default=10_000, help="Number of edges.")
@click.option("--verifiers", type=click.IntRange(min=1), default=40, help="Number of verifiers.")
@click.option(
    "--minutes", type=click.FloatRange(min=0.0, min_open=True), default=10.0, help="Simulated time."
)
@click.option(
    "--network",
    metavar="FILE|TEXT",
    help="A mix of networks (.toml), or one for all, lte for example.  [the mix of --example-mix]",
)
@click.option(
    "--example-mix",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_mix,
    help="Print a mix of networks to begin with.",
)
@click.option(
    "--draft",
    type=click.Choice([*trace_names(), NO_DRAFT]),
    default="lookup",
    help="Whose recorded guesses the edges draft with.",
)
@click.option(
    "--acceptance",
    type=click.FloatRange(0.0, 1.0),
    help="Instead: guesses that are right with this chance, each for itself.",
)
@click.option(
    "--draft-time",
    type=DURATION,
    help=f"Of a drafted token.  [as recorded; {DRAFT_TIME_S * 1e3:g}ms with --acceptance]",
)
@click.option(
    "--draft-length",
    type=click.IntRange(min=1),
    help="How far ahead to draft, always.  [as the edge's own controller chooses]",
)
@click.option(
    "--costs",
    type=click.Path(path_type=Path, dir_okay=False),
    help="What steps cost: a file of `paceline calibrate`.  [one core of a Xeon, SmolLM2-135M]",
)
@click.option(
    "--load",
    type=click.FloatRange(min=0.0, min_open=True, max=10.0),
    default=0.7,
    help="Tokens asked for, as a part of the most that the verifiers can commit; sets how often edges ask.",
)
@click.option("--every", type=DURATION, help="Mean time between questions of an edge, instead.")
@click.option("--prompt-tokens", type=float, default=PEOPLE.prompt_tokens, help="Mean length.")
@click.option("--answer-tokens", type=float, default=PEOPLE.answer_tokens, help="Mean length.")
@click.option("--max-sessions", type=click.IntRange(min=1), default=64, help="Seats of a verifier.")
@click.option("--row-budget", type=click.IntRange(min=2), default=128, help="Most rows of a step.")
@click.option("--race/--no-race", default=True, help="Verifiers go on while drafts are late.")
@click.option(
    "--price",
    type=click.FloatRange(min=0.0),
    default=1.0,
    help="Of an hour of a verifier, in your currency; with 1 the cost is in verifier-hours.",
)
@click.option("--compare/--no-compare", default=True, help="Run it without drafts as well.")
@click.option("--warm-up", type=DURATION, default="2min", help="Simulated before anything counts.")
@click.option("--seed", type=click.IntRange(min=0), default=0, help="The same one, the same bytes.")
@click.option(
    "--processes",
    type=click.IntRange(min=1),
    default=os.cpu_count() or 1,
    show_default="one for each core",
    help="How many share the work.",
)
@click.option(
    "--json",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write all figures to this file.",
)
@click.option(
    "--plot",
    "plot_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Draw a picture, .png or .svg (needs matplotlib).",
)
@click.pass_context
def simulate(ctx: click.Context, /, **options: Any) -> None:
    """Simulate a fleet: thousands of edges on some verifiers, at the level of steps.

    Prints tokens/s by network beside plain streaming, load and queueing of the verifiers, what became of drafts, and the
    price of tokens; docs/fleet.md says how it is modelled and how far off it is.
    """
    if ctx.invoked_subcommand is not None:
        return
    if options["plot_file"] is not None:
        check_picture(options["plot_file"])
    settings = _settings(options)
    with progress(f"{settings.num_edges} edges, {settings.num_verifiers} verifiers") as step:
        run = run_fleet(settings, num_processes=options["processes"], progress=step.advance)
    told = figures(run, price_per_hour=options["price"])
    click.echo("\n".join(report(told)))
    if options["json_file"] is not None:
        text = json.dumps(told, indent=1, sort_keys=True) + "\n"
        options["json_file"].write_text(text, encoding="utf-8")
    if options["plot_file"] is not None:
        draw(told, options["plot_file"])


def _settings(options: dict[str, Any]) -> FleetSettings:
    """Return what the options mean.

    Raises:
        ConfigError: a file cannot be read, or a value is wrong.
    """
    network, every_s = options["network"], options["every"]
    (first, *_) = cost_names()
    costs = read_costs(options["costs"]) if options["costs"] else recorded_costs(first)
    most = max(PEOPLE.most_tokens, *(int(options[f"{one}_tokens"]) for one in ("prompt", "answer")))
    return FleetSettings(
        mix=read_mix(network) if network else parse_mix(EXAMPLE.read_text(encoding="utf-8")),
        verifier=VerifierModel(
            cost=costs.target.cost,
            spread=costs.target.spread,
            scheduler=SchedulerSettings(
                row_budget=options["row_budget"], race=options["race"], schedule=Schedule.EVEN
            ),
            max_sessions=options["max_sessions"],
        ),
        drafter=_drafter(options, costs),
        people=People(
            every_s=every_s or 1.0,
            prompt_tokens=options["prompt_tokens"],
            answer_tokens=options["answer_tokens"],
            most_tokens=most,
        ),
        load=None if every_s else options["load"],
        num_edges=options["edges"],
        num_verifiers=options["verifiers"],
        lasts_s=options["minutes"] * 60.0,
        warm_up_s=options["warm_up"],
        compare=options["compare"],
        seed=options["seed"],
    )


def _drafter(options: dict[str, Any], costs: Calibration) -> DrafterModel | None:
    """Return how edges draft; None if they do not.

    Raises:
        ConfigError: the costs say nothing of the draft.
    """
    name, pass_s, length = options["draft"], options["draft_time"], options["draft_length"]
    if options["acceptance"] is not None:
        drafter = DrafterModel(
            cost=StepCost(fixed_s=pass_s or DRAFT_TIME_S, per_row_s=0.0),
            acceptance=options["acceptance"],
        )
    elif name == NO_DRAFT:
        return None
    else:
        trace = recorded_trace(name)
        known = {draft.name: draft for draft in costs.drafts}
        if pass_s is not None:
            drafter = DrafterModel(cost=StepCost(fixed_s=pass_s, per_row_s=0.0), trace=trace)
        elif trace.draft in known:
            fitted = known[trace.draft]
            drafter = DrafterModel(cost=fitted.cost, spread=fitted.spread, trace=trace)
        else:
            raise ConfigError(
                f"--draft {name}: the costs have {', '.join(known) or 'no draft'}, but not {trace.draft}; "
                "give --draft-time"
            )
    if length is None:
        return drafter
    drafting = DraftingSettings(draft_length=length, window=max(64, 2 * length))
    return replace(drafter, drafting=drafting, length_policy=LengthPolicy.FIXED)


if __name__ == "__main__":
    simulate()
