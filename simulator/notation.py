"""How a network is written, on the command line, in TOML and in a test's marker.

    lte                                        a profile
    rtt=60ms,jitter=5ms,loss=1%,bandwidth=20mbit
    lte,loss=1%,up.bandwidth=1mbit             a profile with changes
    up.trace=driving.up,down.trace=driving.down,rtt=50ms

The same as a table: `profile = "lte"`, `loss = "1%"`, and tables `up` and `down` for one way. Text of several lines is
TOML. Numbers without a unit are seconds, bits per second, bytes, and shares; text needs a unit where there is one.

| key | of the network | of one way (`up.KEY`, `down.KEY`) |
| --- | --- | --- |
| rtt | shortest round trip, half of it each way | - |
| delay | the same each way | propagation |
| jitter | standard deviation of the round trip | mean and standard deviation of this way |
| trace, bandwidth, bandwidth_spread, bandwidth_correlation, loss, loss_burst, ... | the same each way | of this way |
| series, series_interval | file of round trip summaries, how long each lasts | - |
"""

import dataclasses
import math
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError
from paceline.settings import parse_bandwidth, parse_duration, unknown_name
from simulator.link import LinkSettings
from simulator.network import NetworkSettings
from simulator.profiles import PROFILES
from simulator.traces import parse_delivery_trace, parse_rtt_series

Read = Callable[[str], str]
"""Returns the text of a recording that was named."""

MAX_RECORDING_BYTES = 64 * 1024 * 1024
SERIES_INTERVAL_S = 25.0
UNLIMITED = ("none", "unlimited")


def read_recording(name: str) -> str:
    """Return the text of a file.

    Raises:
        ConfigError: it cannot be read, is too large, or is no text.
    """
    path = Path(name).expanduser()
    try:
        if path.stat().st_size > MAX_RECORDING_BYTES:
            raise ConfigError(f"{path}: is larger than {MAX_RECORDING_BYTES} bytes")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not text") from error


def refuse_recordings(name: str) -> str:
    """Refuse a file that somebody else named.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(f"got {name!r}, expected no file: recordings are named where the link starts")


def parse_network(
    written: str | Mapping[str, Any], *, read: Read = read_recording
) -> NetworkSettings:
    """Return the settings of a network as somebody wrote it.

    Args:
        written: text in the short form or TOML, or a table.
        read: how recordings are had.

    Raises:
        ConfigError: a key is unknown, or a value is wrong; it names the key.
    """
    table = network_table(written)
    name = table.pop("profile", None)
    network = NetworkSettings()
    if name is not None:
        if not isinstance(name, str) or name not in PROFILES:
            raise unknown_name(str(name), PROFILES, what="network: profile")
        network = PROFILES[name]
    ways = {way: _own_keys(table.pop(way, {}), way=way) for way in ("up", "down")}
    shared = _shared(table, read=read)
    changed = {
        way: _change(getattr(network, way), {**shared, **_values(keys, read=read, way=way)}, way)
        for way, keys in ways.items()
    }
    is_profile = not table and not any(ways.values())
    label = network.name if is_profile else _label(written, name=name)
    return NetworkSettings(up=changed["up"], down=changed["down"], name=label)


def network_table(written: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return what was written as a table of its own: keys and values, not yet checked.

    Raises:
        ConfigError: it is neither a table nor the short form nor TOML.
    """
    if not isinstance(written, str):
        return dict(written)
    text = written
    if "\n" in text.strip():
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"network: not valid TOML: {error}") from error
    table: dict[str, Any] = {}
    for index, item in enumerate(text.split(",")):
        key, equals, value = (part.strip() for part in item.partition("="))
        if not equals and index == 0 and key:
            table["profile"] = key
            continue
        way, dot, own = key.partition(".")
        into = table
        if dot and way in ("up", "down"):
            key = own
            into = table.setdefault(way, {})
        if not equals or not key or not value:
            raise ConfigError(
                f"network: got {item.strip()!r} in {text!r}, expected KEY=VALUE, for example rtt=60ms"
            )
        if key in into:
            raise ConfigError(f"network: {key}: got it twice in {text!r}, expected it once")
        into[key] = value
    return table


def _label(written: str | Mapping[str, Any], *, name: str | None) -> str:
    if isinstance(written, str) and "\n" not in written:
        return written.strip()
    return "custom" if name is None else f"{name}, changed"


def _own_keys(value: Any, *, way: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"network: {way}: got {value!r}, expected a table")
    return dict(value)


