"""`paceline cloud`: the verifier as a command."""

from typing import Any

import click

from cloud.options import cloud_options
from paceline.errors import ConfigError


@click.command()
@cloud_options
def cloud(**options: Any) -> None:
    """Serve a target model: verify what edges draft.

    Loads the target, then waits for edges on --listen until Ctrl-C or SIGTERM. Prints one line when it is ready:
    "paceline cloud ready on HOST:PORT".

    On one machine: paceline cloud

    For others: paceline cloud --listen 0.0.0.0:50051 --tls-cert cert.pem --tls-key key.pem --token-file tokens.txt

    Two replicas behind one address: paceline cloud --ray --replicas 2
    """
    # Only a call that serves pays for importing torch and grpc; --help does not.
    if options["ray"]:
        from cloud.ray_program import run  # noqa: PLC0415
    else:
        if options["replicas"] != 1 or options["ray_address"] is not None:
            raise ConfigError(
                "--replicas, --ray-address: they need --ray; give it, or leave them out"
            )
        from cloud.program import run  # noqa: PLC0415

    run(options)
