"""`paceline calibrate`: measures this machine and a pair of models for the simulator."""

from pathlib import Path
from typing import Any

import click

from paceline.prompts import PROMPT_FILE


@click.command()
@click.option(
    "--target",
    required=True,
    metavar="MODEL",
    help="The model of the verifier: a Hugging Face name, a folder, a GGUF file, or smollm2-135m.",
)
@click.option(
    "--draft",
    multiple=True,
    metavar="DRAFTER",
    help="What drafts: lookup, a model, or low-bit:BITS/GROUP for a rounded copy of the target; repeat it.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder for costs.toml and the recorded guesses.",
)
@click.option(
    "--prompts",
    type=PROMPT_FILE,
    help="Record guesses on these: JSON lines with prompt, and id and category if you like.  [no recording]",
)
@click.option(
    "--costs/--no-costs", default=True, help="Time steps; without it guesses are recorded only."
)
@click.option(
    "--service/--no-service",
    default=False,
    help="Also start a verifier, and time what it does between two steps.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="bfloat16",
    help="Arithmetic of all models.",
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where models run."
)
@click.option("--threads", type=click.IntRange(min=1), default=1, help="CPU threads of PyTorch.")
@click.option(
    "--rounds",
    type=click.IntRange(1, 1000),
    default=7,
    help="How often each kind of step is timed.",
)
@click.option(
    "--max-context",
    type=click.IntRange(16, 1 << 20),
    default=2048,
    help="Longest text with which steps are timed, in tokens.",
)
@click.option(
    "--sessions",
    type=click.IntRange(1, 64),
    default=8,
    help="Most sessions in one timed step; 1 is enough for a verifier with one edge.",
)
@click.option(
    "--rows",
    type=click.IntRange(1, 256),
    default=32,
    help="Most rows of one session in a timed step: the token before and the drafts.",
)
@click.option(
    "--temperature",
    type=click.FloatRange(0.0, 100.0),
    multiple=True,
    default=(0.0, 1.0),
    help="At which guesses are recorded; repeat it.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the target's draws.")
@click.option(
    "--max-tokens",
    type=click.IntRange(1, 4096),
    default=64,
    help="Most tokens of each recorded answer.",
)
def calibrate(**values: Any) -> None:
    """Measure what steps cost here, and record how a draft guesses, for simulations.

    Times steps of the target and passes of drafters, fits a cost to them and writes it to a file. With prompts it
    also records, token by token, which candidate of each draft the target's token was.

    Example: paceline calibrate --target smollm2-135m --draft lookup --prompts prompts.jsonl --out calibration
    """
    # PyTorch takes seconds to import; --help and a wrong flag must not wait for it.
    from simulator.calibration.grid import StepGrid  # noqa: PLC0415
    from simulator.calibration.run import CalibrationSettings, calibrate_all  # noqa: PLC0415

    calibrate_all(
        CalibrationSettings(
            target=values["target"],
            drafts=values["draft"],
            out=values["out"],
            dtype=values["dtype"],
            device=values["device"],
            threads=values["threads"],
            wants_costs=values["costs"],
            wants_service=values["service"],
            grid=StepGrid(
                max_context=values["max_context"],
                most_sequences=values["sessions"],
                most_rows=values["rows"],
                rounds=values["rounds"],
            ),
            lines=values["prompts"] or (),
            temperatures=values["temperature"],
            seed=values["seed"],
            max_tokens=values["max_tokens"],
        )
    )