def _shared(table: dict[str, Any], *, read: Read) -> dict[str, Any]:
    """Return the settings of each way that keys of the whole network mean."""
    own = dict(table)
    rtt, jitter = own.pop("rtt", None), own.pop("jitter", None)
    series, interval = own.pop("series", None), own.pop("series_interval", SERIES_INTERVAL_S)
    if rtt is not None and "delay" in own:
        raise ConfigError("network: delay: got rtt too, expected one of them")
    values = _values(own, read=read, way="")
    if rtt is not None:
        values["delay_s"] = _duration(rtt, "rtt") / 2.0
    if jitter is not None:
        # Two independent ways: their variances add up to that of the round trip.
        values["jitter_s"] = _duration(jitter, "jitter") / math.sqrt(2.0)
    if series is not None:
        text = _recording(series, "series", read=read)
        values["series"] = parse_rtt_series(
            text.splitlines(),
            interval_s=_duration(interval, "series_interval"),
            name=str(series),
        )
    return values


def _values(keys: Mapping[str, Any], *, read: Read, way: str) -> dict[str, Any]:
    """Return fields of LinkSettings."""
    values: dict[str, Any] = {}
    for key, value in keys.items():
        where = f"{way}.{key}" if way else key
        if key == "trace":
            text = _recording(value, where, read=read)
            values["trace"] = parse_delivery_trace(text.splitlines(), name=str(value))
        elif key in _READERS:
            field, reader = _READERS[key]
            values[field] = reader(value, where)
        else:
            others = () if way else ("profile", "rtt", "series", "series_interval", "up", "down")
            known = ("trace", *_READERS, *others)
            raise unknown_name(where, known, what="network: key")
    return values


def _change(settings: LinkSettings, values: dict[str, Any], way: str) -> LinkSettings:
    """Return settings with some replaced; what a recording brings takes the place of the profile's."""
    cleared: dict[str, Any] = {}
    if "trace" in values:
        cleared |= {"bandwidth_bps": None, "bandwidth_spread": 0.0}
    if values.get("bandwidth_bps", 0.0) is None:
        cleared |= {"bandwidth_spread": 0.0}
    if "series" in values:
        cleared |= {"delay_s": 0.0, "jitter_s": 0.0, "loss": 0.0}
    try:
        return dataclasses.replace(settings, **{**cleared, **values})
    except ConfigError as error:
        raise ConfigError(f"network: {way}: {error}") from error


def _recording(value: Any, where: str, *, read: Read) -> str:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"network: {where}: got {value!r}, expected the name of a file")
    try:
        return read(value)
    except ConfigError as error:
        raise ConfigError(f"network: {where}: {error}") from error


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"network: {where}: got {value!r}, expected a number or text")
    # A whole number may be too large for a float; nothing here may be as large as that.
    return float(value) if -1e18 < value < 1e18 else math.inf


def _duration(value: Any, where: str) -> float:
    if not isinstance(value, str):
        return _number(value, where)
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise ConfigError(f"network: {where}: {error}") from error


def _bandwidth(value: Any, where: str) -> float | None:
    if not isinstance(value, str):
        return _number(value, where)
    if value in UNLIMITED:
        return None
    try:
        return parse_bandwidth(value)
    except ConfigError as error:
        raise ConfigError(f"network: {where}: {error}") from error


def _share(value: Any, where: str) -> float:
    if not isinstance(value, str):
        return _number(value, where)
    number = value.strip().removesuffix("%")
    try:
        share = float(number)
    except ValueError:
        share = math.nan
    if not math.isfinite(share):
        raise ConfigError(f"network: {where}: got {value!r}, expected a share such as 1% or 0.01")
    return share / 100.0 if number != value.strip() else share


def _bytes(value: Any, where: str) -> int:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 16:
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ConfigError(f"network: {where}: got {value!r}, expected a whole number of bytes")
    return value


_READERS: Mapping[str, tuple[str, Callable[[Any, str], Any]]] = {
    "delay": ("delay_s", _duration),
    "jitter": ("jitter_s", _duration),
    "jitter_correlation": ("jitter_correlation_s", _duration),
    "bandwidth": ("bandwidth_bps", _bandwidth),
    "bandwidth_spread": ("bandwidth_spread", _share),
    "bandwidth_correlation": ("bandwidth_correlation_s", _duration),
    "loss": ("loss", _share),
    "loss_burst": ("loss_burst_s", _duration),
    "queue_bytes": ("queue_bytes", _bytes),
    "drop_idle_after": ("drop_idle_after_s", _duration),
}
