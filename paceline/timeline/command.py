"""`paceline timeline`: another form of a recording that `--timeline FILE.jsonl` wrote; also `python -m paceline.timeline.command`."""

from pathlib import Path

import click

from paceline.timeline.facts import disguised
from paceline.timeline.writing import check_file, read_recording, write


@click.command()
@click.argument(
    "recording", type=click.Path(path_type=Path, dir_okay=False), metavar="RECORDING.jsonl"
)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--title", help="First line of it.  [the name of the recording]")
@click.option(
    "--tokens/--no-tokens", default=False, help="Keep token ids, if the recording has them."
)
def timeline(*, recording: Path, file: Path, title: str | None, tokens: bool) -> None:
    """Make a picture or a trace of a recorded session.

    FILE ends with .json for ui.perfetto.dev and chrome://tracing, with .svg or .png for a picture, or with .jsonl.

    Example: paceline timeline slow-answer.jsonl slow-answer.svg
    """
    check_file(file)
    facts = read_recording(recording)
    made = write(facts if tokens else disguised(facts), file, title=title or recording.stem)
    click.echo(f"{file}: {made.figures.sentence()}")


if __name__ == "__main__":
    timeline()
