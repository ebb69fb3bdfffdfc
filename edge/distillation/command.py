"""`paceline distil`: makes a draft for a target."""

from pathlib import Path
from typing import Any

import click

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_WRITE_TOKENS = 2_000_000


@click.command()
@click.option(
    "--target",
    required=True,
    metavar="MODEL",
    help="The model to draft for: a Hugging Face name, a folder, a GGUF file, or smollm2-135m.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of the run; call again with the same one to go on after a break or a kill.",
)
@click.option(
    "--only",
    type=click.Choice(["write", "train", "practice", "report", "pack"]),
    help="Do one stage.  [default: all that are not done yet]",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the text and the training.")
@click.option(
    "--write-tokens",
    type=click.IntRange(min=1),
    default=_WRITE_TOKENS,
    help="Tokens of text to write.",
)
@click.option(
    "--batch",
    type=click.IntRange(min=1),
    default=96,
    help="Texts that are written in step; each takes cache for --max-length tokens.",
)
@click.option(
    "--max-length", type=click.IntRange(min=64), default=1024, help="Most tokens of a text."
)
@click.option(
    "--scripts-per-shard",
    type=click.IntRange(min=1),
    default=384,
    help="Texts that are written before they are kept for good.",
)
@click.option(
    "--train-tokens",
    type=click.IntRange(min=1),
    default=8_000_000,
    help="Tokens that the student sees; text is read again as often as that takes.",
)
@click.option(
    "--batches-per-step",
    type=click.IntRange(min=1),
    default=4,
    help="Batches of 2,048 tokens whose gradients make a step; fewer where there is little time.",
)
@click.option(
    "--num-layers",
    type=click.IntRange(min=1),
    default=8,
    help="Layers of the student, spread over the target's.",
)
@click.option(
    "--layers",
    type=int,
    multiple=True,
    metavar="N",
    help="A layer of the target that the student gets, from 0 on; repeat it.  [default: see --num-layers]",
)
@click.option(
    "--outputs",
    type=click.IntRange(min=2),
    default=16_384,
    help="Tokens that the draft can say: those that the target uses most.",
)
@click.option(
    "--head",
    type=click.Choice(["frozen", "trained"]),
    default="frozen",
    help="The student's output matrix: rows of the target's, or a copy that learns.",
)
@click.option(
    "--fit-tokens",
    type=click.IntRange(min=0),
    default=131_072,
    help="Text on which the copied layers are fitted, without gradients, before training.",
)
@click.option(
    "--bits",
    type=click.Choice(["2", "3", "4", "5", "6", "none"]),
    default="4",
    help="Learn with weights rounded to so many bits, as the packed draft has them; none: with exact weights.",
)
@click.option(
    "--block",
    type=click.IntRange(min=1, max=32),
    default=1,
    help="Positions that the draft guesses in one pass, see block:MODEL; above 1 it learns mask slots, in twice the time.",
)
@click.option(
    "--practice-tokens",
    type=click.IntRange(min=0),
    default=0,
    help="Tokens that the trained student drafts after text of the target, which judges them; then it goes on learning from both.",
)
@click.option("--rate", type=float, default=1.5e-3, help="Peak learning rate.")
@click.option(
    "--continue-from",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DRAFT",
    help="A draft of the same shape to go on from, instead of the target's layers.",
)
@click.option(
    "--student",
    default="training",
    metavar="NAME",
    help="Name of this student, where several learn from one text; its folder in --out.",
)
@click.option(
    "--exclude",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="Texts that the draft is to be measured on (.jsonl, .json or plain): what shares 13 words in a row with them is dropped.",
)
@click.option(
    "--documents",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="Texts to be continued.  [default: licensed text on this machine]",
)
@click.option(
    "--prompts",
    type=_FILE,
    multiple=True,
    metavar="FILE",
    help="Your users' prompts (.jsonl, .json, or one text); a third of the text answers them.",
)
@click.option(
    "--dtype",
    type=click.Choice(["float32", "bfloat16"]),
    default="bfloat16",
    help="Arithmetic of the target.",
)
@click.option(
    "--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where models run."
)
@click.option("--threads", type=click.IntRange(min=1), help="CPU threads of PyTorch.")
def distil(**values: Any) -> None:
    """Make a small draft model for a target, with nothing else given.

    The target writes text of many kinds; a shallow student of the target's own shape learns to guess it.

    Example: paceline distil --target smollm2-135m --out my-draft
    """
    # PyTorch takes seconds to import; --help and a wrong flag must not wait for it.
    from edge.distillation.stages import run  # noqa: PLC0415

    run(values)
