"""What the markers of a test say about its network. Pure, and cheap to import.

    @pytest.mark.network("lte", loss="1%")
    @pytest.mark.network(rtt="80ms", up={"bandwidth": "1mbit"}, time="real", seed=7)

Several markers of one test (its own, its class's, its module's) add up: the network is that of the nearest marker that
describes one, and so is each option.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from paceline.errors import ConfigError

MARKER = "network"


class Time(StrEnum):
    """How time passes for a test."""

    VIRTUAL = "virtual"
    """One process, no sockets, no waiting."""
    REAL = "real"
    """Processes and sockets on this machine."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mark:
    """The arguments of one marker."""

    args: tuple[Any, ...] = ()
    keys: Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """What all markers of a test say together."""

    written: str | Mapping[str, Any] | None = None
    """The network, or the profile that `keys` change."""
    keys: Mapping[str, Any]
    """As tables of `simulator.notation` have them."""
    times: tuple[Time, ...] = ()
    """The test runs once in each; none were named if empty."""
    seeds: tuple[int, ...] = ()
    """The test runs once with each; none were named if empty."""


def described(marks: Iterable[Mark]) -> Description:
    """Return what the markers say.

    Args:
        marks: the nearest one first.

    Raises:
        ConfigError: an option is wrong; names it. The network itself is not read here.
    """
    network: Mark | None = None
    options: dict[str, Any] = {}
    for mark in marks:
        keys = dict(mark.keys)
        for name in ("time", "seed"):
            if name in keys:
                options.setdefault(name, keys.pop(name))
                keys.pop(name, None)
        if network is None and (mark.args or keys):
            network = Mark(args=mark.args, keys=keys)
    network = network or Mark(keys={})
    return Description(
        written=_written(network.args),
        keys=network.keys,
        times=_times(options.get("time")),
        seeds=_seeds(options.get("seed")),
    )


def _written(args: Sequence[Any]) -> str | Mapping[str, Any] | None:
    if len(args) > 1:
        raise ConfigError(
            f"network: got {len(args)} arguments without a name, {', '.join(map(repr, args))}, expected one: a profile "
            'or "rtt=80ms,loss=1%"'
        )
    if not args:
        return None
    written = args[0]
    if not isinstance(written, str | Mapping):
        raise ConfigError(
            f'network: got {written!r}, expected a profile such as "lte", "rtt=80ms,loss=1%", or a table'
        )
    return written


def _times(value: Any) -> tuple[Time, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, str) else value
    known = [time.value for time in Time]
    if isinstance(values, Iterable):
        values = list(values)
        if values and all(one in known for one in values) and len(set(values)) == len(values):
            return tuple(Time(one) for one in values)
    raise ConfigError(f'time: got {value!r}, expected "virtual", "real" or both in a list')


def _seeds(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    values = [value] if isinstance(value, int) else value
    if isinstance(values, Iterable) and not isinstance(values, str):
        values = list(values)
        if values and all(map(_is_seed, values)) and len(set(values)) == len(values):
            return tuple(values)
    raise ConfigError(f"seed: got {value!r}, expected a whole number from 0 on, or a range of them")


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
