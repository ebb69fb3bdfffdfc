"""What every command reads in the same way: units, addresses, the configuration file, the environment.

Only this module reads the environment. A setting is found in this order: command line, environment variable
(PACELINE_<COMMAND>_<OPTION>), configuration file (one table per sub-command), the option's default.
"""

import contextlib
import difflib
import ipaddress
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from paceline.errors import ConfigError

ENVIRONMENT_PREFIX = "PACELINE"
"""Prefix of every environment variable; `paceline cloud --listen` is PACELINE_CLOUD_LISTEN."""

DEFAULT_FILES = (Path("paceline.toml"), Path("~/.config/paceline/paceline.toml"))
"""Configuration files that are read when none is named; the first that exists."""

MAX_HOST_BYTES = 253
"""Longest host name that DNS has."""

_DURATION_UNITS_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}
_BANDWIDTH_UNITS_BPS = {"bit": 1.0, "kbit": 1e3, "mbit": 1e6, "gbit": 1e9}
_QUANTITY = re.compile(r"(\d+(?:\.\d*)?|\.\d+)\s*([a-z]*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """A place to listen at or to connect to."""

    host: str
    """Name or IP address, without brackets."""

    port: int
    """0 <= port <= 65535; 0 lets the system choose one to listen at."""

    def __str__(self) -> str:
        """Return host:port, with brackets around an IPv6 address."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Only this machine can reach it."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            # A name proves nothing: 127.example.org may be any machine, or stand in a forged Host header.
            return self.host.lower() == "localhost"


def parse_duration(text: str) -> float:
    """Return seconds of a duration such as "60ms", "1.5s" or "2m". Zero needs no unit.

    Raises:
        ConfigError: not a number with one of the units.
    """
    return _quantity(text, what="duration", units=_DURATION_UNITS_S, example="60ms or 1.5s")


def parse_bandwidth(text: str) -> float:
    """Return bits per second of a bandwidth such as "20mbit" or "512kbit".

    Raises:
        ConfigError: not a number above zero with one of the units.
    """
    bits = _quantity(text, what="bandwidth", units=_BANDWIDTH_UNITS_BPS, example="20mbit")
    if bits <= 0.0:
        raise ConfigError(f"bandwidth: got {text!r}, expected more than zero, for example 20mbit")
    return bits


def parse_address(text: str) -> Address:
    """Return the address written as HOST:PORT or [IPV6]:PORT.

    Raises:
        ConfigError: no host, no port, a port out of range, or a host that nobody could look up.
    """
    host, colon, port_text = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not host or not port_text.isascii() or not port_text.isdigit():
        raise ConfigError(f"address: got {text!r}, expected HOST:PORT, for example 127.0.0.1:7700")
    port = int(port_text)
    if port > 65535:
        raise ConfigError(f"address: got port {port} in {text!r}, expected 0 to 65535")
    if not _is_host(host):
        raise ConfigError(f"address: got {text[:100]!r}, expected the name or IP address of a host")
    return Address(host=host, port=port)


def _is_host(text: str) -> bool:
    """Return whether the system's resolver takes it; it raises what nobody expects for some of what it does not take."""
    if not text.isprintable() or " " in text:
        return False
    try:
        return len(text.encode()) <= MAX_HOST_BYTES and bool(text.encode("idna"))
    except UnicodeError:  # an empty label, or one above 63 bytes
        return False


def read_configuration(path: Path | None) -> Mapping[str, Any]:
    """Return the tables of a configuration file, or nothing if none was named and none lies at the usual places.

    Raises:
        ConfigError: the named file is missing, or the file is not TOML.
    """
    if path is None:
        found = [usual for usual in _default_files() if usual.is_file()]
        if not found:
            return {}
        path = found[0]
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise ConfigError(f"--config: cannot read {path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config: {path} is not valid TOML: {error}") from error


def _default_files() -> list[Path]:
    # A user without a home, as in some containers, has no file there.
    with contextlib.suppress(RuntimeError):
        return [usual.expanduser() for usual in DEFAULT_FILES]
    return [usual for usual in DEFAULT_FILES if usual.parts[0] != "~"]


def unknown_name(name: str, known: Iterable[str], *, what: str) -> ConfigError:
    """Return the error for a name nobody knows; it tells the nearest known one, or all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}?" if near else f"known are: {', '.join(names) or 'none'}"
    return ConfigError(f"{what} {name!r} is not known; {hint}")


def secret(text: str | None, file: Path | None, *, name: str) -> str | None:
    """Return a secret given as itself or as a file that holds it.

    Raises:
        ConfigError: it is given twice, or the file is empty or cannot be read.
    """
    if file is None:
        return text
    if text is not None:
        raise ConfigError(f"{name}, {name}-file: got both, expected one of them")
    try:
        content = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{name}-file: cannot read {file}") from error
    if not content or "\n" in content:
        raise ConfigError(f"{name}-file: {file} must hold one line, the secret alone")
    return content


def color_wanted() -> bool:
    """Return whether the user leaves colours on: NO_COLOR (no-color.org) is not set."""
    return not os.environ.get("NO_COLOR")


def quiet_libraries() -> None:
    """Keep gRPC from writing its own notes on lost connections between ours. Works before it is imported."""
    os.environ.setdefault("GRPC_VERBOSITY", "ERROR")


def set_default_environment(values: Mapping[str, str]) -> None:
    """Set variables for a library that reads them when it is imported or starts processes; what is set stays."""
    for name, value in values.items():
        os.environ.setdefault(name, value)


def child_environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return this process's environment for a child, without our own settings, with `extra` added.

    A child gets its settings on its command line: a PACELINE_ variable meant for the parent must not change it.
    """
    own = f"{ENVIRONMENT_PREFIX}_"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(own)}
    return kept | dict(extra or {})


def _quantity(text: str, *, what: str, units: Mapping[str, float], example: str) -> float:
    """Return a number with a unit, in the base unit."""
    match = _QUANTITY.fullmatch(text.strip().lower())
    if match is None:
        raise ConfigError(
            f"{what}: got {text!r}, expected a number and a unit, for example {example}"
        )
    number, unit = float(match[1]), match[2]
    if unit in units:
        return number * units[unit]
    if not unit and number == 0.0:
        return 0.0
    got = f"unit {unit!r}" if unit else "no unit"
    raise ConfigError(
        f"{what}: got {got} in {text!r}, expected one of {', '.join(units)}, for example {example}"
    )


class DurationType(click.ParamType[float]):
    """A duration on the command line, in seconds in the program."""

    name = "duration"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse text; a number is seconds already."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        try:
            return parse_duration(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class BandwidthType(click.ParamType[float]):
    """A bandwidth on the command line, in bits per second in the program."""

    name = "bandwidth"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Parse text; a number is bits per second already."""
        if isinstance(value, int | float) and not isinstance(value, bool):
            return float(value)
        try:
            return parse_bandwidth(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


class AddressType(click.ParamType[Address]):
    """HOST:PORT on the command line."""

    name = "host:port"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> Address:
        """Parse text."""
        if isinstance(value, Address):
            return value
        try:
            return parse_address(str(value))
        except ConfigError as error:
            self.fail(str(error), param, ctx)


DURATION = DurationType()
BANDWIDTH = BandwidthType()
ADDRESS = AddressType()
