"""The options of `paceline cloud`, with their help."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cloud.scheduler import RaceDrafting, Schedule
from paceline.metrics.options import metrics_option
from paceline.mqtt.options import broker_options
from paceline.settings import ADDRESS, DURATION

F = TypeVar("F", bound=Callable[..., Any])

_FILE = click.Path(path_type=Path, dir_okay=False)

_OPTIONS = (
    click.option(
        "--target",
        default="smollm2-135m",
        help="The model to serve: a hub name, a folder, a GGUF file, or smollm2-135m.",
    ),
    click.option(
        "--listen",
        type=ADDRESS,
        default="127.0.0.1:50051",
        help="Where edges connect; port 0 takes any free one. Beyond this machine: needs TLS and tokens.",
    ),
    click.option(
        "--dtype",
        type=click.Choice(["float32", "bfloat16"]),
        default="float32",
        help="Arithmetic of the model. float32 gives the same text every time, bfloat16 is faster.",
    ),
    click.option(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda"]),
        default="auto",
        help="Where the model runs.",
    ),
    click.option(
        "--threads",
        type=click.IntRange(min=0),
        default=0,
        help="Processor threads of the model; 0 leaves it to PyTorch.",
    ),
    click.option(
        "--race/--no-race",
        default=True,
        help="Go on without drafts while they are late, instead of waiting for them.",
    ),
    click.option(
        "--race-patience",
        type=DURATION,
        default="500ms",
        help="With --no-race: the longest wait for drafts.",
    ),
    click.option(
        "--race-drafts",
        type=click.Choice([each.value for each in RaceDrafting]),
        default=RaceDrafting.SUFFIX.value,
        help="What to guess here from a text so far, where drafts of its edge are missing or less likely.",
    ),
    click.option(
        "--schedule",
        type=click.Choice([schedule.value for schedule in Schedule]),
        default=Schedule.GOODPUT.value,
        help="Which drafted tokens a step verifies: those that raise its tokens per second, all that there is room for, or "
        "as the first with two groups of answers in turn.",
    ),
    click.option(
        "--max-slowdown",
        type=click.FloatRange(min=1.0),
        default=1.25,
        help="How many times slower an answer may become for drafted tokens of others.",
    ),
    click.option(
        "--row-budget",
        type=click.IntRange(min=2),
        default=128,
        help="Most token positions computed in one step, prompts and drafts together.",
    ),
    click.option(
        "--max-sessions",
        type=click.IntRange(1, 65536),
        default=64,
        help="Most answers under way at once.",
    ),
    click.option(
        "--max-sessions-per-tenant",
        type=click.IntRange(0, 65536),
        default=0,
        help="The same for each tenant; 0 for no bound of its own.",
    ),
    click.option(
        "--memory",
        type=click.IntRange(min=1),
        default=2048,
        help="Memory for the texts being worked on, in MiB; the weights come on top.",
    ),
    click.option(
        "--window",
        type=click.IntRange(64, 4096),
        default=256,
        help="Most drafted tokens an edge may have in flight.",
    ),
    click.option(
        "--max-lead",
        type=click.IntRange(min=8),
        default=256,
        help="Most tokens computed ahead of what an edge has confirmed.",
    ),
    click.option(
        "--lease",
        type=DURATION,
        default="60s",
        help="How long an answer is kept for an edge that lost its connection.",
    ),
    click.option(
        "--drain",
        type=DURATION,
        default="30s",
        help="On SIGTERM or Ctrl-C: how long answers may go on. A second signal ends at once.",
    ),
    click.option("--tls-cert", type=_FILE, help="Certificate of this server with its chain, PEM."),
    click.option("--tls-key", type=_FILE, help="Its private key, PEM."),
    click.option(
        "--client-ca",
        type=_FILE,
        help="Demand client certificates signed by this authority, PEM. Their common name is the tenant.",
    ),
    click.option(
        "--token-file",
        type=_FILE,
        help="Who may connect: a file with one `tenant token` per line.",
    ),
    click.option(
        "--token",
        help="A single token, for tenant `default`. Better set as PACELINE_CLOUD_TOKEN: command lines can be seen.",
    ),
    click.option(
        "--insecure",
        is_flag=True,
        help="Let everybody in from anywhere, without TLS and tokens. For closed networks only.",
    ),
    click.option(
        "--share-prefixes-between-tenants",
        is_flag=True,
        help="Compute a common beginning of prompts once for all tenants. They can then guess each other's from timing.",
    ),
    click.option(
        "--min-step",
        type=DURATION,
        default="0s",
        help="Make every step take at least this long, to emulate a slower target.",
    ),
    click.option(
        "--ray",
        is_flag=True,
        help="Serve through Ray Serve: several replicas behind one address. Needs the package paceline[ray].",
    ),
    click.option(
        "--replicas",
        type=click.IntRange(1, 1024),
        default=1,
        help="With --ray: how many verifiers, each with the whole model.",
    ),
    click.option(
        "--ray-address",
        help="With --ray: join this Ray cluster (HOST:PORT, or auto) instead of starting one here.",
    ),
)


_FLEET_OPTIONS = (
    click.option(
        "--verifier-id",
        help="With --broker: the name of this verifier in the fleet.  [default: host name and port]",
    ),
    click.option(
        "--advertise",
        type=ADDRESS,
        help="Where edges reach this verifier, if not where it listens: told to the fleet and for coming back to a session.",
    ),
)


def cloud_options(function: F) -> F:
    """Add all options, in the order of this file."""
    for option in reversed(_FLEET_OPTIONS):
        function = option(function)
    function = metrics_option(broker_options(function))
    for option in reversed(_OPTIONS):
        function = option(function)
    return function
