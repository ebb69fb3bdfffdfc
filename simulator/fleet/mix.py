"""Which networks the edges of a fleet are on: a mix of profiles and notations with shares, read from TOML."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paceline.errors import ConfigError
from paceline.settings import unknown_name
from simulator.fleet.groups import Resident
from simulator.network import NetworkSettings
from simulator.notation import parse_network, read_recording

EXAMPLE = Path(__file__).parent / "mix.toml"
MOST_KINDS = 32
_KEYS = ("name", "share", "network", "draft_slowdown")


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """Edges that are alike.

    Raises:
        ConfigError: a field is out of its range.
    """

    name: str
    share: float
    """In any unit."""
    network: NetworkSettings
    draft_slowdown: float = 1.0
    """Factor on the times of the drafter."""

    def __post_init__(self) -> None:
        """Check the fields."""
        for field, value in (("share", self.share), ("draft_slowdown", self.draft_slowdown)):
            if not 0.0 < value < math.inf:
                raise ConfigError(f"{field}: got {value}, expected a number above 0")


Mix = tuple[Kind, ...]


def read_mix(written: str) -> Mix:
    """Return the mix that a user means: a TOML file, or one network for all.

    Raises:
        ConfigError: the file cannot be read or a field is wrong; names it.
    """
    if not written.endswith(".toml"):
        return (Kind(name=written, share=1.0, network=parse_network(written)),)
    try:
        return parse_mix(read_recording(written))
    except ConfigError as error:
        raise ConfigError(
            f"--network {written}: {error}; `paceline simulate --example-mix` prints a mix to begin with"
        ) from error


def parse_mix(text: str) -> Mix:
    """Return a mix.

    Raises:
        ConfigError: it is no TOML, or a field is wrong; names it.
    """
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    entries = table.pop("edges", None)
    if table:
        raise unknown_name(next(iter(table)), ("edges",), what="mix: key")
    if not isinstance(entries, list) or not 1 <= len(entries) <= MOST_KINDS:
        raise ConfigError(
            f"edges: expected 1 to {MOST_KINDS} tables [[edges]], each with a share and a network"
        )
    return tuple(_kind(entry, number=number) for number, entry in enumerate(entries, start=1))


def _kind(entry: Any, *, number: int) -> Kind:
    where = f"edges, table {number}"
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{where}: got {entry!r}, expected a table")
    for key in entry:
        if key not in _KEYS:
            raise unknown_name(key, _KEYS, what=f"{where}: key")
    network = entry.get("network")
    if not isinstance(network, str | Mapping):
        raise ConfigError(f"{where}: network: got {network!r}, expected text or a table")
    try:
        settings = parse_network(network)
        return Kind(
            name=str(entry.get("name", settings.name)),
            share=_number(entry, "share"),
            network=settings,
            draft_slowdown=_number(entry, "draft_slowdown", default=1.0),
        )
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from error


def _number(entry: Mapping[str, Any], key: str, *, default: float | None = None) -> float:
    value = entry.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{key}: got {value!r}, expected a number")
    return float(value)


def counts(mix: Mix, num_edges: int) -> list[int]:
    """Return how many edges are of each kind: by largest remainder, all of them in the end."""
    total = sum(kind.share for kind in mix)
    exact = [kind.share * num_edges / total for kind in mix]
    whole = [int(part) for part in exact]
    by_remainder = sorted(range(len(mix)), key=lambda i: (whole[i] - exact[i], i))
    for index in by_remainder[: num_edges - sum(whole)]:
        whole[index] += 1
    return whole


def placed(mix: Mix, *, num_edges: int, num_verifiers: int) -> Sequence[tuple[Resident, ...]]:
    """Return the edges of each verifier: each kind is dealt out evenly.

    That is where `orchestrator.placement` puts edges that are as far from all verifiers, as long as these are alike.
    """
    numbers = counts(mix, num_edges)
    kinds = [index for index, count in enumerate(numbers) for _ in range(count)]
    residents = [
        Resident(number=number, kind=kind, slowdown=mix[kind].draft_slowdown)
        for number, kind in enumerate(kinds)
    ]
    return [tuple(residents[index::num_verifiers]) for index in range(num_verifiers)]
