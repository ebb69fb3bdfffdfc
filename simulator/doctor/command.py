"""`paceline doctor`: says what is missing, and what to do about it."""

import sys
from typing import Any

import click

from edge.control_options import control_options, control_settings
from edge.options import agent_options, agent_settings
from paceline.settings import ADDRESS, DURATION, Address
from simulator.doctor.report import Report, as_json, is_well
from simulator.doctor.settings import DoctorSettings

STATUS_UNWELL = 1


@click.command()
@click.option(
    "--listen",
    type=ADDRESS,
    multiple=True,
    help="Where a program is to listen; repeat it for others.  [default: the usual ports of 127.0.0.1]",
)
@click.option("--load", is_flag=True, help="Load the weights too, as the program would.")
@click.option("--json", "wants_json", is_flag=True, help="Write one JSON object at the end.")
@click.option(
    "--deadline",
    type=DURATION,
    default="10s",
    help="Longest wait for each answer of the network.",
)
@control_options
@agent_options
def doctor(
    *, listen: tuple[Address, ...], load: bool, wants_json: bool, deadline: float, **values: Any
) -> int:
    """Look for what would go wrong: versions, models, ports, certificates, verifiers, links, broker.

    Takes the options of `paceline edge`: put doctor in the place of edge. Exit status 0 if nothing failed, 1 if
    something did, 2 for a wrong option.

    Example: paceline doctor --cloud gpu-box:50051 --tls-ca ca.pem --token-file token
    """
    # Needs what it is to look for; --help does not.
    from simulator.doctor.examination import examine  # noqa: PLC0415

    settings = DoctorSettings(
        agent=agent_settings(values),
        control=control_settings(values),
        listen=listen,
        load=load,
        deadline_s=deadline,
    )
    if wants_json:
        checks = examine(settings, show=lambda _: None)
        click.echo(as_json(checks))
    else:
        report = Report(sys.stdout)
        checks = examine(settings, show=report.show)
        report.conclude(checks)
    return 0 if is_well(checks) else STATUS_UNWELL
