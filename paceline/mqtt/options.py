"""The options with which every program is told its broker."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from paceline.errors import ConfigError
from paceline.mqtt.settings import BrokerSettings
from paceline.settings import ADDRESS

_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)
_NEED_BROKER = (
    "broker_ca",
    "broker_cert",
    "broker_key",
    "broker_user",
    "broker_password_file",
)

_Command = TypeVar("_Command", bound=Callable[..., Any])

_OPTIONS = (
    click.option(
        "--broker",
        type=ADDRESS,
        help="MQTT broker of the control plane.  [default: none; the program goes by itself]",
    ),
    click.option(
        "--broker-ca",
        type=_FILE,
        help="Certificates to trust for the broker (PEM).  [default: system's]",
    ),
    click.option(
        "--broker-cert", type=_FILE, help="Our own certificate for the broker (PEM), mutual TLS."
    ),
    click.option("--broker-key", type=_FILE, help="Key of --broker-cert (PEM)."),
    click.option("--broker-user", help="Name to log in to the broker with."),
    click.option(
        "--broker-password-file",
        type=_FILE,
        help="File with the password of --broker-user, kept out of `ps`.",
    ),
)


def broker_options(command: _Command) -> _Command:
    """Add the options of `BrokerSettings` to a command. `--insecure` is the program's own."""
    # Decorators apply from the last to the first, and --help lists them the other way round.
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def broker_settings(values: Mapping[str, Any]) -> BrokerSettings | None:
    """Return the settings of a command's values; None if no broker is named.

    Raises:
        ConfigError: they contradict each other, or a file cannot be read.
    """
    address = values["broker"]
    if address is None:
        for name in _NEED_BROKER:
            if values[name] is not None:
                raise ConfigError(
                    f"--{name.replace('_', '-')}: got it without --broker, expected both or none"
                )
        return None
    return BrokerSettings(
        address=address,
        user=values["broker_user"],
        password=_password(values["broker_password_file"]),
        insecure=values.get("insecure", False),
        ca_file=values["broker_ca"],
        cert_file=values["broker_cert"],
        key_file=values["broker_key"],
    )


def _password(file: Path | None) -> str | None:
    if file is None:
        return None
    try:
        content = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--broker-password-file: cannot read {file}") from error
    if not content or "\n" in content:
        raise ConfigError(f"--broker-password-file: {file} must hold one line, the password alone")
    return content
