"""The options of `paceline orchestrator ...` and the settings they make."""

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import click

from orchestrator.history_file import HistoryBounds
from paceline.errors import ConfigError
from paceline.http_gate import check_opening
from paceline.metrics.options import metrics_option
from paceline.mqtt.options import broker_options, broker_settings
from paceline.mqtt.settings import BrokerSettings
from paceline.settings import ADDRESS, DURATION, Address, secret

DEFAULT_LISTEN = "127.0.0.1:8090"
DEFAULT_BROKER_LISTEN = "127.0.0.1:1883"

_BOUNDS = HistoryBounds()
_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)

_Command = TypeVar("_Command", bound=Callable[..., Any])

_KEY_OPTIONS = (
    click.option(
        "--api-key", help="What browsers and commands present; needed beyond this machine."
    ),
    click.option("--api-key-file", type=_FILE, help="File with the key, kept out of `ps`."),
)

_SERVE_OPTIONS = (
    click.option(
        "--listen",
        type=ADDRESS,
        default=DEFAULT_LISTEN,
        help="Where the dashboard and the API are; port 0 is any.",
    ),
    broker_options,
    click.option(
        "--own-telemetry-connection",
        is_flag=True,
        help="With --broker: hear telemetry over a second connection, so that an edge that floods delays nothing else. Not for "
        "a broker that tells connections apart by user alone (mosquitto's use_username_as_clientid).",
    ),
    click.option(
        "--broker-listen",
        type=ADDRESS,
        default=DEFAULT_BROKER_LISTEN,
        help="Without --broker: where our own broker listens, on this machine only; port 0 is any.",
    ),
    click.option(
        "--history",
        type=click.Path(path_type=Path, dir_okay=False),
        help="SQLite file for the history.  [default: none; kept in memory until the program ends]",
    ),
    click.option(
        "--history-rows",
        type=click.IntRange(min=1),
        default=_BOUNDS.max_rows,
        help="Most rows of each table; the oldest go first. About 100 bytes each.",
    ),
    click.option(
        "--history-age",
        type=DURATION,
        default=f"{_BOUNDS.max_age_s / 3600.0:g}h",
        help="How long they are kept at most.",
    ),
    *_KEY_OPTIONS,
    click.option("--tls-cert", type=_FILE, help="Certificate of the page with its chain, PEM."),
    click.option("--tls-key", type=_FILE, help="Its private key, PEM."),
    metrics_option,
    click.option(
        "--insecure",
        is_flag=True,
        help="Let everybody see and steer the fleet, and speak without TLS to a broker elsewhere.",
    ),
)

_ASK_OPTIONS = (
    click.option(
        "--at",
        metavar="URL",
        default=f"http://{DEFAULT_LISTEN}",
        help="Where the orchestrator's page is.",
    ),
    *_KEY_OPTIONS,
    click.option("--tls-ca", type=_FILE, help="Certificates to trust (PEM).  [default: system's]"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class GateSettings:
    """Where the API is and who may use it.

    Raises:
        ConfigError: others could see and steer the fleet without a key.
    """

    listen: Address
    """Where browsers connect; port 0 lets the system choose."""

    api_key: str | None = field(default=None, repr=False)
    """What they must present; none: no key, on loopback."""

    is_insecure_allowed: bool = False
    """Listen to other machines without a key."""

    def __post_init__(self) -> None:
        """Check what goes with what."""
        check_opening(
            self.listen,
            api_key=self.api_key,
            is_insecure=self.is_insecure_allowed,
            risk="see and steer the fleet",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class OrchestratorSettings:
    """Everything `serve` is told."""

    gate: GateSettings
    broker: BrokerSettings | None
    """None: our own, in this process."""
    broker_listen: Address
    has_telemetry_connection: bool
    """Telemetry has a connection to the broker of its own."""
    history: Path | None
    """None: in memory."""
    history_bounds: HistoryBounds
    tls: ssl.SSLContext | None
    metrics_listen: Address | None


@dataclass(frozen=True, slots=True, kw_only=True)
class AskSettings:
    """How a command reaches a running orchestrator."""

    url: str
    api_key: str | None
    ca_file: Path | None


def serve_options(command: _Command) -> _Command:
    """Add the options of `OrchestratorSettings` to a command."""
    return _decorated(command, _SERVE_OPTIONS)


def ask_options(command: _Command) -> _Command:
    """Add the options of `AskSettings` to a command."""
    return _decorated(command, _ASK_OPTIONS)


def orchestrator_settings(values: Mapping[str, Any]) -> OrchestratorSettings:
    """Return the settings of a command's values.

    Raises:
        ConfigError: they contradict each other, or a file cannot be read.
    """
    broker = broker_settings(values)
    return OrchestratorSettings(
        gate=GateSettings(
            listen=values["listen"],
            api_key=_api_key(values),
            is_insecure_allowed=values["insecure"],
        ),
        broker=broker,
        broker_listen=values["broker_listen"],
        # Our own broker knows no users, so two connections never take each other's place.
        has_telemetry_connection=broker is None or values["own_telemetry_connection"],
        history=values["history"],
        history_bounds=HistoryBounds(
            max_rows=values["history_rows"], max_age_s=values["history_age"]
        ),
        tls=_tls(values["tls_cert"], values["tls_key"]),
        metrics_listen=values["metrics_listen"],
    )


def ask_settings(values: Mapping[str, Any]) -> AskSettings:
    """Return the settings of a command's values.

    Raises:
        ConfigError: they contradict each other, or a file cannot be read.
    """
    url = values["at"].rstrip("/")
    if not url.startswith(("http://", "https://")):
        raise ConfigError(
            f"--at: got {values['at']!r}, expected a URL such as http://{DEFAULT_LISTEN}"
        )
    return AskSettings(url=url, api_key=_api_key(values), ca_file=values["tls_ca"])


def _api_key(values: Mapping[str, Any]) -> str | None:
    return secret(values["api_key"], values["api_key_file"], name="--api-key")


def _tls(certificate: Path | None, key: Path | None) -> ssl.SSLContext | None:
    if (certificate is None) != (key is None):
        missing = "--tls-key" if key is None else "--tls-cert"
        raise ConfigError(
            f"{missing}: got none, expected both --tls-cert and --tls-key, or neither"
        )
    if certificate is None:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        # An empty password: an encrypted key is refused instead of asked about on the terminal.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"--tls-cert, --tls-key: {error}; expected PEM files, and the key of this certificate without a password"
        ) from error
    return context


def _decorated(command: _Command, options: tuple[Callable[[_Command], _Command], ...]) -> _Command:
    # Decorators apply from the last to the first, and --help lists them the other way round.
    for option in reversed(options):
        command = option(command)
    return command
