"""A network as a test wrote it: kept as a table, so that a change says only what changes."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, Self

from paceline.errors import ConfigError
from paceline.settings import parse_duration
from simulator.network import NetworkSettings
from simulator.notation import network_table, parse_network

_EXCLUSIVE = ("rtt", "delay")
"""Two ways to write one thing: the newer one holds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WrittenNetwork:
    """A table as `simulator.notation` has it, and what it means."""

    table: Mapping[str, Any]
    settings: NetworkSettings

    @classmethod
    def read(cls, written: str | Mapping[str, Any] | None, keys: Mapping[str, Any]) -> Self:
        """Return the network of `written`, changed by `keys`.

        Raises:
            ConfigError: a key is unknown, or a value is wrong; it names the key.
        """
        table = {} if written is None else network_table(written)
        if written is not None and not keys:
            return cls(table=table, settings=parse_network(written))
        table = _overlaid(table, keys)
        return cls(table=table, settings=parse_network(table))

    @property
    def label(self) -> str:
        """Return it in the short form, for people: "lte,loss=2%,up.bandwidth=1mbit"."""
        words = []
        for key, value in self.table.items():
            if isinstance(value, Mapping):
                words += [f"{key}.{own}={one}" for own, one in value.items()]
            else:
                words.append(str(value) if key == "profile" else f"{key}={value}")
        return ",".join(words) or "no delay, no loss"

    def changed(self, written: str | Mapping[str, Any] | None, keys: Mapping[str, Any]) -> Self:
        """Return another network if one is written, else this one, changed by `keys`.

        Raises:
            ConfigError: as in `read`.
        """
        return self.read(self.table if written is None else written, keys)


def _overlaid(table: Mapping[str, Any], keys: Mapping[str, Any]) -> dict[str, Any]:
    """Return the table with the keys in it; `up` and `down` are tables themselves."""
    grown = dict(table)
    for key, value in keys.items():
        if key in _EXCLUSIVE:
            for other in _EXCLUSIVE:
                grown.pop(other, None)
        before = grown.get(key)
        if key in {"up", "down"} and isinstance(before, Mapping) and isinstance(value, Mapping):
            value = {**before, **value}  # noqa: PLW2901 - the same key, grown
        grown[key] = value
    return grown


def seconds(duration: float | str) -> float:
    """Return a duration in seconds; numbers are that already.

    Raises:
        ConfigError: it is none, or below zero.
    """
    value = parse_duration(duration) if isinstance(duration, str) else float(duration)
    if not 0.0 <= value < inf:
        raise ConfigError(
            f"duration: got {duration!r}, expected seconds from 0 on, or a text such as 300ms"
        )
    return value
