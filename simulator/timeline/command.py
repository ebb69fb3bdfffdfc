"""`paceline simulate session`: one answer in virtual time, in figures and as a timeline."""

from pathlib import Path
from typing import Any

import click

from paceline.client.settings import DraftingSettings
from paceline.timeline.building import timeline_of
from paceline.timeline.facts import disguised
from paceline.timeline.value import Reference, Timeline
from paceline.timeline.writing import HELP, check_file, write
from simulator.acceptance.recordings import cost_names, recorded_costs, recorded_trace, trace_names
from simulator.calibration.cost_file import Calibration, read_costs
from simulator.cost import StepCost
from simulator.notation import parse_network
from simulator.timeline.session import SessionPlan, run_session
from simulator.virtual.draft import DraftSettings
from simulator.virtual.model import ModelSettings


@click.command()
@click.option(
    "--network",
    default="wan",
    metavar="TEXT",
    help="A profile, rtt=80ms,loss=1% or both: docs/link.md.",
)
@click.option("--tokens", type=click.IntRange(1, 4000), default=64, help="Tokens of the answer.")
@click.option("--prompt-tokens", type=click.IntRange(1, 2000), default=32, help="Of the question.")
@click.option(
    "--draft-length",
    type=click.IntRange(min=0),
    default=8,
    help="How many tokens deep to draft.",
)
@click.option(
    "--tokens-per-message", type=click.IntRange(min=1), default=4, help="Most drafted at a time."
)
@click.option(
    "--acceptance",
    type=click.FloatRange(0.0, 1.0),
    default=0.7,
    help="Chance that a guess is right.",
)
@click.option(
    "--guesses",
    type=click.Choice(trace_names()),
    help="Right where a recorded drafter was right, instead of --acceptance.",
)
@click.option(
    "--draft-ms", type=click.FloatRange(min=0.01), default=4.0, help="A draft token takes so long."
)
@click.option(
    "--step-ms",
    type=click.FloatRange(min=0.01),
    default=40.0,
    help="A step of the target takes so long.",
)
@click.option(
    "--row-ms", type=click.FloatRange(min=0.0), default=0.5, help="And so long for each row."
)
@click.option(
    "--costs",
    metavar="FILE",
    help="Costs of the target instead, as `paceline calibrate` wrote them, or one of: "
    + ", ".join(cost_names())
    + ".",
)
@click.option(
    "--neighbours", type=click.IntRange(0, 200), default=0, help="Others who ask the same verifier."
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of everything that is chance.")
@click.option("--timeline", type=click.Path(path_type=Path, dir_okay=False), help=HELP)
@click.option(
    "--timeline-tokens", is_flag=True, help="With token ids in it; without, only which were right."
)
def session(*, timeline: Path | None, timeline_tokens: bool, **values: Any) -> None:
    """Answer one question in virtual time, with drafts and without.

    The client, its session, the verifier's scheduler and the wire are the real ones; time, network and models are
    simulated. The same options give the same answer.

    Example: paceline simulate session --network lte --draft-length 8 --seed 1 --timeline session.png
    """
    if timeline is not None:
        check_file(timeline)
    plan = _plan(values)
    ran = run_session(plan)
    facts = ran.facts if timeline_tokens else disguised(ran.facts)
    title = _title(plan)
    if timeline is None:
        made = timeline_of(facts, title=title)
    else:
        made = write(facts, timeline, title=title, reference=ran.plain)
    for line in summary(made, plain=ran.plain):
        click.echo(line)
    if timeline is not None:
        click.echo(f"wrote {timeline}")


def summary(timeline: Timeline, *, plain: Reference) -> list[str]:
    """Return the figures in a few lines, and what drafting brought."""
    figures, plain_s = timeline.figures, plain.times_s[-1]
    first_ms, plain_rate = figures.first_token_s * 1000, len(plain.times_s) / plain_s
    streaming = f"{len(plain.times_s)} tokens in {plain_s * 1000:.0f} ms: {plain_rate:.1f} tokens/s"
    times = plain_s / figures.duration_s
    return [
        timeline.title,
        f"with drafts: {figures.sentence()}; first token after {first_ms:.0f} ms",
        f"plain streaming in the same world: {streaming}; drafts make it {times:.2f} times as fast",
    ]


def _plan(values: dict[str, Any]) -> SessionPlan:
    guesses: str | None = values["guesses"]
    draft = DraftSettings(
        cost=StepCost(fixed_s=values["draft_ms"] / 1000, per_row_s=0.0),
        acceptance=values["acceptance"],
        trace=recorded_trace(guesses) if guesses else None,
    )
    model = ModelSettings(
        cost=StepCost(fixed_s=values["step_ms"] / 1000, per_row_s=values["row_ms"] / 1000)
    )
    if values["costs"]:
        target = _costs(values["costs"]).target
        model = ModelSettings(cost=target.cost, spread=target.spread)
    return SessionPlan(
        network=parse_network(values["network"]),
        draft=draft,
        model=model,
        drafting=DraftingSettings(
            draft_length=values["draft_length"], tokens_per_message=values["tokens_per_message"]
        ),
        prompt_tokens=values["prompt_tokens"],
        tokens=values["tokens"],
        neighbours=values["neighbours"],
        seed=values["seed"],
    )


def _costs(text: str) -> Calibration:
    return recorded_costs(text) if text in cost_names() else read_costs(Path(text))


def _title(plan: SessionPlan) -> str:
    beside = f", {plan.neighbours} neighbours" if plan.neighbours else ""
    return (
        f"simulated session over {plan.network.name}: draft length {plan.drafting.draft_length}, "
        f"{plan.tokens} tokens{beside}, seed {plan.seed}"
    )


if __name__ == "__main__":
    session()
